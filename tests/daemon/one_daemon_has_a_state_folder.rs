//! Two daemons never write to one state folder: the second does not start, says why and what to do,
//! and touches nothing of the first one's. The folder is free again when its daemon is gone, whatever
//! became of its workers; commands are not kept out.

use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};

use crate::daemon_support::{Setup, chat, children, eventually, keys, kill, stop};
use rustix::process::Signal;
use serde_json::json;

const IN_USE: i32 = 75;

/// A setup with this state folder.
fn with_state(folder: &std::path::Path) -> Setup {
    let folder = folder.to_str().expect("UTF-8");
    Setup::new()
        .environment("RKLLMD_LIBRARY__STATE_DIR", folder)
        .scenario("m", "tokens = [\"fine\"]\n")
}

fn refused(setup: &Setup) -> Output {
    let output = setup.command().output().expect("it ends");
    assert_eq!(output.status.code(), Some(IN_USE), "{output:?}");
    output
}

#[test]
fn the_second_does_not_start_and_takes_nothing_from_the_first() {
    let state = tempfile::tempdir().expect("a folder");
    let folder = state.path().join("deep/state");
    let socket = state.path().join("rpc.sock");
    let with_socket = |setup: Setup| {
        setup.settings(&format!(
            "rpc.unix-socket = {:?}",
            socket.display().to_string()
        ))
    };
    let first = with_socket(with_state(&folder)).start();
    let link = state.path().join("link");
    std::os::unix::fs::symlink(&folder, &link).expect("a link");
    for folder in [&folder, &link] {
        let output = refused(&with_socket(with_state(folder)));
        let log = String::from_utf8_lossy(&output.stderr);
        let names = [
            folder.display().to_string(),
            format!("process {}", first.pid()),
            "library.state-dir".to_owned(),
        ];
        for name in names {
            assert!(log.contains(&name), "{name}: {log}");
        }
        assert!(!log.contains("listening"), "{log}");
    }
    UnixStream::connect(&socket).expect("the first one's socket");
    let answer = first.post("/v1/chat/completions", &chat("m", "x", json!({})));
    assert_eq!(answer.content(), "fine");
    // One with a folder of its own starts beside it.
    with_state(&state.path().join("other")).start();
    first.signal(Signal::TERM);
    assert!(first.wait().success());
    with_state(&folder).start();
}

#[test]
fn a_worker_that_outlives_its_daemon_does_not_keep_the_next_one_out() {
    let state = tempfile::tempdir().expect("a folder");
    let folder = state.path().join("state");
    let setup = with_state(&folder).settings("models.preload = [\"m\"]");
    let mut first = setup
        .command()
        .stderr(Stdio::null())
        .spawn()
        .expect("the daemon starts");
    let worker = eventually("a worker", || children(first.id()).first().copied());
    let descriptors = crate::daemon_support::descriptors(worker);
    let lock = folder.join("lock").display().to_string();
    assert!(
        !descriptors.iter().any(|(_, path)| *path == lock),
        "{descriptors:?}"
    );
    // It takes no note of its daemon's end by itself.
    let _stopped = stop(worker);
    kill(first.id());
    first.wait().expect("it ended");
    let next = with_state(&folder).start();
    assert_eq!(next.get("/health").status, 200);
}

#[test]
fn commands_go_on_while_it_runs() {
    let setup = Setup::new();
    let state = setup.folder().to_owned();
    // The keys lie in the locked folder itself.
    let folder = state.to_str().expect("UTF-8").to_owned();
    let daemon = setup
        .environment("RKLLMD_LIBRARY__STATE_DIR", &folder)
        .start();
    keys(daemon.folder(), "add one");
    daemon.log.wait_for("keys read");
    keys(daemon.folder(), "list");
    keys(daemon.folder(), "revoke one");
    for arguments in [&["models"][..], &["check-config"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
            .args(arguments)
            .args(["--config", "/dev/null"])
            .env("RKLLMD_LIBRARY__STATE_DIR", &folder)
            .env("RKLLMD_MODELS__DIR", daemon.folder().join("models"))
            .output()
            .expect("it ends");
        assert!(output.status.success(), "{output:?}");
    }
}
