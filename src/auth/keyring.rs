//! All keys, as one value: looked up in constant time, changed as a copy, written as a whole.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::{ApiKey, KeyDigest, KeyName, Role};
use crate::generation::Weight;

/// The file's format.
const VERSION: u32 = 1;

/// The longest description of an error of syntax.
const SYNTAX_CHARACTERS: usize = 500;

/// Tells the reader of the file where it comes from.
const HEADING: &str = "\
# API keys of rkllmd, as SHA-256 of each. Changed by `rkllmd keys`; a running daemon follows.
";

/// A set of keys with different names.
#[derive(Clone, Default)]
pub struct Keyring {
    keys: Vec<Arc<ApiKey>>,
}

/// Why a file of keys or a change to it is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error("{0}")]
    Syntax(String),
    #[error("its format is version {0}, and this program knows version {VERSION}")]
    Version(u32),
    #[error("the key `{name}`: {reason}")]
    BadKey { name: String, reason: String },
    #[error("there is a key named `{0}` already; revoke it first, or choose another name")]
    NameTaken(String),
    #[error("there is no key named `{0}`; `rkllmd keys list` shows what there is")]
    NoSuchKey(String),
    #[error("`{0}` is the last key of an admin")]
    LastAdmin(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "key")]
    keys: Vec<WrittenKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    name: String,
    sha256: String,
    role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    models: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "is_usual")]
    weight: Weight,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    created: String,
}

fn is_usual(weight: &Weight) -> bool {
    *weight == Weight::default()
}

impl Keyring {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// In the order in which they were added.
    pub fn keys(&self) -> impl Iterator<Item = &ApiKey> {
        self.keys.iter().map(|key| &**key)
    }

    /// The key whose plaintext a client showed. Every key is compared, whichever matches, so the time
    /// taken tells nothing about any key.
    pub fn find(&self, shown: &[u8]) -> Option<Arc<ApiKey>> {
        let shown = KeyDigest::of(shown);
        let mut found = None;
        for key in &self.keys {
            if bool::from(key.digest.ct_eq(&shown)) {
                found = Some(key);
            }
        }
        found.cloned()
    }

    /// The present state of a key that was found before. `None`: it was revoked.
    pub fn find_again(&self, key: &ApiKey) -> Option<&ApiKey> {
        self.keys().find(|now| now.digest.ct_eq(&key.digest).into())
    }

    /// Whether requests of a client of this name are let in: it is a key's.
    pub fn has_client(&self, name: &str) -> bool {
        self.keys().any(|key| key.client_name() == name)
    }

    /// # Errors
    ///
    /// The name is taken, or the list of models is empty.
    pub fn add(&mut self, key: ApiKey) -> Result<(), KeyringError> {
        if self.keys().any(|other| other.name == key.name) {
            return Err(KeyringError::NameTaken(key.name.to_string()));
        }
        if key.models.as_ref().is_some_and(Vec::is_empty) {
            return Err(KeyringError::BadKey {
                name: key.name.to_string(),
                reason: "`models` is empty; leave it out to allow all models".to_owned(),
            });
        }
        self.keys.push(Arc::new(key));
        Ok(())
    }

    /// # Errors
    ///
    /// There is no key of that name.
    pub fn revoke(&mut self, name: &KeyName) -> Result<(), KeyringError> {
        let before = self.keys.len();
        self.keys.retain(|key| key.name != *name);
        if self.keys.len() == before {
            return Err(KeyringError::NoSuchKey(name.to_string()));
        }
        Ok(())
    }

    /// As `revoke`, if there is a key of an admin without it, or it is none.
    ///
    /// # Errors
    ///
    /// There is no key of that name, or it is the last of an admin.
    pub fn revoke_but_the_last_admin(&mut self, name: &KeyName) -> Result<(), KeyringError> {
        let admins = self.keys().filter(|key| key.role == Role::Admin);
        let admins: Vec<&KeyName> = admins.map(|key| &key.name).collect();
        match &admins[..] {
            [only] if *only == name => Err(KeyringError::LastAdmin(name.to_string())),
            _ => self.revoke(name),
        }
    }

    /// Reads what [`Keyring::to_toml`] or a person wrote.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong; then nothing of the text counts.
    pub fn from_toml(text: &str) -> Result<Self, KeyringError> {
        let syntax = |error: toml::de::Error| {
            // It quotes a line of the text, and the text may be one line.
            let error = error.to_string();
            KeyringError::Syntax(error.chars().take(SYNTAX_CHARACTERS).collect())
        };
        let written: Written = toml::from_str(text).map_err(syntax)?;
        if written.version != VERSION {
            return Err(KeyringError::Version(written.version));
        }
        let mut keyring = Self::default();
        for key in written.keys {
            let bad = |reason: String| KeyringError::BadKey {
                name: key.name.clone(),
                reason,
            };
            keyring.add(ApiKey {
                name: key.name.parse().map_err(bad)?,
                digest: KeyDigest::from_hexadecimal(&key.sha256)
                    .ok_or_else(|| bad("`sha256` must be 64 hexadecimal digits".to_owned()))?,
                role: key.role,
                models: key.models.clone(),
                weight: key.weight,
                tenant: key
                    .tenant
                    .as_deref()
                    .map(str::parse)
                    .transpose()
                    .map_err(bad)?,
                created: key.created.clone(),
            })?;
        }
        Ok(keyring)
    }

    /// # Errors
    ///
    /// The serialiser's; none is known.
    pub fn to_toml(&self) -> Result<String, KeyringError> {
        let written = Written {
            version: VERSION,
            keys: self
                .keys()
                .map(|key| WrittenKey {
                    name: key.name.to_string(),
                    sha256: key.digest.to_string(),
                    role: key.role,
                    models: key.models.clone(),
                    weight: key.weight,
                    tenant: key.tenant.as_ref().map(ToString::to_string),
                    created: key.created.clone(),
                })
                .collect(),
        };
        let text =
            toml::to_string(&written).map_err(|error| KeyringError::Syntax(error.to_string()))?;
        Ok(format!("{HEADING}{text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Secret;

    fn key(name: &str, secret: &Secret) -> ApiKey {
        ApiKey {
            name: name.parse().unwrap(),
            digest: secret.digest(),
            role: Role::User,
            models: Some(vec!["a".to_owned(), "b".to_owned()]),
            weight: Weight::try_from(3).unwrap(),
            tenant: Some("upstairs".parse().unwrap()),
            created: "2026-01-02T03:04:05Z".to_owned(),
        }
    }

    #[test]
    fn the_last_key_of_an_admin_is_not_revoked_with_care() {
        let mut keyring = Keyring::default();
        for (name, role) in [("a", Role::Admin), ("b", Role::Admin), ("c", Role::User)] {
            let key = ApiKey {
                role,
                ..key(name, &Secret::generate().unwrap())
            };
            keyring.add(key).unwrap();
        }
        let mut revoke = |name: &str| keyring.revoke_but_the_last_admin(&name.parse().unwrap());
        assert_eq!(revoke("a"), Ok(()));
        assert_eq!(revoke("b"), Err(KeyringError::LastAdmin("b".to_owned())));
        assert_eq!(revoke("a"), Err(KeyringError::NoSuchKey("a".to_owned())));
        assert_eq!(revoke("c"), Ok(()));
        assert_eq!(revoke("b"), Err(KeyringError::LastAdmin("b".to_owned())));
    }

    #[test]
    fn a_key_is_found_by_its_plaintext_and_by_nothing_else() {
        let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        let mut keyring = Keyring::default();
        keyring.add(key("one", &one)).unwrap();
        keyring.add(key("other", &other)).unwrap();
        let name = |shown: &[u8]| keyring.find(shown).map(|key| key.name.to_string());
        assert_eq!(name(one.plaintext().as_bytes()).as_deref(), Some("one"));
        assert_eq!(name(other.plaintext().as_bytes()).as_deref(), Some("other"));
        let stored = one.digest().to_string();
        let short = &one.plaintext()[..one.plaintext().len() - 1];
        for wrong in ["", short, &stored, &one.plaintext().to_uppercase()] {
            assert_eq!(name(wrong.as_bytes()), None, "{wrong}");
        }
        keyring.revoke(&"one".parse().unwrap()).unwrap();
        assert!(keyring.find(one.plaintext().as_bytes()).is_none());
        assert_eq!(
            keyring.revoke(&"one".parse().unwrap()),
            Err(KeyringError::NoSuchKey("one".to_owned()))
        );
    }

    #[test]
    fn what_is_written_is_read_again_and_holds_no_plaintext() {
        let secret = Secret::generate().unwrap();
        let mut keyring = Keyring::default();
        keyring.add(key("laptop", &secret)).unwrap();
        assert_eq!(
            keyring.add(key("laptop", &secret)),
            Err(KeyringError::NameTaken("laptop".to_owned()))
        );
        let text = keyring.to_toml().unwrap();
        assert!(!text.contains(secret.plaintext()), "{text}");
        let read = Keyring::from_toml(&text).unwrap();
        assert_eq!(read.to_toml().unwrap(), text);
        let found = read.find(secret.plaintext().as_bytes()).unwrap();
        assert_eq!((found.role, found.weight.get()), (Role::User, 3));
        assert_eq!(found.tenant, Some("upstairs".parse().unwrap()));
        assert!(found.may_use(["b"]) && !found.may_use(["c"]));
    }

    #[test]
    fn a_file_that_is_wrong_anywhere_counts_for_nothing() {
        let whole = |key: &str| format!("version = 1\n[[key]]\n{key}");
        let digest = "0".repeat(64);
        let right = format!("name = 'a'\nsha256 = '{digest}'\nrole = 'user'\ncreated = ''\n");
        let read = Keyring::from_toml(&whole(&right)).unwrap();
        assert_eq!(read.keys().next().unwrap().weight, Weight::default());
        for wrong in [
            String::new(),
            "version = 2".to_owned(),
            "version = 1\nkeys = []".to_owned(),
            whole(&right.replace("user", "root")),
            whole(&right.replace('0', "x")),
            whole(&right.replace("'a'", "'a b'")),
            whole(&format!("{right}model = ['a']")),
            whole(&format!("{right}models = []")),
            whole(&format!("{right}weight = 0")),
            whole(&format!("{right}tenant = 'two words'")),
            whole(&format!("{right}weight = 101")),
            whole(&format!("{right}[[key]]\n{right}")),
        ] {
            assert!(Keyring::from_toml(&wrong).is_err(), "{wrong}");
        }
    }
}
