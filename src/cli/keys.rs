//! `rkllmd keys`: changes the file of keys. A key's plaintext is printed to stdout, alone, once.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{ConfigArgument, print};
use crate::auth::{
    ApiKey, FirstKey, FirstKeyError, KeyName, Keyring, KeysFile, KeysFileError, Role, Secret,
    creation_time,
};
use crate::generation::Weight;
use crate::settings::{AuthPolicy, HttpSettings};

pub(super) const EXAMPLES: &str = "\
A running daemon follows within a second. Keys are kept as SHA-256 in http.keys-file.

Examples:
  rkllmd keys add laptop                        for any model
  rkllmd keys add kiosk --model tiny            for one model only
  rkllmd keys add family --weight 4             four times the share of a key of weight 1
  rkllmd keys add guest --tenant guests         what it asks stays hidden from other tenants' keys
  rkllmd keys add prometheus --role admin       also for /metrics
  rkllmd keys list
  rkllmd keys revoke kiosk
  rkllmd keys first                             the key the installation made";

#[derive(Args)]
pub(super) struct KeysArguments {
    #[command(flatten)]
    pub config: ConfigArgument,
    #[command(subcommand)]
    pub command: KeysCommand,
}

#[derive(Subcommand)]
pub(super) enum KeysCommand {
    /// Make a key and print it; it cannot be shown again
    Add(AddArguments),
    /// List the keys: name, role, weight, tenant, models and when each was made
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a key invalid
    Revoke {
        /// Name of the key
        name: KeyName,
    },
    /// Print the key that the installation made
    First {
        /// Remove its plaintext instead, once it is kept elsewhere; the key stays valid
        #[arg(long)]
        acknowledge: bool,
    },
}

#[derive(Args)]
pub(super) struct AddArguments {
    /// Name of the key: letters, digits, `.`, `_`, `@` and `-`
    #[arg(required_unless_present = "first")]
    name: Option<KeyName>,
    /// What it may do: an admin may also read /metrics
    #[arg(long, value_enum, default_value = "user")]
    role: Role,
    /// Model it may use, by id or alias; repeat for several [default: all]
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// Its share of a model's time beside other keys that wait as well, 1 to 100: a key of weight 2 gets
    /// twice the tokens of one of weight 1
    #[arg(long, default_value_t)]
    weight: Weight,
    /// Keys of one tenant share what is cached of their prompts, and may find out by it what others of them have
    /// asked; all keys without one are one tenant
    #[arg(long)]
    tenant: Option<KeyName>,
    /// Make the first key of an installation, an admin's, for `rkllmd keys first` to show; does
    /// nothing when there is a file of keys
    #[arg(long, conflicts_with_all = ["name", "role", "models", "weight", "tenant"])]
    first: bool,
}

/// Does what was asked, with the keys file of these settings.
pub(super) fn run(command: KeysCommand, settings: &HttpSettings) -> ExitCode {
    let keys = KeysFile::new(&settings.keys_file);
    let done = match command {
        KeysCommand::Add(arguments) => add(keys, arguments, settings.auth),
        KeysCommand::List { json } => list(&keys, json),
        KeysCommand::Revoke { name } => revoke(&keys, &name),
        KeysCommand::First { acknowledge } => first(keys, acknowledge),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

fn add(
    keys: KeysFile,
    arguments: AddArguments,
    policy: AuthPolicy,
) -> Result<ExitCode, FirstKeyError> {
    let Some(name) = arguments.name.filter(|_| !arguments.first) else {
        return add_first(keys);
    };
    let secret = Secret::generate().map_err(KeysFileError::NoRandomness)?;
    let key = ApiKey {
        name: name.clone(),
        digest: secret.digest(),
        role: arguments.role,
        models: (!arguments.models.is_empty()).then_some(arguments.models),
        weight: arguments.weight,
        tenant: arguments.tenant,
        created: creation_time(),
    };
    let models = models_of(&key);
    keys.change(|keyring| keyring.add(key))?;
    eprintln!(
        "Added `{name}`, role {}, weight {}, models: {models}. The key is shown only now:",
        arguments.role, arguments.weight
    );
    let code = print(&format!("{}\n", secret.plaintext()), ExitCode::SUCCESS);
    if policy == AuthPolicy::None {
        eprintln!("note: http.auth is \"none\", so no client is asked for a key");
    }
    Ok(code)
}

fn add_first(keys: KeysFile) -> Result<ExitCode, FirstKeyError> {
    let path = keys.path().display().to_string();
    if FirstKey::new(keys).generate(creation_time())? {
        eprintln!("The first key was made; `rkllmd keys first` shows it.");
    } else {
        eprintln!("{path} exists, so no first key was made.");
    }
    Ok(ExitCode::SUCCESS)
}

fn list(keys: &KeysFile, as_json: bool) -> Result<ExitCode, FirstKeyError> {
    let keyring = keys.read()?;
    if as_json {
        let listed: Vec<_> = keyring
            .iter()
            .flat_map(Keyring::keys)
            .map(|key| {
                json!({
                    "name": key.name.to_string(),
                    "role": key.role,
                    "models": key.models,
                    "weight": key.weight,
                    "tenant": key.tenant.as_ref().map(ToString::to_string),
                    "created": key.created,
                })
            })
            .collect();
        return Ok(print(&format!("{:#}\n", json!(listed)), ExitCode::SUCCESS));
    }
    Ok(match keyring {
        None => print(
            &format!("No key: {} does not exist.\n", keys.path().display()),
            ExitCode::SUCCESS,
        ),
        Some(keyring) => print(&table(&keyring), ExitCode::SUCCESS),
    })
}

fn table(keyring: &Keyring) -> String {
    if keyring.is_empty() {
        return "No key.\n".to_owned();
    }
    let width = |text: fn(&ApiKey) -> String| {
        let lengths = keyring.keys().map(|key| text(key).chars().count());
        lengths.max().unwrap_or(0)
    };
    let names = width(|key| key.name.to_string()).max("NAME".len());
    let tenants = width(tenant_of).max("TENANT".len());
    let created = width(|key| key.created.clone()).max("CREATED".len());
    let mut text = format!(
        "{:names$}  ROLE   WEIGHT  {:tenants$}  {:created$}  MODELS\n",
        "NAME", "TENANT", "CREATED"
    );
    for key in keyring.keys() {
        let (name, role) = (key.name.to_string(), key.role.to_string());
        let (models, tenant) = (models_of(key), tenant_of(key));
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{name:names$}  {role:5}  {:6}  {tenant:tenants$}  {:created$}  {models}",
            key.weight, key.created
        );
    }
    text
}

fn revoke(keys: &KeysFile, name: &KeyName) -> Result<ExitCode, FirstKeyError> {
    keys.change(|keyring| keyring.revoke(name))?;
    eprintln!(
        "Revoked `{name}`. A running daemon refuses it within a second; answers under way go on."
    );
    Ok(ExitCode::SUCCESS)
}

fn first(keys: KeysFile, acknowledge: bool) -> Result<ExitCode, FirstKeyError> {
    let first = FirstKey::new(keys);
    if acknowledge {
        let path = first.path();
        first.acknowledge()?;
        eprintln!("Removed {}; the key stays valid.", path.display());
        return Ok(ExitCode::SUCCESS);
    }
    let plaintext = first.read()?;
    let code = print(&format!("{plaintext}\n"), ExitCode::SUCCESS);
    eprintln!("Once you keep it elsewhere: rkllmd keys first --acknowledge");
    Ok(code)
}

fn models_of(key: &ApiKey) -> String {
    match &key.models {
        None => "all".to_owned(),
        Some(models) => models.join(", "),
    }
}

fn tenant_of(key: &ApiKey) -> String {
    key.tenant
        .as_ref()
        .map_or("-".to_owned(), KeyName::to_string)
}
