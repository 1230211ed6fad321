//! A kernel that does not answer: in the daemon's own view of the machine a named pipe without a
//! writer lies over a file of /proc, so that what opens it to read waits. Workers have that view
//! too, and some files they read themselves. It needs `unshare` and
//! `nsenter` (util-linux), and root or the right to make user namespaces.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode};

use super::daemon_support::{Daemon, Setup};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A daemon with a view of its own.
pub fn with_own_view(setup: Setup) -> Setup {
    let flags = if is_root() { "-m" } else { "-Urm" };
    setup.launcher(&["unshare", flags, "--propagation", "private"])
}

/// Runs a program in the daemon's view.
fn inside(daemon: &Daemon, program: &[&str]) {
    let mut command = Command::new("nsenter");
    command.arg("--target").arg(daemon.pid().to_string());
    if !is_root() {
        command.args(["--user", "--preserve-credentials"]);
    }
    let output = command.arg("--mount").args(program).output();
    let output = output.expect("nsenter");
    assert!(output.status.success(), "{program:?}: {output:?}");
}

/// A file that does not answer until this is dropped.
pub struct Hung<'a> {
    daemon: &'a Daemon,
    file: PathBuf,
    pipe: PathBuf,
}

impl<'a> Hung<'a> {
    pub fn new(daemon: &'a Daemon, file: impl AsRef<Path>) -> Self {
        let file = file.as_ref().to_owned();
        let pipe = named_pipe(daemon.folder(), &file);
        cover(daemon, &pipe, &file);
        Self { daemon, file, pipe }
    }

    /// A folder in which each entry is such a file.
    pub fn entries_of(daemon: &'a Daemon, folder: impl AsRef<Path>) -> Self {
        let file = folder.as_ref().to_owned();
        let over = daemon.folder().join("entries");
        std::fs::create_dir(&over).expect("a folder");
        let pipe = named_pipe(&over, Path::new("0"));
        cover(daemon, &over, &file);
        Self { daemon, file, pipe }
    }

    /// Lets readers that wait find an empty file; later readers find the real one.
    pub fn answer(self) {
        let file = self.file.to_str().expect("UTF-8");
        // Lazily, because readers that wait have it open.
        inside(self.daemon, &["umount", "--lazy", file]);
        // There may be no reader to let go.
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
        drop(rustix::fs::open(&self.pipe, flags, Mode::empty()));
    }
}

fn named_pipe(folder: &Path, file: &Path) -> PathBuf {
    let pipe = folder.join(file.display().to_string().replace('/', "-"));
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, mode, 0).expect("a named pipe");
    pipe
}

fn cover(daemon: &Daemon, over: &Path, file: &Path) {
    let (over, file) = (over.to_str().expect("UTF-8"), file.to_str().expect("UTF-8"));
    inside(daemon, &["mount", "--bind", over, file]);
}
