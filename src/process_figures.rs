//! Figures the kernel keeps about a process. Every one is optional: the process may be gone.

use std::fs;

use crate::ipc::LoadFigures;

/// Bytes the process has read by system calls (`rchar`).
pub fn read_bytes(pid: u32) -> Option<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let line = io.lines().find_map(|line| line.strip_prefix("rchar:"))?;
    line.trim().parse().ok()
}

/// Resident memory, file mappings included.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// What tells whether a load gets on.
pub fn load_figures(pid: u32) -> LoadFigures {
    LoadFigures {
        read_bytes: read_bytes(pid),
        resident_bytes: resident_bytes(pid),
    }
}
