//! `make bench`: what the README says about speed, measured in one run on the real daemon. Nothing
//! is compared with a figure of another run or machine, and nothing that is compared runs at the
//! same time. The exit code is 1 when a target is missed and 2 when something could not be measured.

#[path = "../../tests/daemon_support/mod.rs"]
mod daemon_support;

#[path = "../common/bare_loop.rs"]
mod bare_loop;
mod batching;
mod cancellation;
mod cpu_time;
mod event_counter;
#[path = "../common/interruption.rs"]
mod interruption;
mod kept_connection;
mod overhead;
#[path = "../common/report.rs"]
mod report;
#[path = "../../tests/rpc_support/mod.rs"]
mod rpc_support;
mod startup;
#[path = "../common/statistics.rs"]
mod statistics;
mod tensor_worker;
mod tensors;
mod token_rate;

use std::process::ExitCode;
use std::time::Duration;

use report::Report;

/// Several times what the benchmark takes.
const LIMIT: Duration = Duration::from_secs(10 * 60);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(tensor_worker::ARGUMENT) {
        return tensor_worker::work(arguments);
    }
    interruption::run(LIMIT, measure)
}

fn measure() -> Report {
    let mut report = Report::new();
    startup::measure(&mut report);
    overhead::measure(&mut report);
    cancellation::measure(&mut report);
    token_rate::measure(&mut report);
    batching::measure(&mut report);
    tensors::measure(&mut report);
    report
}
