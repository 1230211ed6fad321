//! What a pull takes of the memory does not grow with what it brings.

use std::fs;
use std::process::{Command, Stdio};

use crate::hub_support::{Hub, Reply, Repo, random_bytes};
use crate::pulls_support::{Folder, MODEL, PLACE};

const MIB: usize = 1 << 20;
/// Between two pulls of one program, whatever its pages are.
const MOST_KIB: u64 = 8 * 1024;

/// The most that the command had of the memory, in KiB, until but one byte of so many had come.
fn peak_kib(bytes: usize) -> u64 {
    let repo = Repo::new(&[(MODEL, &random_bytes(3, bytes))]);
    let hub = Hub::start(move |request, _| {
        let reply = repo.answer(request);
        Reply {
            hold_at: request.is_for_file().then_some(bytes - 1),
            ..reply
        }
    });
    let folder = Folder::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .args(["pull", PLACE, "--config", "/dev/null", "--models"])
        .arg(folder.path())
        .env_clear()
        .env("RKLLMD_HUB__ENDPOINT", hub.endpoint())
        .env("RKLLMD_HUB__KEEP_FREE_BYTES", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    hub.wait_for_hold(0);
    let status = fs::read_to_string(format!("/proc/{}/status", child.id()));
    child.kill().expect("it runs still");
    child.wait().expect("it has ended");
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse().ok()).expect("a number")
}

#[test]
fn a_large_file_takes_no_more_memory_than_a_small_one() {
    let (small, large) = (peak_kib(MIB), peak_kib(96 * MIB));
    assert!(
        large < small + MOST_KIB,
        "{small} KiB of 1 MiB, {large} KiB of 96 MiB"
    );
}
