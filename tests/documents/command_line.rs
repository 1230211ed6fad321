//! The commands that need no daemon: what they print, where, and with which exit code.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rkllmd::settings::known_keys;

const SHIPPED_CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/rkllmd.toml");

fn rkllmd(arguments: &[&str]) -> Output {
    with_environment(arguments, &[])
}

/// Runs to the end in an environment that holds nothing but `variables`.
fn with_environment(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn version_names_the_program_and_its_version() {
    let output = rkllmd(&["--version"]);
    assert_eq!(
        stdout(&output),
        format!("rkllmd {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_wrong_command_line_is_2_and_says_what_is_right() {
    let output = rkllmd(&["serve", "--modles", "/m"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--models"), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
}

#[test]
fn the_shipped_config_is_ok() {
    let output = rkllmd(&["check-config", "--config", SHIPPED_CONFIG]);
    assert_eq!(stderr(&output), "");
    assert_eq!(stdout(&output), "OK\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_bad_config_is_78_for_every_command_that_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(
        folder.path(),
        "bad.toml",
        "[models]\nmax-loadde = 1\n[queue]\ncapacity = 0\n",
    );
    let expected = format!(
        "error: {config}:2: unknown key `models.max-loadde`; did you mean `models.max-loaded`?\n\
         error: {config}:4: `queue.capacity`: 0 is not between 1 and 65536\n"
    );
    for command in ["check-config", "serve", "models"] {
        let output = rkllmd(&[command, "--config", &config]);
        assert_eq!(output.status.code(), Some(78), "{command}");
        assert_eq!(stderr(&output), expected, "{command}");
        assert_eq!(stdout(&output), "", "{command}");
    }
}

#[test]
fn the_environment_and_flags_are_checked_like_the_file() {
    let output = with_environment(
        &["check-config", "--config", SHIPPED_CONFIG],
        &[("RKLLMD_HTTP__LISTEN", "board.lan:8080")],
    );
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).starts_with("error: environment variable RKLLMD_HTTP__LISTEN: "),
        "{}",
        stderr(&output)
    );

    let output = rkllmd(&["serve", "--config", SHIPPED_CONFIG, "--listen", "nowhere"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).starts_with("error: flag --listen: `http.listen`: `nowhere` "),
        "{}",
        stderr(&output)
    );
}

#[test]
fn an_address_is_understood_or_shown_with_its_form() {
    let folder = tempfile::tempdir().unwrap();
    let check = |toml: &str| {
        let config = write(folder.path(), "listen.toml", toml);
        rkllmd(&["check-config", "--config", &config])
    };
    for listen in [
        "['localhost:9']",
        "[':9']",
        "['9']",
        "[9]",
        "9",
        "'[::1]:9'",
        "'http://127.0.0.1:9'",
        "['127.0.0.1']",
    ] {
        let output = check(&format!("http.listen = {listen}"));
        assert_eq!(
            output.status.code(),
            Some(0),
            "{listen}: {}",
            stderr(&output)
        );
    }
    for (listen, shown) in [
        ("['board.lan:9']", "`board.lan:9`"),
        ("'https://127.0.0.1:9'", "`https://127.0.0.1:9`"),
        ("['127.0.0.1:99999']", "`127.0.0.1:99999`"),
        ("['']", "``"),
        ("-1", "`-1`"),
    ] {
        let output = check(&format!("http.listen = {listen}"));
        assert_eq!(output.status.code(), Some(78), "{listen}");
        let said = stderr(&output);
        assert!(
            said.contains(shown) && said.contains("ADDRESS:PORT"),
            "{said}"
        );
    }
    let twice = check("http.listen = ['localhost:9', '127.0.0.1:9']");
    assert!(
        stderr(&twice).contains("names 127.0.0.1:9 twice"),
        "{}",
        stderr(&twice)
    );
}

#[test]
fn nothing_is_suggested_that_is_not_near() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(
        folder.path(),
        "c.toml",
        "[http]\nport = 8080\nhost = 'x'\ntls = true\n",
    );
    let output = rkllmd(&["check-config", "--config", &config]);
    let said = stderr(&output);
    assert_eq!(said.matches("unknown key").count(), 3, "{said}");
    assert!(!said.contains("did you mean"), "{said}");
}

#[test]
fn a_config_that_needs_a_key_says_so_beforehand() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.toml");
    let check = |listen: &str, auth: &str| {
        with_environment(
            &["check-config", "--config", SHIPPED_CONFIG],
            &[
                ("RKLLMD_HTTP__KEYS_FILE", keys.to_str().unwrap()),
                ("RKLLMD_HTTP__LISTEN", listen),
                ("RKLLMD_HTTP__AUTH", auth),
            ],
        )
    };
    let output = check("127.0.0.1:1,192.168.0.1:2", "keys");
    assert_eq!(output.status.code(), Some(0));
    let note = stderr(&output);
    assert!(
        note.starts_with(
            "note: `rkllmd serve` would end at once: refusing to listen on 192.168.0.1:2"
        ),
        "{note}"
    );
    assert_eq!(stderr(&check("127.0.0.1:1", "keys")), "");
    assert_eq!(stderr(&check("0.0.0.0:1", "none")), "");
}

#[test]
fn serves_help_lists_every_variable_with_its_default() {
    let output = rkllmd(&["serve", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = stdout(&output);
    for key in known_keys() {
        assert!(
            help.lines()
                .any(|line| line.split_whitespace().next() == Some(key.variable().as_str())),
            "{} is missing",
            key.variable()
        );
    }
    assert!(
        help.lines().any(|line| {
            line.split_whitespace()
                .eq(["RKLLMD_HTTP__LISTEN", "127.0.0.1:8080"])
        }),
        "{help}"
    );
}

#[test]
fn the_worker_is_not_offered() {
    let help = stdout(&rkllmd(&["--help"]));
    assert!(help.contains("check-config"));
    assert!(!help.contains("worker"), "{help}");
}

#[test]
fn models_tells_what_is_wrong_with_a_file() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "broken.gguf", "this is no GGUF file");
    let dir = folder.path().to_str().unwrap();

    let output = rkllmd(&["models", "--config", SHIPPED_CONFIG, "--models", dir]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("broken.gguf"),
        "{}",
        stdout(&output)
    );

    let output = rkllmd(&[
        "models",
        "--config",
        SHIPPED_CONFIG,
        "--models",
        dir,
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let listing: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(listing.to_string().contains("broken.gguf"), "{listing}");
}

#[test]
fn models_needs_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("absent");
    let output = rkllmd(&[
        "models",
        "--config",
        SHIPPED_CONFIG,
        "--models",
        dir.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains(dir.to_str().unwrap()),
        "{}",
        stderr(&output)
    );
}
