//! How much memory there is for the daemon and its workers.

use std::time::Duration;

use sysinfo::{
    CGroupLimits, MemoryRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System,
};

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

    let limits = cgroup_limits(&mut system);
    let allowed = limits.map(|limits| limits.total_memory);

    installed.into_iter().chain(allowed).min()
}

fn cgroup_limits(system: &mut System) -> Option<CGroupLimits> {
    let this = Pid::from_u32(std::process::id());
    system.refresh_processes_specifics(
        ProcessesToUpdate::Some(&[this]),
        true,
        ProcessRefreshKind::nothing(),
    );
    system.process(this)?.cgroup_limits()
}

/// Memory that is left now, of the machine or of what the daemon's cgroup may have where that is less; `None`:
/// not known. Asked apart from the threads that serve.
pub async fn available() -> Option<u64> {
    let asked = apart::ask(Subject::OwnProcess, LIMIT, || {
        let mut system = System::new().ok()?;
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let left = Some(system.available_memory()).filter(|_| system.total_memory() > 0);
        let group = cgroup_limits(&mut system).map(|limits| limits.free_memory);
        left.into_iter().chain(group).min()
    });
    asked.await.flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_left_is_less_than_there_is() {
        let left = available().await.expect("known here");
        assert!(
            0 < left && left < machine_bytes().expect("known here"),
            "{left}"
        );
    }

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
