//! A change of the keys is on the disk when the command ends, and a power cut or a kill at any moment
//! leaves the old keys or the new ones. Seen with strace, which also does the killing.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rkllmd::auth::Keyring;

const WATCHED: &str = "trace=write,fchmod,fsync,fdatasync,/^rename,/^unlink";

/// Runs `rkllmd keys ARGUMENTS` under strace with one more option for it.
fn keys(folder: &Path, option: &[&str], arguments: &str) -> Output {
    Command::new("strace")
        .args(["-f", "-y", "-e", WATCHED, "-o"])
        .arg(folder.join("trace"))
        .args(option)
        .arg(env!("CARGO_BIN_EXE_rkllmd"))
        .arg("keys")
        .args(arguments.split_whitespace())
        .args(["--config", "/dev/null"])
        .env("RKLLMD_HTTP__KEYS_FILE", folder.join("state/keys.toml"))
        .output()
        .expect("strace is installed: scripts/install-test-tools")
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("state")).unwrap();
    folder
}

/// What the command did to the files of the state folder, in order, as `CALL NAME`; writes of one
/// file in a row count once.
fn steps(folder: &Path) -> Vec<String> {
    let state = fs::canonicalize(folder.join("state")).unwrap();
    let state = state.to_str().unwrap();
    let mut steps: Vec<String> = Vec::new();
    for line in fs::read_to_string(folder.join("trace")).unwrap().lines() {
        let Some((call, rest)) = line
            .split_once(' ')
            .and_then(|(_, call)| call.trim_start().split_once('('))
        else {
            continue;
        };
        // What is printed about a file is not written to it.
        let printed =
            call == "write" && rest.split('"').next().is_some_and(|to| !to.contains(state));
        if printed || call == "fchmod" || !rest.contains(state) || rest.contains("ENOENT") {
            continue;
        }
        let after = &rest[rest.rfind(state).unwrap() + state.len()..];
        let name = after
            .trim_start_matches('/')
            .split(['>', '"'])
            .next()
            .unwrap_or_default();
        // Some architectures have only the `at` forms.
        let call = call.trim_end_matches('2').trim_end_matches("at");
        let step = format!("{call} {}", if name.is_empty() { "." } else { name });
        if steps.last() != Some(&step) {
            steps.push(step);
        }
    }
    steps
}

const REPLACED: [&str; 4] = [
    "write .keys.toml.new",
    "fsync .keys.toml.new",
    "rename keys.toml",
    "fsync .",
];

#[test]
fn each_change_is_written_synced_renamed_and_its_folder_synced() {
    let folder = folder();
    for command in ["add one", "revoke one"] {
        let output = keys(folder.path(), &[], command);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(steps(folder.path()), REPLACED, "{command}");
    }
}

#[test]
fn the_first_keys_plaintext_is_on_the_disk_before_the_key_counts() {
    let folder = folder();
    let output = keys(folder.path(), &[], "add --first");
    assert!(output.status.success(), "{output:?}");
    let plaintext = [
        "write .first-key.new",
        "fsync .first-key.new",
        "rename first-key",
        "fsync .",
    ];
    assert_eq!(steps(folder.path()), [plaintext, REPLACED].concat());

    let output = keys(folder.path(), &[], "first --acknowledge");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(steps(folder.path()), ["unlink first-key", "fsync ."]);
}

fn names(file: &Path) -> Vec<String> {
    let keyring = Keyring::from_toml(&fs::read_to_string(file).unwrap()).unwrap();
    keyring.keys().map(|key| key.name.to_string()).collect()
}

#[test]
fn a_kill_at_any_step_leaves_the_old_keys_or_the_new_ones() {
    // The call before which strace kills, and whether the new key is there afterwards.
    for (step, is_new) in [
        ("fchmod:signal=KILL", false),
        ("write:signal=KILL", false),
        ("fsync:signal=KILL:when=1", false),
        ("/^rename:signal=KILL", false),
        ("fsync:signal=KILL:when=2", true),
    ] {
        let folder = folder();
        let file = folder.path().join("state/keys.toml");
        let output = keys(folder.path(), &[], "add old");
        assert!(output.status.success(), "{output:?}");
        let inject = format!("inject={step}");
        let output = keys(folder.path(), &["-e", &inject], "add new");
        assert!(!output.status.success(), "{step}: not killed: {output:?}");
        let expected: &[&str] = if is_new { &["old", "new"] } else { &["old"] };
        assert_eq!(names(&file), expected, "{step}");

        // Whatever was left does not stand in the way of the next change, and does not stay.
        let output = keys(folder.path(), &[], "add next");
        assert!(output.status.success(), "{step}: {output:?}");
        assert_eq!(names(&file), [expected, &["next"]].concat(), "{step}");
        let left: Vec<_> = fs::read_dir(folder.path().join("state"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["keys.toml"], "{step}");
    }
}
