//! How requests end, and the sum of it.

use std::collections::BTreeMap;

use crate::plan::Moment;

/// Every error code that a request of the crowd may end with; another one is a finding.
const KNOWN_CODES: [&str; 11] = [
    "answer_interrupted",
    "deadline_exceeded",
    "model_failed",
    "model_unavailable",
    "poison_request",
    "queue_deadline",
    "run_failed",
    "run_refused",
    "shutting_down",
    "slow_reader",
    "worker_died",
];

/// Why a request's end is a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Bytes that are not those of its answer, or counts that are not.
    Wrong,
    /// No byte for as long as a client waits.
    Hung,
    /// A connection or a body that ended without an end, or was no HTTP or JSON.
    Broken,
    /// An unknown error code, or none.
    Untyped,
    /// A refusal without Retry-After.
    NoRetryAfter,
    /// A poison prompt that ended otherwise.
    PoisonServed,
}

#[derive(Clone, Debug)]
pub enum Ended {
    Complete,
    /// The client left, as it had decided to.
    Disconnected,
    /// 429 with Retry-After.
    OverCapacity,
    /// The run of a client that stopped reading was ended and the client was told.
    SlowReader,
    /// A poison prompt, refused as such.
    Poison,
    /// A run of a handle, with its whole answer.
    RunComplete,
    /// A run of a handle, with an error that says why.
    RunLost(String),
    /// Another typed error.
    Failed(String),
    Finding(Fault, String),
}

impl Ended {
    /// Of a request that should have been answered.
    pub fn of_error(code: &str, body: &str) -> Self {
        if KNOWN_CODES.contains(&code) {
            Self::Failed(code.to_owned())
        } else {
            Self::Finding(Fault::Untyped, body.to_owned())
        }
    }
}

/// A pause between two tokens of a stream, as its client saw it.
#[derive(Clone, Copy)]
pub struct Pause {
    pub from: Moment,
    pub to: Moment,
}

/// A request that was served, for what the log tells about it later.
pub struct Served {
    /// The daemon's name for it; `None` when no byte named it.
    pub id: Option<String>,
    pub streamed: bool,
    /// Text of the answer was seen, first and last then.
    pub text_seen: Option<(Moment, Moment)>,
    pub pauses: Vec<Pause>,
    /// As the answer tells it.
    pub resumptions: u64,
    pub ended: Ended,
}

/// All requests of a crowd.
#[derive(Default)]
pub struct Tally {
    pub started: u64,
    pub served: Vec<Served>,
}

impl Tally {
    pub fn merge(&mut self, other: Self) {
        self.started += other.started;
        self.served.extend(other.served);
    }

    pub fn count(&self, of: impl Fn(&Ended) -> bool) -> usize {
        self.served.iter().filter(|one| of(&one.ended)).count()
    }

    /// Ends by name.
    pub fn by_name(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for one in &self.served {
            let name = match &one.ended {
                Ended::Complete => "complete".to_owned(),
                Ended::Disconnected => "disconnected".to_owned(),
                Ended::OverCapacity => "over_capacity".to_owned(),
                Ended::SlowReader => "slow_reader".to_owned(),
                Ended::Poison => "poison".to_owned(),
                Ended::RunComplete => "handle_run".to_owned(),
                Ended::RunLost(code) => format!("handle_run {code}"),
                Ended::Failed(code) => format!("error {code}"),
                Ended::Finding(fault, _) => format!("FINDING {fault:?}"),
            };
            *counts.entry(name).or_default() += 1;
        }
        counts
    }

    pub fn findings(&self) -> impl Iterator<Item = (Fault, &str)> {
        self.served.iter().filter_map(|one| match &one.ended {
            Ended::Finding(fault, what) => Some((*fault, what.as_str())),
            _ => None,
        })
    }
}
