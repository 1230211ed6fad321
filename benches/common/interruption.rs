//! The frame of a program that measures: however it ends, its children end with it. A failure unwinds and drops the daemons;
//! what unwinding cannot reach, a signal or a measurement that hangs, is answered here by killing
//! every child of this process, after which the measuring thread fails by itself and cleans up.

use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::daemon_support::children;
use crate::report::Report;

/// Time for the measuring thread to fail once its daemons are gone.
const UNWINDING: Duration = Duration::from_secs(5);

/// Measures, prints the report, and gives the exit code: 1 when a target is missed, 2 when something
/// could not be measured, `limit` among the reasons.
pub fn run(limit: Duration, measure: impl FnOnce() -> Report + Send + 'static) -> ExitCode {
    let (endings, ending) = mpsc::channel();
    // First of all, so that no child is started before there is something to end it.
    watch_signals(endings.clone());
    let measuring = thread::spawn(move || {
        let report = thread::spawn(measure).join().ok();
        // After an interruption nothing listens any more.
        let _ = endings.send(report.map_or(Ending::Failed, Ending::Measured));
    });
    let ending = wait(&ending, limit);
    end_children(&measuring);
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
            eprintln!("gave up after {limit:?}");
            ExitCode::from(2)
        }
        Ending::Signal(number) => ExitCode::from(128 + number),
    }
}

/// How the measuring ended.
enum Ending {
    Measured(Report),
    /// The measuring thread has said why.
    Failed,
    TimedOut,
    Signal(u8),
}

/// Reports the first signal that asks this process to end.
fn watch_signals(endings: Sender<Ending>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for signals");
    let (mut interrupt, mut terminate, mut hang_up) = {
        let _inside = runtime.enter();
        let listen = |kind| signal(kind).expect("a signal handler");
        (
            listen(SignalKind::interrupt()),
            listen(SignalKind::terminate()),
            listen(SignalKind::hangup()),
        )
    };
    thread::spawn(move || {
        let number = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => Signal::INT,
                _ = terminate.recv() => Signal::TERM,
                _ = hang_up.recv() => Signal::HUP,
            }
        });
        let number = u8::try_from(number.as_raw()).expect("a small number");
        let _ = endings.send(Ending::Signal(number));
    });
}

fn wait(endings: &Receiver<Ending>, limit: Duration) -> Ending {
    match endings.recv_timeout(limit) {
        Ok(ending) => ending,
        Err(RecvTimeoutError::Timeout) => Ending::TimedOut,
        Err(RecvTimeoutError::Disconnected) => Ending::Failed,
    }
}

/// Kills children until the measuring thread has ended, which it may have done already.
fn end_children(measuring: &JoinHandle<()>) {
    let until = Instant::now() + UNWINDING;
    loop {
        for child in children(std::process::id()) {
            let child = i32::try_from(child).ok().and_then(Pid::from_raw);
            // One that has been reaped in the meantime is an error, and what was wanted.
            let _ = kill_process(child.expect("a process id"), Signal::KILL);
        }
        if measuring.is_finished() || Instant::now() >= until {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
