//! `make bench-peers`: the daemon beside llama.cpp's own server, on one model file and with the same
//! numbers of threads, slots and tokens. The two are asked in turns and never at once; a figure is the
//! median of pairs, and a promise is missed only if the interval that the median lies in with 90 %
//! confidence lies on the wrong side of it.

#[path = "../../tests/daemon_support/mod.rs"]
mod daemon_support;

#[path = "../common/burned_core.rs"]
mod burned_core;
mod clients;
mod conversations;
mod crowd;
#[path = "../common/interruption.rs"]
mod interruption;
#[path = "../common/intervals.rs"]
mod intervals;
mod llama_cpp_python;
mod llama_server;
mod memory;
mod neighbour;
mod pairs;
#[path = "../common/peak_memory.rs"]
mod peak_memory;
mod prefill;
mod probabilities;
#[path = "../common/report.rs"]
mod report;
mod served;
#[path = "../common/statistics.rs"]
mod statistics;
mod unread;

use std::process::ExitCode;
use std::time::Duration;

use report::Report;

/// Several times what the benchmark takes.
const LIMIT: Duration = Duration::from_secs(120 * 60);

/// A part of the benchmark: what the command line calls it, and what measures it.
type Part = (&'static str, fn(&mut Report));

const PARTS: [Part; 7] = [
    ("clients", clients::measure),
    ("memory", memory::measure),
    ("prefill", prefill::measure),
    ("unread", unread::measure),
    ("conversations", conversations::measure),
    ("neighbour", neighbour::measure),
    ("probabilities", probabilities::measure),
];

fn main() -> ExitCode {
    // Cargo adds `--bench` of its own.
    let names: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let unknown = names
        .iter()
        .find(|name| PARTS.iter().all(|(part, _)| part != name));
    if let Some(unknown) = unknown {
        let known = PARTS.map(|(part, _)| part).join(", ");
        eprintln!("no part is called {unknown:?}; the parts are {known}");
        return ExitCode::from(2);
    }
    let is_wanted = move |part: &str| names.is_empty() || names.iter().any(|name| name == part);
    // Told before an hour has gone by.
    if is_wanted("probabilities")
        && let Some(missing) = llama_cpp_python::missing()
    {
        eprintln!("{missing}");
        return ExitCode::from(2);
    }
    interruption::run(LIMIT, move || {
        let mut report = Report::new();
        llama_server::describe(&mut report);
        for (part, measure) in PARTS {
            if is_wanted(part) {
                measure(&mut report);
            }
        }
        report
    })
}
