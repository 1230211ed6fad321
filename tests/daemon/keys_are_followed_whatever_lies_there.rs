//! A running daemon follows its file of keys through anything that comes to lie at its path: it says
//! so once, in the log and in its status, serves on with the keys it knows, ends when it is asked to,
//! and takes a revocation once the file is mended.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::daemon_support::{Daemon, PATIENCE, Setup, eventually, keys};
use rustix::fs::{CWD, FileType, Mode};
use rustix::process::Signal;

fn status(daemon: &Daemon, key: &str) -> u16 {
    let mut stream = TcpStream::connect(daemon.address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(
        stream,
        "GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         authorization: Bearer {key}\r\n\r\n"
    )
    .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).expect("a status line");
    status.parse().expect("a number")
}

fn revoked(daemon: &Daemon, key: &str) {
    eventually("the end of the key", || {
        (status(daemon, key) == 401).then_some(())
    });
}

fn fifo(path: &Path) {
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0).expect("a named pipe");
}

/// Puts a key into the file after it lay elsewhere, as `rkllmd keys` does: whole, by a rename.
fn put_back(folder: &Path, kept: &Path) {
    let path = folder.join("keys.toml");
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => fs::remove_dir(&path).expect("removed"),
        Ok(_) => fs::remove_file(&path).expect("removed"),
        Err(_) => {}
    }
    fs::rename(kept, path).expect("put back");
}

#[test]
fn a_revocation_counts_after_whatever_lay_there() {
    type Lay<'a> = (&'a str, &'a dyn Fn(&Path));
    let lay: [Lay<'_>; 6] = [
        ("it is a named pipe", &fifo),
        ("it is a folder", &|path| {
            fs::create_dir(path).expect("a folder");
        }),
        ("Too many levels", &|path| {
            std::os::unix::fs::symlink(path, path).expect("a link to itself");
        }),
        ("it is longer than", &|path| {
            let file = fs::File::create(path).expect("a file");
            file.set_len(1 << 40).expect("a hole");
        }),
        ("it is no UTF-8 text", &|path| {
            fs::write(path, [0xff; 4096]).expect("written");
        }),
        ("it is a device", &|path| {
            std::os::unix::fs::symlink("/dev/zero", path).expect("a link");
        }),
    ];
    let setup = Setup::new();
    let names = ["a", "b", "c", "d", "e", "f"];
    let shown = names.map(|name| keys(setup.folder(), &format!("add {name}")));
    let last = keys(setup.folder(), "add last");
    let daemon = setup.start();
    let (folder, path) = (
        daemon.folder().to_owned(),
        daemon.folder().join("keys.toml"),
    );
    for ((name, shown), (trouble, lay)) in names.iter().zip(&shown).zip(lay) {
        assert_eq!(status(&daemon, shown), 200, "{trouble}");
        let kept = folder.join("kept");
        fs::rename(&path, &kept).expect("taken away");
        lay(&path);
        let line = daemon.log.wait_for(trouble);
        let served = if line.contains("stay valid") {
            200
        } else {
            401
        };
        assert_eq!(status(&daemon, shown), served, "{line}");
        put_back(&folder, &kept);
        keys(&folder, &format!("revoke {name}"));
        revoked(&daemon, shown);
        eventually("the other key", || {
            (status(&daemon, &last) == 200).then_some(())
        });
    }
}

#[test]
fn it_is_said_once_in_the_log_and_in_the_status() {
    let manager = tempfile::tempdir().expect("a folder");
    let socket = UnixDatagram::bind(manager.path().join("notify")).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let wait_for = |what: &str, is_it: &dyn Fn(&str) -> bool| {
        let until = Instant::now() + PATIENCE;
        let mut buffer = [0; 4096];
        loop {
            assert!(Instant::now() < until, "no status: {what}");
            let length = socket.recv(&mut buffer).expect("a message in time");
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.starts_with("STATUS=") && is_it(&message) {
                return message;
            }
        }
    };
    let setup = Setup::new().environment(
        "NOTIFY_SOCKET",
        manager.path().join("notify").to_str().expect("UTF-8"),
    );
    let key = keys(setup.folder(), "add one");
    let daemon = setup.start();
    let path = daemon.folder().join("keys.toml");
    let kept = daemon.folder().join("kept");
    // By two renames, so that the file is never gone.
    fs::copy(&path, &kept).expect("kept");
    fifo(&daemon.folder().join("pipe"));
    fs::rename(daemon.folder().join("pipe"), &path).expect("in its place");
    let told = wait_for("the trouble", &|message| message.contains("a named pipe"));
    assert!(told.contains("keys.toml"), "{told}");
    assert_eq!(status(&daemon, &key), 200);
    fs::rename(&kept, &path).expect("mended");
    wait_for("its end", &|message| !message.contains("keys.toml"));
    let lines = daemon.log.lines();
    let told = lines.iter().filter(|line| line.contains("a named pipe"));
    assert_eq!(told.count(), 1, "{lines:?}");
    keys(daemon.folder(), "revoke one");
    revoked(&daemon, &key);
}

#[test]
fn a_pipe_in_its_place_holds_up_neither_start_nor_end_nor_the_command() {
    let setup = Setup::new();
    fifo(&setup.folder().join("keys.toml"));
    let refused = setup.command().output().expect("it ends");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let log = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        log.contains("keys.toml") && log.contains("a named pipe"),
        "{log}"
    );
    for arguments in [
        &["list"][..],
        &["add", "x"],
        &["add", "--first"],
        &["first"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
            .arg("keys")
            .args(arguments)
            .args(["--config", "/dev/null"])
            .env("RKLLMD_HTTP__KEYS_FILE", setup.folder().join("keys.toml"))
            .output()
            .expect("it ends");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    }
    fs::remove_file(setup.folder().join("keys.toml")).expect("removed");
    let daemon = setup.start();
    fifo(&daemon.folder().join("keys.toml"));
    daemon.log.wait_for("a named pipe");
    // There was no file before: one that cannot be read locks.
    assert_eq!(daemon.get("/v1/models").status, 401);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
}
