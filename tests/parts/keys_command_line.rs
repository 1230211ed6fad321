//! `rkllmd keys`: what it prints and where, what it leaves on the disk, and who may read that.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::root_support::is_root_for;
use rkllmd::auth::{Keyring, Role};

/// A folder with a file of keys, or none yet.
struct Keys(tempfile::TempDir);

impl Keys {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("keys.toml")
    }

    fn run(&self, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_rkllmd"))
            .arg("keys")
            .args(arguments.split_whitespace())
            .args(["--config", "/dev/null"])
            .env_clear()
            .env("RKLLMD_HTTP__KEYS_FILE", self.file())
            .output()
            .unwrap()
    }

    /// The one line on stdout of a command that succeeds.
    fn line(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 1, "{text:?}");
        text.trim_end().to_owned()
    }

    /// What a command that is refused says.
    fn refusal(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn keyring(&self) -> Keyring {
        Keyring::from_toml(&fs::read_to_string(self.file()).unwrap()).unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_key_is_added_listed_and_revoked() {
    let keys = Keys::new();
    let list = keys.line("list");
    assert!(list.starts_with("No key: "), "{list}");

    let laptop = keys.line("add laptop");
    let kiosk = keys.line("add kiosk --role admin --weight 4 --model tiny --model qwen");
    let keyring = keys.keyring();
    let found = keyring.find(laptop.as_bytes()).unwrap();
    assert_eq!((found.role, found.models.as_ref()), (Role::User, None));
    let found = keyring.find(kiosk.as_bytes()).unwrap();
    assert_eq!(found.role, Role::Admin);
    assert!(found.may_use(["tiny"]) && found.may_use(["qwen"]) && !found.may_use(["other"]));
    assert_eq!(mode(&keys.file()) & 0o137, 0, "not for others");

    let list = String::from_utf8(keys.run("list").stdout).unwrap();
    let rows: Vec<Vec<&str>> = list
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        rows[0],
        ["NAME", "ROLE", "WEIGHT", "TENANT", "CREATED", "MODELS"]
    );
    assert_eq!(rows[1][..3], ["laptop", "user", "1"]);
    assert_eq!(rows[1][5..], ["all"]);
    assert_eq!(rows[2][..3], ["kiosk", "admin", "4"]);
    assert_eq!(rows[2][5..], ["tiny,", "qwen"]);
    let json: serde_json::Value = serde_json::from_slice(&keys.run("list --json").stdout).unwrap();
    assert_eq!(json[1]["models"], serde_json::json!(["tiny", "qwen"]));
    assert_eq!(
        (&json[0]["weight"], &json[1]["weight"]),
        (&1.into(), &4.into())
    );
    let created = json[0]["created"].as_str().unwrap();
    created.parse::<jiff::Timestamp>().unwrap();
    for secret in [&laptop, &kiosk] {
        let stored = fs::read_to_string(keys.file()).unwrap();
        assert!(!stored.contains(secret.as_str()) && !list.contains(secret.as_str()));
    }

    assert!(keys.run("revoke laptop").status.success());
    assert!(keys.keyring().find(laptop.as_bytes()).is_none());
    assert!(keys.keyring().find(kiosk.as_bytes()).is_some());
    assert!(
        keys.refusal("revoke laptop")
            .contains("no key named `laptop`")
    );
    assert!(keys.run("revoke kiosk").status.success());
    assert!(keys.keyring().is_empty());
}

#[test]
fn what_is_refused_changes_nothing() {
    let keys = Keys::new();
    keys.line("add laptop");
    let before = fs::read(keys.file()).unwrap();
    assert!(keys.refusal("add laptop").contains("laptop` already"));
    for wrong in [
        "add",
        "add a/b",
        "add x --role root",
        "add x --first",
        "add x --weight 0",
        "add x --weight 101",
        "frist",
    ] {
        assert_eq!(keys.run(wrong).status.code(), Some(2), "{wrong}");
    }
    assert_eq!(fs::read(keys.file()).unwrap(), before);

    fs::write(keys.file(), "version = 1\nkesy = []\n").unwrap();
    let file = keys.file().display().to_string();
    for command in ["add other", "list", "revoke laptop"] {
        let refusal = keys.refusal(command);
        assert!(
            refusal.contains(&file) && refusal.contains("kesy"),
            "{refusal}"
        );
    }
    fs::remove_dir_all(keys.0.path()).unwrap();
    assert!(keys.refusal("add laptop").contains(&file));
}

#[test]
fn the_first_key_is_shown_until_it_is_acknowledged() {
    let keys = Keys::new();
    assert!(keys.refusal("first").contains("no first key"));
    assert!(keys.run("add --first").status.success());
    let plaintext = keys.0.path().join("first-key");
    assert_eq!(mode(&plaintext), 0o600);

    let first = keys.line("first");
    assert_eq!(keys.line("first"), first, "until it is acknowledged");
    let keyring = keys.keyring();
    let found = keyring.find(first.as_bytes()).unwrap();
    assert_eq!(
        (found.name.to_string(), found.role),
        ("first".into(), Role::Admin)
    );

    // An upgrade runs it again.
    let before = fs::read(keys.file()).unwrap();
    assert!(keys.run("add --first").status.success());
    assert_eq!(fs::read(keys.file()).unwrap(), before);

    assert!(keys.run("first --acknowledge").status.success());
    assert!(!plaintext.exists());
    assert!(keys.refusal("first").contains("no first key"));
    assert!(keys.refusal("first --acknowledge").contains("no first key"));
    assert!(
        keys.keyring().find(first.as_bytes()).is_some(),
        "it stays valid"
    );

    // Nor does it come back when all keys are revoked: an empty file is a file.
    assert!(keys.run("revoke first").status.success());
    assert!(keys.run("add --first").status.success());
    assert!(keys.keyring().is_empty());
}

#[test]
fn a_revoked_first_key_is_not_shown() {
    let keys = Keys::new();
    assert!(keys.run("add --first").status.success());
    assert!(keys.run("revoke first").status.success());
    assert!(keys.refusal("first").contains("revoked"));
    assert!(keys.run("first --acknowledge").status.success());
}

/// In an installation root writes and the daemon, whose group the folder has, reads.
#[test]
fn what_root_writes_the_folders_group_may_read_but_not_the_first_key() {
    if !is_root_for("giving files to another group") {
        return;
    }
    use std::os::unix::fs::{MetadataExt, chown};
    let keys = Keys::new();
    chown(keys.0.path(), None, Some(54321)).unwrap();
    assert!(keys.run("add --first").status.success());
    let file = fs::metadata(keys.file()).unwrap();
    assert_eq!(
        (file.uid(), file.gid(), mode(&keys.file())),
        (0, 54321, 0o640)
    );
    // A group that an operator gave it since stays.
    chown(keys.file(), None, Some(54322)).unwrap();
    keys.line("add other");
    let file = fs::metadata(keys.file()).unwrap();
    assert_eq!((file.gid(), mode(&keys.file())), (54322, 0o640));
    let plaintext = fs::metadata(keys.0.path().join("first-key")).unwrap();
    assert_eq!((plaintext.uid(), plaintext.gid()), (0, 0));
    assert_eq!(plaintext.permissions().mode() & 0o777, 0o600);
}

#[test]
fn keys_added_at_the_same_time_are_all_kept() {
    let keys = Keys::new();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let keys = &keys;
            scope.spawn(move || keys.line(&format!("add key-{n}")));
        }
    });
    assert_eq!(keys.keyring().keys().count(), 8);
}
