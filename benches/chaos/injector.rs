//! Deaths on purpose. A decision is by the seed; it counts only when the daemon has logged what
//! waitpid reported of that process and the process is gone. One process has one injury at a time.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::daemon_support::children;
use crate::faults::{Armed, End, FAULTS, Fault};
use crate::log_watch::LogWatch;
use crate::plan::Moment;
use crate::scenario::MODELS;

const TICK: Duration = Duration::from_millis(10);
/// A call that would find a fault does not always come.
const ARMED_FOR: Duration = Duration::from_secs(4);
/// Every deadline in use here is much shorter.
const SETTLING: Duration = Duration::from_secs(25);

/// What became of an injury.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Reported by waitpid as what it was, and the process is gone.
    Counted,
    /// Reported as another end: the daemon was ending that process already.
    Overtaken,
    /// Reported, but the process is still there.
    StillThere,
    /// Never reported.
    Unreported,
}

pub struct Injury {
    pub name: &'static str,
    pub is_hang: bool,
    pub settled: Settled,
    /// From the injury to the daemon's log line.
    pub noticed_ms: Option<f64>,
    pub note: String,
}

/// An injury whose end is awaited.
struct Pending {
    name: &'static str,
    end: End,
    pid: u32,
    /// The kernel's start time, by which a process is told from a later one with its id.
    started: Option<u64>,
    at: Moment,
    since: Instant,
}

pub struct Injector<'a> {
    pub daemon: u32,
    pub models: &'a Path,
    pub log: &'a LogWatch,
    pub decisions: fastrand::Rng,
    armed: Vec<(usize, Armed, Instant)>,
    pending: Vec<Pending>,
    injuries: Vec<Injury>,
    /// Faults that were taken back because no call came by.
    pub unused: usize,
}

impl<'a> Injector<'a> {
    pub fn new(daemon: u32, models: &'a Path, log: &'a LogWatch, decisions: fastrand::Rng) -> Self {
        Self {
            daemon,
            models,
            log,
            decisions,
            armed: Vec::new(),
            pending: Vec::new(),
            injuries: Vec::new(),
            unused: 0,
        }
    }

    /// Injures until `until`, then waits for the ends of all injuries.
    pub fn run(mut self, until: Instant) -> (Vec<Injury>, usize) {
        let mut next = Instant::now();
        while Instant::now() < until {
            if Instant::now() >= next {
                self.decide();
                next = Instant::now() + Duration::from_millis(self.decisions.u64(150..=600));
            }
            self.look();
            thread::sleep(TICK);
        }
        for (_, armed, _) in &self.armed {
            self.unused += usize::from(armed.disarm());
        }
        // What could not be taken back has happened or is happening.
        let settled_by = Instant::now() + SETTLING;
        while !self.pending.is_empty() && Instant::now() < settled_by {
            self.look();
            thread::sleep(TICK);
        }
        for pending in std::mem::take(&mut self.pending) {
            self.settle(&pending, Settled::Unreported, None, String::new());
        }
        (self.injuries, self.unused)
    }

    /// Each decision takes the same share of the random numbers, whatever comes of it.
    fn decide(&mut self) {
        let (kind, which) = (self.decisions.u8(..100), self.decisions.usize(..usize::MAX));
        let signal = match kind {
            0..25 => (Signal::KILL, End::Signal("SIGKILL"), "SIGKILL"),
            25..38 => (Signal::SEGV, End::Signal("SIGSEGV"), "SIGSEGV"),
            38..50 => (Signal::ABORT, End::Signal("SIGABRT"), "SIGABRT"),
            50..56 => (Signal::STOP, End::Hang, "SIGSTOP"),
            _ => return self.arm(which),
        };
        self.signal(signal, which);
    }

    fn signal(&mut self, (signal, end, name): (Signal, End, &'static str), which: usize) {
        let whole: Vec<u32> = children(self.daemon)
            .into_iter()
            .filter(|pid| self.pending.iter().all(|pending| pending.pid != *pid))
            .collect();
        if whole.is_empty() {
            return;
        }
        let pid = whole[which % whole.len()];
        let handle = i32::try_from(pid).ok().and_then(Pid::from_raw);
        // Behind the descriptor the process stays the same one, whatever becomes of its id.
        let Some(Ok(process)) = handle.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
            return;
        };
        let Some(started) = start_time(pid) else {
            return;
        };
        let at = Moment::now();
        if pidfd_send_signal(&process, signal).is_ok() {
            self.await_end(name, end, pid, Some(started), at);
        }
    }

    fn arm(&mut self, which: usize) {
        let model = which % MODELS.len();
        let fault: &'static Fault = &FAULTS[(which / MODELS.len()) % FAULTS.len()];
        let same = |(armed_model, armed, _): &(usize, Armed, Instant)| {
            *armed_model == model && armed.fault.name == fault.name
        };
        if self.armed.iter().any(same) {
            return;
        }
        let folder = self.models.join(MODELS[model].id);
        self.armed
            .push((model, Armed::arm(&folder, fault), Instant::now()));
    }

    fn await_end(
        &mut self,
        name: &'static str,
        end: End,
        pid: u32,
        started: Option<u64>,
        at: Moment,
    ) {
        self.pending.push(Pending {
            name,
            end,
            pid,
            started,
            at,
            since: Instant::now(),
        });
    }

    fn look(&mut self) {
        for (model, armed, since) in std::mem::take(&mut self.armed) {
            if let Some(happened) = armed.happened() {
                let (name, end) = (armed.fault.name, armed.fault.end);
                let started = start_time(happened.pid);
                self.await_end(name, end, happened.pid, started, happened.at);
            } else if since.elapsed() > ARMED_FOR && armed.disarm() {
                self.unused += 1;
            } else {
                self.armed.push((model, armed, since));
            }
        }
        for pending in std::mem::take(&mut self.pending) {
            match self.log.exit_of(pending.pid, pending.at) {
                None if pending.since.elapsed() > SETTLING => {
                    self.settle(&pending, Settled::Unreported, None, String::new());
                }
                None => self.pending.push(pending),
                Some(exit) => {
                    let noticed = self.log.expiry_of(pending.pid, pending.at);
                    let noticed = noticed.map(|at| at.ms_since(pending.at));
                    let settled = if !is_gone(&pending) {
                        Settled::StillThere
                    } else if matches!(pending.end, End::Signal(name) if !exit.tells(name)) {
                        Settled::Overtaken
                    } else {
                        Settled::Counted
                    };
                    self.settle(&pending, settled, noticed, exit.line);
                }
            }
        }
    }

    fn settle(
        &mut self,
        pending: &Pending,
        settled: Settled,
        noticed_ms: Option<f64>,
        note: String,
    ) {
        self.injuries.push(Injury {
            name: pending.name,
            is_hang: pending.end == End::Hang,
            settled,
            noticed_ms,
            note,
        });
    }
}

fn is_gone(pending: &Pending) -> bool {
    match start_time(pending.pid) {
        None => true,
        // A process whose start was never seen had ended before it could be looked at.
        now => pending.started.is_none() || now != pending.started,
    }
}

/// When the process started, in clock ticks since boot.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}
