//! `make bench`: what docs/benchmarks.md says about speed, measured in one run on the real daemon. Nothing
//! is compared with a figure of another run or machine, and nothing that is compared runs at the
//! same time. The exit code is 1 when a target is missed and 2 when something could not be measured.

#[path = "../../tests/daemon_support/mod.rs"]
mod daemon_support;

#[path = "../common/bare_loop.rs"]
mod bare_loop;
mod bare_steps;
mod batching;
mod beside_a_stream;
#[allow(dead_code, reason = "of boards one is made here")]
#[path = "../../tests/documents/board_support.rs"]
mod board_support;
#[path = "../common/burned_core.rs"]
mod burned_core;
mod cancellation;
mod compiling;
mod cpu_time;
mod dialects;
mod event_counter;
mod formats;
mod growth;
#[path = "../../tests/hub_support/mod.rs"]
mod hub_support;
mod idle;
#[path = "../common/interruption.rs"]
mod interruption;
#[path = "../common/intervals.rs"]
mod intervals;
#[path = "../../tests/json_judge/mod.rs"]
mod json_judge;
mod kept_connection;
mod neighbour;
mod overhead;
#[path = "../common/peak_memory.rs"]
mod peak_memory;
mod pulls;
mod readers;
mod redraws;
mod rendering;
#[path = "../common/report.rs"]
mod report;
#[path = "../../tests/rpc_support/mod.rs"]
mod rpc_support;
#[path = "../../tests/schema_support/mod.rs"]
mod schema_support;
mod startup;
#[path = "../common/statistics.rs"]
mod statistics;
mod tensor_worker;
mod tensors;
mod token_rate;
#[path = "../../tests/daemon/tokenizers_of_gguf.rs"]
mod tokenizers_of_gguf;

use std::process::ExitCode;
use std::time::Duration;

use report::Report;

/// Several times what the benchmark takes, and what is added to it by who asks for a longer rest.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// A part of the benchmark: what the command line calls it, and what measures it.
type Part = (&'static str, fn(&mut Report));

const PARTS: [Part; 17] = [
    ("startup", startup::measure),
    ("idle", idle::measure),
    ("overhead", overhead::measure),
    ("rendering", rendering::measure),
    ("readers", readers::measure),
    ("cancellation", cancellation::measure),
    ("neighbour", neighbour::measure),
    ("token-rate", token_rate::measure),
    ("dialects", dialects::measure),
    ("batching", batching::measure),
    ("formats", formats::measure),
    ("calls", formats::calls),
    ("compiling", compiling::measure),
    ("redraws", redraws::measure),
    ("pulls", pulls::measure),
    ("tensors", tensors::measure),
    ("growth", growth::measure),
];

fn main() -> ExitCode {
    // Cargo adds `--bench` of its own.
    let mut arguments = std::env::args().skip(1).filter(|word| word != "--bench");
    let first = arguments.next();
    if first.as_deref() == Some(tensor_worker::ARGUMENT) {
        return tensor_worker::work(arguments);
    }
    match chosen(first.into_iter().chain(arguments)) {
        Ok(parts) => interruption::run(LIMIT, move || measure(&parts)),
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

/// The parts that the command line names, in the order they are measured in; all when it names none.
fn chosen(names: impl Iterator<Item = String>) -> Result<Vec<Part>, String> {
    let names: Vec<String> = names.collect();
    if let Some(unknown) = names
        .iter()
        .find(|name| PARTS.iter().all(|(part, _)| part != name))
    {
        let known = PARTS.map(|(part, _)| part).join(", ");
        return Err(format!(
            "no part is called {unknown:?}; the parts are {known}"
        ));
    }
    let wanted = |part: &str| names.is_empty() || names.iter().any(|name| name == part);
    Ok(PARTS.into_iter().filter(|(part, _)| wanted(part)).collect())
}

fn measure(parts: &[Part]) -> Report {
    let mut report = Report::new();
    for (_, measure) in parts {
        measure(&mut report);
    }
    report
}
