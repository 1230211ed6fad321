//! What `rkllmd doctor` says of the service itself, on this machine: one fault is told by its own check, and what it
//! says to type mends it.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::board_support::check;
use crate::daemon_support::keys;
use crate::doctor_command::statuses;
use crate::root_support::is_root_for;

/// A configuration with a folder for everything that it names.
struct Service(tempfile::TempDir);

impl Service {
    /// With a key, whose file is for its owner alone.
    fn new() -> Self {
        let service = Self(tempfile::tempdir().unwrap());
        fs::create_dir(service.path("models")).unwrap();
        fs::create_dir(service.path("state")).unwrap();
        keys(service.0.path(), "add one");
        service.configure("");
        service
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `further` are lines of the section [http].
    fn configure(&self, further: &str) {
        let shown = |name: &str| self.path(name).display().to_string();
        let text = format!(
            "[library]\nstate-dir = {:?}\n[models]\ndir = {:?}\n[runtime]\ncpu-library = {:?}\n\
             [http]\nkeys-file = {:?}\n{further}\n",
            shown("state"),
            shown("models"),
            shown("librkllmrt.so"),
            shown("keys.toml"),
        );
        fs::write(self.path("rkllmd.toml"), text).unwrap();
    }

    fn examine(&self) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
            .args(["doctor", "--json", "--config"])
            .arg(self.path("rkllmd.toml"))
            .env_clear()
            .output()
            .expect("the program starts");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        serde_json::from_slice(&output.stdout).expect("a report")
    }

    /// As a shell does it, for this configuration.
    fn carry_out(&self, remedy: &str) {
        let program = env!("CARGO_BIN_EXE_rkllmd");
        let config = self.path("rkllmd.toml");
        let typed = remedy.replace(
            "rkllmd keys add NAME",
            &format!("{program} keys add two --config {}", config.display()),
        );
        let shell = Command::new("sh").args(["-c", &typed]).output().unwrap();
        assert!(shell.status.success(), "{typed}: {shell:?}");
    }
}

#[test]
fn one_fault_of_the_service_is_told_by_its_own_check_and_its_remedy_mends_it() {
    type Change = fn(&Service);
    let nothing: Change = |_| ();
    // What was before, what goes wrong, and what the check says then and after its remedy.
    let table: &[(&str, Change, Change, [&str; 2])] = &[
        (
            "service.keys",
            nothing,
            |service| {
                let open = fs::Permissions::from_mode(0o644);
                fs::set_permissions(service.path("keys.toml"), open).unwrap();
            },
            ["fail", "ok"],
        ),
        (
            "service.exposure",
            // Without a key it is open to this machine alone.
            |service| {
                keys(service.0.path(), "revoke one");
            },
            |service| service.configure("listen = [\"0.0.0.0:8080\"]"),
            ["fail", "ok"],
        ),
        (
            "models.read",
            nothing,
            |service| fs::remove_dir(service.path("models")).unwrap(),
            // There is no model yet.
            ["fail", "warn"],
        ),
    ];
    for (id, before, fault, [broken, mended]) in table {
        let service = Service::new();
        before(&service);
        let good = statuses(&service.examine());
        fault(&service);
        let report = service.examine();
        let found = statuses(&report);
        let differing: Vec<_> = found
            .iter()
            .filter(|&(id, status)| good[id] != *status)
            .collect();
        assert_eq!(
            differing,
            [(&(*id).to_owned(), &(*broken).to_owned())],
            "{report}"
        );
        let remedy = check(&report, id)["remedy"].as_str().expect("a remedy");
        service.carry_out(remedy);
        let report = service.examine();
        assert_eq!(check(&report, id)["status"], *mended, "{id} after {remedy}");
    }
}

/// Only root knows that nothing but the file itself can be the reason.
#[test]
fn keys_that_cannot_be_read_are_told() {
    let service = Service::new();
    fs::write(service.path("keys.toml"), "[[keys]\n").unwrap();
    let report = service.examine();
    let told = check(&report, "service.keys");
    if rustix::process::geteuid().is_root() {
        assert_eq!(told["status"], "fail", "{told}");
        service.carry_out(told["remedy"].as_str().expect("a remedy"));
        let report = service.examine();
        assert_eq!(check(&report, "service.keys")["status"], "ok");
    } else {
        assert_eq!(told["status"], "skip", "{told}");
    }
}

const MANY_SOCKETS: usize = 2500;

#[test]
fn a_port_that_another_program_has_is_told_and_an_address_that_is_not_there() {
    let service = Service::new();
    // Any port that is free.
    service.configure("listen = [\"127.0.0.1:0\"]");
    let good = statuses(&service.examine());
    assert_eq!(good["service.listeners"], "ok");
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    // The kernel tells of each for another minute, in more text than of anything else.
    for _ in 0..MANY_SOCKETS {
        drop(TcpStream::connect(taken).unwrap());
        drop(other.accept().unwrap());
    }
    let this_program = fs::read_to_string("/proc/self/comm").unwrap();
    let holder = format!("{} ({})", this_program.trim(), std::process::id());
    for (listen, observed) in [
        (taken.to_string(), format!("{holder} listens on {taken}")),
        (
            format!("0.0.0.0:{}", taken.port()),
            format!("{holder} listens on {taken}"),
        ),
        // Of a network that is kept for documents.
        (
            "192.0.2.1:8080".to_owned(),
            "this machine has no address 192.0.2.1".to_owned(),
        ),
    ] {
        service.configure(&format!("listen = [{listen:?}]"));
        let report = service.examine();
        let told = check(&report, "service.listeners");
        assert_eq!(told["status"], "fail", "{listen}: {told}");
        assert_eq!(told["observed"], observed);
        for (id, status) in statuses(&report) {
            assert!(
                id == "service.listeners" || good[&id] == status,
                "{listen}: {id}"
            );
        }
    }
}

/// A file system in memory.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn over(folder: &'a Path, options: &str) -> Self {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "disk"])
            .arg(folder)
            .output()
            .expect("mount");
        assert!(mounted.status.success(), "{options}: {mounted:?}");
        Self(folder)
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0).status();
        assert!(std::thread::panicking() || unmounted.is_ok_and(|status| status.success()));
    }
}

#[test]
fn a_disk_that_is_full_or_closed_is_told() {
    if !is_root_for("file systems are mounted") {
        return;
    }
    let service = Service::new();
    let state = service.path("state");
    let good = {
        let _disk = Disk::over(&state, "size=2g");
        statuses(&service.examine())
    };
    assert_eq!(good["service.disk"], "ok");
    for (options, status, observed) in [
        ("size=512m", "warn", "512 MiB free"),
        ("size=32m", "fail", "32 MiB free"),
        ("size=2g,nr_inodes=100", "fail", "more files"),
        ("size=2g,ro", "fail", "for reading only"),
    ] {
        let _disk = Disk::over(&state, options);
        let report = service.examine();
        let told = check(&report, "service.disk");
        assert_eq!(told["status"], status, "{options}: {told}");
        let found = told["observed"].as_str().expect("text");
        assert!(found.contains(observed), "{options}: {found}");
        for (id, status) in statuses(&report) {
            assert!(
                id == "service.disk" || good[&id] == status,
                "{options}: {id}"
            );
        }
    }
}
