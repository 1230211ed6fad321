//! Beyond loopback there is no daemon without a key, a file of keys that cannot be read opens nothing, and what is
//! added or revoked counts at once.

use std::fs;

use crate::daemon_support::{eventually, keys};
use crate::doors::{doors, setup};
use rustix::process::{Pid, Resource, Rlimit};

#[test]
fn beyond_loopback_the_daemon_does_not_start_without_a_key() {
    let setup = setup().listen(&["127.0.0.1:0", "[::]:0"]);
    let refused = |text: &str| {
        let output = setup.command().output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains(text), "{log}");
        assert!(!log.contains("listening address"), "{log}");
    };
    refused("refusing to listen on [::]:");
    refused("rkllmd keys add NAME");
    refused("auth = \"none\"");
    keys(setup.folder(), "add one");
    keys(setup.folder(), "revoke one");
    refused("without any key");
    keys(setup.folder(), "add one");
    let daemon = setup.start();
    assert_eq!(daemon.get("/v1/models").status, 401);
}

#[test]
fn a_broken_keys_file_is_no_open_door() {
    let setup = setup();
    fs::write(setup.folder().join("keys.toml"), "version = 1\nkye = []\n").unwrap();
    let output = setup.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("keys.toml") && log.contains("kye"), "{log}");
}

#[test]
fn keys_are_added_and_revoked_without_a_restart() {
    let daemon = setup().start();
    let door = &doors(&daemon, 1)[0];
    let status = |key: Option<&str>| door.get("/v1/models", key).status;
    assert_eq!(status(None), 200);

    let folder = daemon.folder().to_owned();
    let one = keys(&folder, "add one");
    eventually("the lock", || (status(None) == 401).then_some(()));
    assert_eq!(status(Some(&one)), 200);
    let other = keys(&folder, "add other");
    eventually("the other key", || {
        (status(Some(&other)) == 200).then_some(())
    });
    keys(&folder, "revoke one");
    eventually("the end of the first", || {
        (status(Some(&one)) == 401).then_some(())
    });
    assert_eq!(status(Some(&other)), 200);

    // A broken file changes nothing, and the last key's end opens nothing.
    let file = folder.join("keys.toml");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, "nonsense").unwrap();
    daemon
        .log
        .wait_for("the keys that were read before stay valid");
    assert_eq!((status(Some(&other)), status(None)), (200, 401));
    fs::write(&file, whole).unwrap();
    keys(&folder, "revoke other");
    eventually("the end of the other", || {
        (status(Some(&other)) == 401).then_some(())
    });
    assert_eq!(status(None), 401);
    fs::remove_file(&file).unwrap();
    daemon.log.wait_for("the file of keys is gone");
    assert_eq!(status(None), 401);
}

/// A daemon without a free descriptor cannot read the file; it must not forget to.
#[test]
fn a_revocation_that_could_not_be_read_at_first_is_read_later() {
    let setup = setup();
    let one = keys(setup.folder(), "add one");
    let daemon = setup.start();
    let door = &doors(&daemon, 1)[0];
    assert_eq!(door.get("/v1/models", Some(&one)).status, 200);
    let pid = Pid::from_raw(daemon.pid().cast_signed());
    let usual = rustix::process::getrlimit(Resource::Nofile);
    let none_free = Rlimit {
        current: Some(3),
        ..usual
    };
    rustix::process::prlimit(pid, Resource::Nofile, none_free).unwrap();
    keys(daemon.folder(), "revoke one");
    daemon.log.wait_for("keys.toml: cannot be read");
    rustix::process::prlimit(pid, Resource::Nofile, usual).unwrap();
    eventually("the end of the key", || {
        (door.get("/v1/models", Some(&one)).status == 401).then_some(())
    });
    let lines = daemon.log.lines();
    let told = lines
        .iter()
        .filter(|line| line.contains("keys.toml: cannot be read"));
    assert_eq!(told.count(), 1);
}

#[test]
fn a_key_is_named_in_the_log_and_never_shown() {
    let setup = setup();
    let key = keys(setup.folder(), "add laptop");
    let daemon = setup.start();
    let door = &doors(&daemon, 1)[0];
    assert_eq!(door.get("/v1/models", Some(&key)).status, 200);
    assert_eq!(door.get("/v1/models", Some("rkllmd-wrong")).status, 401);
    let line = daemon.log.wait_for("status=200");
    assert!(line.contains("laptop"), "{line}");
    let log = daemon.log.lines().join("\n");
    assert!(
        !log.contains(&key) && !log.contains("rkllmd-wrong"),
        "{log}"
    );
}
