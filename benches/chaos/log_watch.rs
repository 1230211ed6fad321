//! What the daemon's log says about its workers. A worker's end counts here only by the line that the
//! daemon writes once waitpid has told it.

use std::sync::{Mutex, PoisonError};

use crate::daemon_support::Log;
use crate::plan::Moment;

/// Ends of workers, in whatever words: the line names the process and what waitpid said.
const ENDED: &str = "worker ended";
const LOADED: &str = "model loaded";
const RESUMED: &str = "resuming an answer";
const DEADLINE: &str = "deadline";
/// Causes of an end that what was being served may have brought about, deadlines apart.
const FAULTS: [&str; 7] = [
    "sigsegv",
    "sigabrt",
    "sigill",
    "sigbus",
    "sigfpe",
    "signal",
    "exit-code",
];

/// A worker's end.
#[derive(Clone, Debug)]
pub struct Exit {
    pub at: Moment,
    pub pid: u32,
    pub model: String,
    /// The request that was being served.
    pub request: Option<String>,
    /// As waitpid reported it, and why the daemon thinks so.
    pub line: String,
}

impl Exit {
    pub fn tells(&self, words: &str) -> bool {
        self.line.contains(words)
    }

    /// Whether the request that was being served may be to blame: what it ran crashed, exited or
    /// hung. A kill from outside or for memory is no part's fault, and a worker that passed the
    /// heartbeat was not even scheduled.
    pub fn is_fault(&self) -> bool {
        match field(&self.line, "cause") {
            Some("deadline") => !self.tells("`heartbeat`"),
            Some(cause) => FAULTS.contains(&cause),
            None => false,
        }
    }
}

/// A line that counts a deadline which passed, or an end because of one.
#[derive(Clone, Debug)]
pub struct Expiry {
    pub at: Moment,
    pub pid: u32,
}

/// A model that was loaded.
#[derive(Clone, Debug)]
pub struct Load {
    pub at: Moment,
    pub model: String,
    /// From starting its worker.
    pub took_ms: f64,
}

/// An answer that goes on with another worker.
#[derive(Clone, Debug)]
pub struct Resumption {
    pub request: String,
    pub tokens: u32,
    pub text_bytes: usize,
}

#[derive(Default)]
struct Seen {
    lines: usize,
    exits: Vec<Exit>,
    expiries: Vec<Expiry>,
    loads: Vec<Load>,
    resumptions: Vec<Resumption>,
}

/// Reads the log as it grows; all checks may look.
pub struct LogWatch {
    log: Log,
    seen: Mutex<Seen>,
}

impl LogWatch {
    pub fn new(log: Log) -> Self {
        Self {
            log,
            seen: Mutex::default(),
        }
    }

    /// The end of process `pid`. Ids may be used again, so only ends after `since` count.
    pub fn exit_of(&self, pid: u32, since: Moment) -> Option<Exit> {
        self.look(|seen| {
            let mut exits = seen.exits.iter().rev();
            exits
                .find(|exit| exit.pid == pid && exit.at >= since)
                .cloned()
        })
    }

    /// When a deadline of process `pid` was first said to have passed, or its end.
    pub fn expiry_of(&self, pid: u32, since: Moment) -> Option<Moment> {
        self.look(|seen| {
            let expiries = seen.expiries.iter().map(|expiry| (expiry.at, expiry.pid));
            let exits = seen.exits.iter().map(|exit| (exit.at, exit.pid));
            let both = expiries.chain(exits);
            let of_it = both.filter(|(at, of)| *of == pid && *at >= since);
            of_it.map(|(at, _)| at).min()
        })
    }

    pub fn exits(&self) -> Vec<Exit> {
        self.look(|seen| seen.exits.clone())
    }

    pub fn loads(&self) -> Vec<Load> {
        self.look(|seen| seen.loads.clone())
    }

    pub fn resumptions(&self) -> Vec<Resumption> {
        self.look(|seen| seen.resumptions.clone())
    }

    fn look<T>(&self, at: impl FnOnce(&Seen) -> T) -> T {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for line in self.log.after(seen.lines) {
            seen.lines += 1;
            seen.read(line);
        }
        at(&seen)
    }
}

impl Seen {
    fn read(&mut self, line: String) {
        // What the runtime prints is no word of the daemon's.
        if line.contains("rkllmd::runtime:") {
            return;
        }
        let Some(at) = time_of(&line) else {
            return;
        };
        let pid = field(&line, "pid").and_then(|pid| pid.parse().ok());
        let number = |name| field(&line, name).and_then(|value| value.parse::<u32>().ok());
        let model = || field(&line, "model").unwrap_or_default().to_owned();
        if let Some(pid) = pid
            && line.contains(DEADLINE)
        {
            self.expiries.push(Expiry { at, pid });
        }
        if line.contains(LOADED) {
            self.loads.push(Load {
                at,
                model: model(),
                took_ms: number("took_ms").map_or(0.0, f64::from),
            });
        } else if line.contains(RESUMED) {
            self.resumptions.push(Resumption {
                request: field(&line, "request").unwrap_or_default().to_owned(),
                tokens: number("tokens").unwrap_or_default(),
                text_bytes: number("text_bytes").unwrap_or_default() as usize,
            });
        } else if let Some(pid) = pid
            && line.contains(ENDED)
        {
            self.exits.push(Exit {
                at,
                pid,
                model: model(),
                request: field(&line, "request").map(str::to_owned),
                line,
            });
        }
    }
}

/// The time that a line begins with.
fn time_of(line: &str) -> Option<Moment> {
    let time: jiff::Timestamp = line.split_whitespace().next()?.parse().ok()?;
    u64::try_from(time.as_microsecond()).ok().map(Moment)
}

/// The value of `name=value`; quotes around it are left out, a value without quotes ends at a blank.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let start = line
        .match_indices(name)
        .map(|(at, _)| at)
        .find(|&at| line[..at].ends_with(' ') && line[at + name.len()..].starts_with('='))?;
    let value = &line[start + name.len() + 1..];
    match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => value.split(' ').next(),
    }
}
