//! Figures the kernel keeps about a process. Every one is optional: the process may be gone.

use std::fs;
use std::time::Duration;

use crate::apart::{self, Subject};
use crate::ipc::LoadFigures;

/// A kernel that takes longer to tell does not tell.
const LIMIT: Duration = Duration::from_millis(500);

/// Bytes the process has read by system calls (`rchar`).
fn read_bytes(pid: u32) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let line = io.lines().find_map(|line| line.strip_prefix("rchar:"))?;
    line.trim().parse().ok()
}

/// Resident memory, file mappings included.
fn resident_bytes(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// What tells whether a load of another process gets on; `None`: the kernel does not answer.
pub async fn ask_load_figures(pid: u32) -> Option<LoadFigures> {
    apart::ask(Subject::Child(pid), LIMIT, move || load_figures(pid)).await
}

/// What tells whether a load gets on. Not for the threads that serve: the kernel may not answer.
pub fn load_figures(pid: u32) -> LoadFigures {
    LoadFigures {
        read_bytes: read_bytes(pid),
        resident_bytes: resident_bytes(pid),
    }
}
