//! Streams whose worker died while they were being told something: what became of them, and how long
//! their readers waited for the next token, as the readers saw it.

use std::collections::HashMap;

use crate::log_watch::{Exit, Load, LogWatch};
use crate::outcome::{Ended, Served, Tally};

/// The error code of a request that was being served at two deaths that may be its fault, and whose model
/// serves others.
pub const POISON_CODE: &str = "poison_request";
/// How a request ends after two such deaths: it is to blame, its model is, or the probe that would have
/// told them apart was ended by something else.
const ENDS_AT_SECOND_FAULT: [&str; 3] = [POISON_CODE, "model_failed", "worker_died"];
const POISON_FAULTS: usize = 2;

#[derive(Default)]
pub struct Deaths {
    /// Streams of text that had begun when their worker died, each once.
    pub streams: usize,
    /// Those of them that ended complete …
    pub complete: usize,
    /// … or because they were being served at two deaths that may be their fault …
    pub poisoned: usize,
    /// … or as their reader wished, who left or did not read.
    pub readers_gone: usize,
    /// From each worker's logged exit to the next token at the reader.
    pub gaps_ms: Vec<f64>,
    /// Likewise without the time that the next worker took to start and load.
    pub beyond_load_ms: Vec<f64>,
    /// Ordinary requests given up with two deaths in the log that may be their fault, which excuses
    /// them …
    pub rightly_poisoned: usize,
    /// … and those called poison without.
    pub wrongly_poisoned: Vec<String>,
    /// Resumptions that complete answers told of, streamed or not.
    pub resumptions_told: u64,
}

impl Deaths {
    pub fn of(tally: &Tally, log: &LogWatch) -> Self {
        let mut deaths = Self::default();
        let mut exits_by_request: HashMap<String, Vec<Exit>> = HashMap::new();
        for exit in log.exits() {
            if let Some(request) = exit.request.clone() {
                exits_by_request.entry(request).or_default().push(exit);
            }
        }
        let loads = log.loads();
        for served in &tally.served {
            deaths.resumptions_told += served.resumptions;
            let exits = served
                .id
                .as_ref()
                .and_then(|id| exits_by_request.get(id))
                .map_or(&[][..], Vec::as_slice);
            deaths.take(served, exits, &loads);
        }
        deaths
    }

    fn take(&mut self, served: &Served, exits: &[Exit], loads: &[Load]) {
        let code = match &served.ended {
            Ended::Failed(code) => Some(code.as_str()),
            _ => None,
        };
        let refused = code == Some(POISON_CODE);
        let given_up = code.is_some_and(|code| ENDS_AT_SECOND_FAULT.contains(&code));
        let faults = exits.iter().filter(|exit| exit.is_fault()).count();
        let poisoned = given_up && faults >= POISON_FAULTS;
        if poisoned {
            self.rightly_poisoned += 1;
        } else if refused {
            let id = served.id.as_deref().unwrap_or("a request");
            let deaths = exits.len();
            self.wrongly_poisoned
                .push(format!("{id}, {deaths} deaths, {faults} maybe its fault"));
        }
        let Some((first, last)) = served.text_seen.filter(|_| served.streamed) else {
            return;
        };
        let complete = matches!(served.ended, Ended::Complete);
        let midway: Vec<&Exit> = exits
            .iter()
            .filter(|exit| exit.at > first && !(complete && exit.at > last))
            .collect();
        if midway.is_empty() {
            return;
        }
        self.streams += 1;
        self.complete += usize::from(complete);
        self.poisoned += usize::from(poisoned);
        self.readers_gone += usize::from(matches!(
            served.ended,
            Ended::Disconnected | Ended::SlowReader
        ));
        for exit in midway {
            self.measure(served, exit, loads);
        }
    }

    fn measure(&mut self, served: &Served, exit: &Exit, loads: &[Load]) {
        let next_load = loads
            .iter()
            .find(|load| load.at >= exit.at && load.model == exit.model);
        let Some(load) = next_load else {
            return;
        };
        // What was on its way when the worker died comes before the load of the next.
        let next = served.pauses.iter().find(|pause| pause.to >= load.at);
        if let Some(next) = next.filter(|pause| pause.from <= load.at) {
            let gap = next.to.ms_since(exit.at);
            self.gaps_ms.push(gap);
            self.beyond_load_ms.push((gap - load.took_ms).max(0.0));
        }
    }
}
