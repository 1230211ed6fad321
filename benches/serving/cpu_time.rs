//! CPU time as the kernel accounts it, and who used how much of it between two moments: the daemon, its
//! workers, this client, all else. Of a process it is utime + stime of /proc/PID/stat, in ticks of 10 ms, which
//! holds threads that have ended; of a thread its time in /proc/PID/task/TID/schedstat, in nanoseconds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::daemon_support::{Daemon, children};

/// USER_HZ of every Linux that rkllmd runs on; the field's unit is part of the kernel's ABI.
const TICKS_PER_SECOND: f64 = 100.0;
/// A thread or a machine that uses more of its CPUs than this has little to spare: what is missing
/// goes into handing over from thread to thread.
const SATURATED: f64 = 0.85;
/// Busiest threads that are named.
const NAMED_THREADS: usize = 4;

/// What a group of processes used, in seconds.
struct Moment {
    at: Instant,
    daemon: f64,
    workers: f64,
    client: f64,
    machine: f64,
    threads: Vec<ThreadTime>,
}

struct ThreadTime {
    id: u32,
    name: String,
    spent: Spent,
}

/// What threads had of the CPUs.
#[derive(Clone, Copy)]
pub struct Spent {
    pub seconds: f64,
    /// Times that one was put on a CPU: it had woken, or had lost it to another. `None`: the kernel keeps no count.
    pub turns: Option<f64>,
}

impl Spent {
    fn and(self, other: Self) -> Self {
        let turns = self.turns.zip(other.turns);
        Self {
            seconds: self.seconds + other.seconds,
            turns: turns.map(|(one, other)| one + other),
        }
    }

    fn since(self, before: Self) -> Self {
        let turns = self.turns.zip(before.turns);
        Self {
            seconds: self.seconds - before.seconds,
            turns: turns.map(|(now, before)| now - before),
        }
    }
}

/// Watches from its creation to [`Usage`].
pub struct Watch {
    daemon: u32,
    workers: Vec<u32>,
    start: Moment,
}

/// What was used while a watch ran.
pub struct Usage {
    pub elapsed_s: f64,
    pub daemon_s: f64,
    pub workers_s: f64,
    pub client_s: f64,
    /// Processes that have nothing to do with the benchmark, and interrupts.
    pub others_s: f64,
    /// The busiest first.
    threads: Vec<(String, Spent)>,
}

impl Watch {
    /// All workers that will take part must be running.
    pub fn start(daemon: &Daemon) -> Self {
        let workers = children(daemon.pid());
        let daemon = daemon.pid();
        Self {
            daemon,
            start: Moment::now(daemon, &workers),
            workers,
        }
    }

    pub fn stop(self) -> Usage {
        let end = Moment::now(self.daemon, &self.workers);
        let start = self.start;
        let daemon_s = end.daemon - start.daemon;
        let workers_s = end.workers - start.workers;
        let client_s = end.client - start.client;
        let mut threads: Vec<(String, Spent)> = end
            .threads
            .into_iter()
            .map(|thread| {
                let before = start.threads.iter().find(|other| other.id == thread.id);
                let spent = before.map_or(thread.spent, |other| thread.spent.since(other.spent));
                (thread.name, spent)
            })
            .collect();
        busiest_first(&mut threads);
        Usage {
            elapsed_s: (end.at - start.at).as_secs_f64(),
            daemon_s,
            workers_s,
            client_s,
            others_s: (end.machine - start.machine - daemon_s - workers_s - client_s).max(0.0),
            threads,
        }
    }
}

impl Usage {
    /// What the threads of each name had together, the busiest first. Those that have ended are missing.
    pub fn by_name(&self) -> Vec<(String, Spent)> {
        let mut names: BTreeMap<&str, Spent> = BTreeMap::new();
        for (name, spent) in &self.threads {
            names
                .entry(name.as_str())
                .and_modify(|all| *all = all.and(*spent))
                .or_insert(*spent);
        }
        let names = names.into_iter();
        let mut names: Vec<_> = names.map(|(name, all)| (name.to_owned(), all)).collect();
        busiest_first(&mut names);
        names
    }

    /// What there was no more of, and who used how much, in lines.
    pub fn bound(&self) -> [String; 3] {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
        let share = |seconds: f64| seconds / self.elapsed_s;
        let used = share(self.daemon_s + self.workers_s + self.client_s + self.others_s);
        let shares = format!(
            "CPUs in use: daemon {:.2}, workers {:.2}, client {:.2}, others {:.2} of {cpus}",
            share(self.daemon_s),
            share(self.workers_s),
            share(self.client_s),
            share(self.others_s),
        );
        let busiest = self
            .threads
            .first()
            .map_or(0.0, |(_, spent)| share(spent.seconds));
        let threads: Vec<String> = self
            .threads
            .iter()
            .take(NAMED_THREADS)
            .map(|(name, spent)| format!("{name} {:.2}", share(spent.seconds)))
            .collect();
        let bound = if used >= SATURATED * cpus {
            "bound by the CPUs, all of which are busy"
        } else if busiest >= SATURATED {
            "bound by the busiest thread, which has a CPU to itself"
        } else {
            "no CPU and no thread is saturated: the rest is waiting"
        };
        [
            bound.to_owned(),
            shares,
            format!("busiest threads: {}", threads.join(", ")),
        ]
    }
}

impl Moment {
    fn now(daemon: u32, workers: &[u32]) -> Self {
        let mut threads = threads_of(daemon, "daemon");
        for worker in workers {
            threads.extend(threads_of(*worker, "worker"));
        }
        Self {
            at: Instant::now(),
            daemon: seconds_of(&format!("/proc/{daemon}/stat")).expect("a running daemon"),
            workers: workers
                .iter()
                .map(|pid| seconds_of(&format!("/proc/{pid}/stat")).expect("a running worker"))
                .sum(),
            client: seconds_of("/proc/self/stat").expect("this process"),
            machine: busy_machine(),
            threads,
        }
    }
}

fn threads_of(pid: u32, process: &str) -> Vec<ThreadTime> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    tasks
        .filter_map(|task| {
            let folder = task.ok()?.path();
            let name = fs::read_to_string(folder.join("comm")).ok()?;
            Some(ThreadTime {
                id: folder.file_name()?.to_str()?.parse().ok()?,
                name: format!("{process}/{}", name.trim()),
                spent: spent_by_thread(&folder)?,
            })
        })
        .collect()
}

fn busiest_first(threads: &mut [(String, Spent)]) {
    threads.sort_by(|(_, left), (_, right)| right.seconds.total_cmp(&left.seconds));
}

/// `None` once it has gone. Where the scheduler keeps no count the thread's ticks are taken.
fn spent_by_thread(folder: &Path) -> Option<Spent> {
    let counts = fs::read_to_string(folder.join("schedstat")).ok();
    let Some(counts) = counts.filter(|counts| !counts.starts_with("0 ")) else {
        let seconds = seconds_of(folder.join("stat").to_str()?)?;
        let turns = None;
        return Some(Spent { seconds, turns });
    };
    // Nanoseconds on a CPU and waiting for one, and turns.
    let mut counts = counts
        .split_whitespace()
        .map(|count| count.parse::<f64>().ok());
    let nanoseconds = counts.next()??;
    Some(Spent {
        seconds: nanoseconds / 1e9,
        turns: counts.nth(1)?,
    })
}

/// utime + stime of a process or thread; `None` once it has gone.
fn seconds_of(stat: &str) -> Option<f64> {
    let stat = fs::read_to_string(stat).ok()?;
    // The name before it may hold anything, white space and parentheses included.
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks = |field: &str| field.parse::<f64>().ok();
    let mut times = fields.split(' ').skip(11);
    Some((ticks(times.next()?)? + ticks(times.next()?)?) / TICKS_PER_SECOND)
}

/// What all CPUs together spent on anything but idling and waiting for disks.
fn busy_machine() -> f64 {
    let stat = fs::read_to_string("/proc/stat").expect("/proc/stat");
    let line = stat.lines().next().expect("a line for all CPUs");
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq; what follows is contained in these or not ours.
    let busy = ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6];
    busy / TICKS_PER_SECOND
}
