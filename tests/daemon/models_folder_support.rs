//! A daemon beside whatever stands in its models folder.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::daemon_support::{Daemon, Setup, chat, eventually};
use rustix::process::Signal;
use serde_json::json;

pub const CHAT: &str = "/v1/chat/completions";
pub const TEXT: &str = "/v1/completions";

/// A daemon with a model `good`. What never ends takes readers this long, in which `good` is read also
/// where the machine is busy.
pub fn setup() -> Setup {
    Setup::new()
        .scenario("good", "tokens = [\"fine\"]\n")
        .settings("models.minimum-residency = \"0s\"")
        .settings("deadlines.reader-open = \"5s\"")
        .settings("deadlines.reader-call = \"5s\"")
}

pub fn models(folder: &Path) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .args(["models", "--models"])
        .arg(folder)
        .env("RKLLMD_DEADLINES__READER_OPEN", "8s")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("rkllmd");
    struct Killed<'a>(&'a mut std::process::Child);
    impl Drop for Killed<'_> {
        fn drop(&mut self) {
            let _ = self.0.kill();
        }
    }
    let running = Killed(&mut child);
    eventually("the end of `rkllmd models`", || {
        running.0.try_wait().expect("waitpid")
    });
    drop(running);
    child.wait_with_output().expect("its output")
}

pub fn listed(folder: &Path) -> String {
    String::from_utf8(models(folder).stdout).expect("UTF-8")
}

pub fn serves(daemon: &Daemon, model: &str) {
    let answer = daemon.post(CHAT, &chat(model, "x", json!({})));
    assert_eq!(answer.status, 200, "{model}: {}", answer.body);
}

pub fn reload(daemon: &Daemon) {
    let before = daemon.log.lines().len();
    daemon.signal(Signal::HUP);
    eventually("the end of the reload", || {
        let lines = daemon.log.after(before);
        let done = lines.iter().any(|line| line.contains("reloaded:"));
        done.then_some(())
    });
}

pub fn ends_at_once(daemon: Daemon) {
    let began = Instant::now();
    daemon.signal(Signal::TERM);
    daemon.wait();
    assert!(began.elapsed() < Duration::from_secs(10));
}
