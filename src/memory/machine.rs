//! How much memory there is for the daemon and its workers.

use std::time::Duration;

use sysinfo::{MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use crate::apart::{self, Subject};

/// A kernel that takes longer to tell does not tell.
const LIMIT: Duration = Duration::from_secs(1);

/// As [`machine_bytes`], apart from the threads that serve; the outer `None`: no answer.
pub async fn ask() -> Option<Option<u64>> {
    apart::ask(Subject::OwnProcess, LIMIT, machine_bytes).await
}

/// The machine's memory, or what the daemon's cgroup (v1 or v2, with its ancestors) may have where
/// that is less. `None`: not known.
pub(crate) fn machine_bytes() -> Option<u64> {
    let mut system = System::new().ok()?;
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let installed = Some(system.total_memory()).filter(|bytes| *bytes > 0);

    let this = Pid::from_u32(std::process::id());
    system.refresh_processes_specifics(
        ProcessesToUpdate::Some(&[this]),
        true,
        ProcessRefreshKind::nothing(),
    );
    let limits = system.process(this).and_then(|this| this.cgroup_limits());
    let allowed = limits.map(|limits| limits.total_memory);

    installed.into_iter().chain(allowed).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_kernel_tells_or_less() {
        let meminfo = std::fs::read_to_string("/proc/meminfo").expect("meminfo");
        let line = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .expect("MemTotal");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("KiB");
        let bytes = machine_bytes().expect("known here");
        assert!(bytes <= kib * 1024, "{bytes} of {kib} KiB");
        assert!(bytes > 64 << 20, "{bytes}");
    }
}
