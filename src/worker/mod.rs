//! The child process: one runtime library, one model, one run at a time. No tokio, no HTTP.
//!
//! ```text
//!  socket ─► reader ──┐                        ┌─► NPU thread      every call but the next three
//!                     ├─► main: times both ────┤
//!  NPU, control ──────┘   under deadlines      └─► control thread  abort, is_running, KV size
//!  NPU callback ─► event queue ─► writer ─► socket
//! ```
//!
//! A thread that hangs in the library cannot be stopped, only left behind: so main never calls the
//! library, and when a call on the NPU thread passes its deadline it says so and ends the whole
//! process. A control call that hangs only taints the worker: the run goes on, the next one is
//! another worker's.

mod active_run;
mod c_stdio;
mod control_calls;
mod control_thread;
mod event_writer;
mod library_call;
mod model;
mod npu_thread;
mod prepared_input;
mod process_setup;
mod prompt_count;
mod raw_run;
mod raw_sink;
mod run_progress;
mod session;
mod timing;
mod token_sink;
mod tokenizer;
mod utf8_assembly;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use crate::ipc::{Command, DaemonHello, Event, FrameReader, PROTOCOL_VERSION};
use event_writer::EventWriter;
use session::{Note, Session};

/// What the daemon tells a worker on its command line.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct WorkerArguments {
    /// The process that must be our parent.
    #[arg(long)]
    parent_pid: u32,
    /// Allow core dumps.
    #[arg(long)]
    core_dumps: bool,
}

/// Runs a worker until it is unloaded, its daemon goes away or a call hangs.
pub fn run(arguments: WorkerArguments) -> ExitCode {
    match start(arguments) {
        Ok(session) => session.run(),
        Err(error) => {
            eprintln!("E rkllmd-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: WorkerArguments) -> anyhow::Result<Session> {
    let mut socket = process_setup::prepare(arguments.parent_pid, arguments.core_dumps)?;
    let mut frames = FrameReader::default();
    let Some(hello) = receive::<DaemonHello>(&mut socket, &mut frames)? else {
        anyhow::bail!("the daemon closed the connection before its hello");
    };
    let events = EventWriter::start(socket.try_clone()?)?;
    events.send(Event::Hello {
        protocol: PROTOCOL_VERSION,
    });
    if hello.protocol != PROTOCOL_VERSION {
        events.flush();
        anyhow::bail!(
            "the daemon speaks protocol {}, this worker {PROTOCOL_VERSION}",
            hello.protocol
        );
    }
    let (notes, inbox) = mpsc::channel();
    let commands = notes.clone();
    thread::Builder::new()
        .name("reader".to_owned())
        .spawn(move || read_commands(socket, frames, &commands))?;
    Session::new(notes, inbox, events)
}

fn read_commands(mut socket: UnixStream, mut frames: FrameReader, notes: &mpsc::Sender<Note>) {
    loop {
        let note = match receive::<Command>(&mut socket, &mut frames) {
            Ok(Some(command)) => Note::Command(command),
            Ok(None) | Err(_) => Note::DaemonGone,
        };
        let last = matches!(note, Note::DaemonGone);
        if notes.send(note).is_err() || last {
            return;
        }
    }
}

/// Blocks until a whole message has arrived; `None` at the end of the stream.
fn receive<T: serde::de::DeserializeOwned>(
    socket: &mut UnixStream,
    frames: &mut FrameReader,
) -> anyhow::Result<Option<T>> {
    let mut chunk = [0; 16 * 1024];
    loop {
        if let Some(message) = frames.next_message()? {
            return Ok(Some(message));
        }
        match socket.read(&mut chunk) {
            Ok(0) => return Ok(None),
            Ok(count) => frames.buffer().extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
