//! The child process: one runtime library, one model, one run at a time in each of its slots. No tokio,
//! no HTTP. A slot is a handle of the library, or a sequence of the only one; all handles are of the same model.
//!
//! ```text
//!  socket ─► reader ──┐                       ┌─► NPU thread      every call but the next three
//!                     ├─► main: times all ────┤     one of each a slot
//!  NPU, control ──────┘   under deadlines     └─► control thread  abort, is_running, KV size
//!  NPU callback ─► the run's credit ─► event queue ─► writer ─► socket
//! ```
//!
//! A thread that hangs in the library cannot be stopped, only left behind: so main never calls the
//! library, and when a call on an NPU thread passes its deadline it says so and ends the whole
//! process. A control call that hangs only taints the worker: the runs go on, the next one is
//! another worker's.

mod active_run;
mod c_stdio;
mod company;
mod constrained;
mod control_calls;
mod control_thread;
mod credit;
mod event_writer;
mod known_shape;
mod library;
mod library_call;
mod model;
mod npu_thread;
mod prepared_input;
mod prompt_count;
mod raw_run;
mod raw_sink;
mod redraw;
mod run_progress;
mod seat;
mod self_test;
mod size_in_run;
mod slot;
mod slot_events;
mod timing;
mod token_agreement;
mod token_sink;
mod utf8_assembly;
mod walls;
mod worker_state;

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use crate::children::{ChildArguments, ChildLink, process_setup};
use crate::ipc::{Command, Event, PROTOCOL_VERSION};
use crate::short_slice;
use event_writer::EventWriter;
pub use self_test::run as self_test;
use worker_state::{Note, WorkerState};

/// Runs a worker until it is unloaded, its daemon goes away or a call hangs.
pub fn run(arguments: ChildArguments) -> ExitCode {
    match start(arguments) {
        Ok(state) => state.run(),
        Err(error) => {
            eprintln!("E rkllmd-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: ChildArguments) -> anyhow::Result<WorkerState> {
    let socket = process_setup::prepare(arguments, c"rkllmd-worker")?;
    c_stdio::make_line_buffered();
    let mut link = ChildLink::new(socket);
    let theirs = link.daemons_hello()?;
    link.send(&Event::Hello {
        protocol: PROTOCOL_VERSION,
    })?;
    theirs?;
    let Some(first) = link.receive::<Command>()? else {
        // Nothing was wanted of it after all.
        process_setup::exit_now(0)
    };
    // Each thread that is started from here on is confined as this one is.
    walls::give_up_for(&first, link.writer()?)?;
    let events = EventWriter::start(link.writer()?)?;
    let (notes, inbox) = mpsc::channel();
    let commands = notes.clone();
    // Received before the thread below begins.
    let _ = notes.send(Note::Command(first));
    thread::Builder::new()
        .name("reader".to_owned())
        .spawn(move || read_commands(link, &commands))?;
    Ok(WorkerState::new(notes, inbox, events))
}

fn read_commands(mut link: ChildLink, notes: &mpsc::Sender<Note>) {
    short_slice::ask();
    loop {
        let note = match link.receive::<Command>() {
            Ok(Some(command)) => Note::Command(command),
            Ok(None) | Err(_) => Note::DaemonGone,
        };
        let last = matches!(note, Note::DaemonGone);
        if notes.send(note).is_err() || last {
            return;
        }
    }
}
