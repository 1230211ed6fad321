//! Tells whether the kernel's OOM killer ended a child.
//!
//! waitpid reports such a death as SIGKILL, like any other, but the kernel also counts it before it
//! sends the signal: in the worker's memory cgroup, and for the whole machine. A SIGKILL that the
//! daemon did not send and that came with a grown counter is called an OOM kill.
//!
//! What stays uncertain: the counters do not say whom. If the OOM killer ends another process of the
//! same cgroup within [`RECENT`] before another process sends the worker a SIGKILL, the latter is
//! called an OOM kill too. Where the cgroup has no counter (no memory cgroups, or the root of v2),
//! the same holds for any process of the machine. A worker that is moved to another cgroup and
//! killed before the next [`OomWatch::refresh`] is looked for in the cgroup it has left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A counted process still has to be torn down, and that takes time when it has gigabytes; so a kill
/// that an earlier look at the counters saw still explains the end.
pub const RECENT: Duration = Duration::from_secs(10);

/// Watches the OOM counters of one process.
#[derive(Debug)]
pub struct OomWatch {
    proc: PathBuf,
    pid: u32,
    /// Those of the process's memory cgroup, kept because /proc does not tell it after the end.
    cgroup: Option<Counter>,
    machine: Option<Counter>,
    /// When a counter was last seen to have grown.
    grown_at: Option<Instant>,
}

impl OomWatch {
    /// Starts to watch a living process.
    pub fn begin(pid: u32) -> Self {
        Self::begin_in(Path::new("/proc"), pid)
    }

    fn begin_in(proc: &Path, pid: u32) -> Self {
        Self {
            proc: proc.to_owned(),
            pid,
            cgroup: cgroup_counter(proc, pid),
            machine: Counter::read(proc.join("vmstat")),
            grown_at: None,
        }
    }

    /// Looks at the counters and at the cgroup of the process, and goes on from there. To be called
    /// while the process lives; four small files are read.
    pub fn refresh(&mut self) {
        // None: the process is ending and is not in its cgroup any more.
        let cgroup = cgroup_counter(&self.proc, self.pid).or_else(|| self.cgroup.as_ref()?.again());
        // Each counter is read once, so that no kill falls between a comparison and a new value.
        let machine = Counter::read(self.proc.join("vmstat"));
        if self.has_grown(cgroup.as_ref(), machine.as_ref()) {
            self.grown_at = Some(Instant::now());
        }
        self.cgroup = cgroup.or(self.cgroup.take());
        self.machine = machine.or(self.machine.take());
    }

    /// Whether a process was killed where this one is, since the last look or shortly before it.
    pub fn killed(&self) -> bool {
        let again = |counter: &Option<Counter>| counter.as_ref().and_then(Counter::again);
        let (cgroup, machine) = (again(&self.cgroup), again(&self.machine));
        self.has_grown(cgroup.as_ref(), machine.as_ref())
            || self.grown_at.is_some_and(|at| at.elapsed() < RECENT)
    }

    /// Compares what was read now with the last look. The cgroup counts kills for want of the
    /// machine's memory too, so it alone decides where it can be read.
    fn has_grown(&self, cgroup: Option<&Counter>, machine: Option<&Counter>) -> bool {
        let since = |old: Option<&Counter>, new: Option<&Counter>| {
            let (old, new) = (old?, new?);
            // In another cgroup the higher count is its past.
            Some(new.file == old.file && new.kills > old.kills)
        };
        since(self.cgroup.as_ref(), cgroup)
            .or_else(|| since(self.machine.as_ref(), machine))
            .unwrap_or(false)
    }
}

/// One `oom_kill` counter and its value at the last look.
#[derive(Debug, PartialEq, Eq)]
struct Counter {
    file: PathBuf,
    kills: u64,
}

impl Counter {
    fn read(file: PathBuf) -> Option<Self> {
        let kills = oom_kills(&fs::read_to_string(&file).ok()?)?;
        Some(Self { file, kills })
    }

    /// `None`: it cannot be read any more.
    fn again(&self) -> Option<Self> {
        Self::read(self.file.clone())
    }
}

/// `oom_kill N`, the same line in memory.events, memory.oom_control and vmstat.
fn oom_kills(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line?.trim().parse().ok()
}

/// The counter of the memory cgroup that a process is in.
fn cgroup_counter(proc: &Path, pid: u32) -> Option<Counter> {
    let memberships = fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).ok()?;
    let mounts = fs::read_to_string(proc.join("self/mountinfo")).ok()?;
    let membership = Membership::of_memory(&memberships)?;
    let folder = membership.folder(&mounts)?;
    // `.local` (since Linux 5.2) leaves out what was killed in cgroups below.
    let names: &[&str] = match membership.hierarchy {
        Hierarchy::V1 => &["memory.oom_control"],
        Hierarchy::V2 => &["memory.events.local", "memory.events"],
    };
    let mut counters = names.iter().map(|name| Counter::read(folder.join(name)));
    counters.find_map(|counter| counter)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hierarchy {
    V1,
    V2,
}

/// The cgroup of a process that accounts for its memory.
#[derive(Debug, PartialEq, Eq)]
struct Membership<'a> {
    hierarchy: Hierarchy,
    /// From the root of the hierarchy.
    path: &'a str,
}

impl<'a> Membership<'a> {
    /// From the text of /proc/PID/cgroup, lines of `id:controllers:path`. The memory controller is
    /// in one hierarchy only, in v2 if v1 does not list it.
    fn of_memory(memberships: &'a str) -> Option<Self> {
        let lines = || memberships.lines().filter_map(|line| line.split_once(':'));
        let v1 = lines().find_map(|(_, rest)| {
            let (controllers, path) = rest.split_once(':')?;
            let memory = controllers.split(',').any(|name| name == "memory");
            memory.then_some((Hierarchy::V1, path))
        });
        let v2 = || {
            let (_, rest) = lines().find(|(id, _)| *id == "0")?;
            Some((Hierarchy::V2, rest.strip_prefix(':')?))
        };
        let (hierarchy, path) = v1.or_else(v2)?;
        // v1 tells the root for every process that is ending. In the root nothing is limited, so
        // that the machine's counter is as good.
        let known = hierarchy == Hierarchy::V2 || path != "/";
        known.then_some(Self { hierarchy, path })
    }

    /// Where the cgroup's files are, from the text of /proc/self/mountinfo.
    fn folder(&self, mountinfo: &str) -> Option<PathBuf> {
        mountinfo.lines().find_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let mut mount = mount.split(' ').skip(3);
            let (root, point) = (mount.next()?, mount.next()?);
            let mut filesystem = filesystem.split(' ');
            let (kind, options) = (filesystem.next()?, filesystem.nth(1)?);
            let right = match self.hierarchy {
                Hierarchy::V1 => kind == "cgroup" && options.split(',').any(|o| o == "memory"),
                Hierarchy::V2 => kind == "cgroup2",
            };
            if !right {
                return None;
            }
            // In a container only a part of the hierarchy may be mounted.
            let below = Path::new(self.path).strip_prefix(root).ok()?;
            Some(Path::new(point).join(below))
        })
    }
}

#[cfg(test)]
mod tests;
