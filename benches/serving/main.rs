//! `make bench`: what the README says about speed, measured in one run on the real daemon. Nothing
//! is compared with a figure of another run or machine, and nothing that is compared runs at the
//! same time. The exit code is 1 when a target is missed and 2 when something could not be measured.

#[path = "../../tests/daemon_support/mod.rs"]
mod daemon_support;

mod bare_loop;
mod cancellation;
mod cpu_time;
mod event_counter;
mod interruption;
mod kept_connection;
mod overhead;
mod report;
mod startup;
mod statistics;
mod token_rate;

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use interruption::Ending;
use report::Report;

fn main() -> ExitCode {
    let (endings, ending) = mpsc::channel();
    // First of all, so that no child is started before there is somebody to end it.
    interruption::watch_signals(endings.clone());
    let measuring = thread::spawn(move || {
        let report = thread::spawn(measure).join().ok();
        // Nobody listens any more after an interruption.
        let _ = endings.send(report.map_or(Ending::Failed, Ending::Measured));
    });
    let ending = interruption::wait(&ending);
    interruption::end_children(&measuring);
    match ending {
        Ending::Measured(report) => {
            report.print();
            if report.missed().is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(1)
            }
        }
        Ending::Failed => ExitCode::from(2),
        Ending::TimedOut => {
            eprintln!("gave up after {:?}", interruption::LIMIT);
            ExitCode::from(2)
        }
        Ending::Signal(number) => ExitCode::from(128 + number),
    }
}

fn measure() -> Report {
    let mut report = Report::new();
    startup::measure(&mut report);
    overhead::measure(&mut report);
    cancellation::measure(&mut report);
    token_rate::measure(&mut report);
    report
}
