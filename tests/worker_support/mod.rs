//! A worker process without a daemon: driven by hand over its socket, killed when the test ends.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use rkllmd::generation::SamplingRequest;
use rkllmd::ipc::{
    BegunAnswer, Command, DaemonHello, Event, FrameReader, Handles, LoadDeadline, LoadSpec,
    PROTOCOL_VERSION, RequestHandles, RunEnd, RunSpec, SlotCommand, SlotEvent, WorkerDeadlines,
    encode,
};
use rkllmd::library_calls::ModelShape;
use rustix::process::{Pid, Signal};

use crate::daemon_support::{PATIENCE, fake_runtime};

const HEARTBEAT: Duration = Duration::from_millis(100);
/// Nothing that is expected takes this long, nothing that is not may come within it.
pub const QUIET: Duration = Duration::from_millis(500);

pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn deadlines() -> WorkerDeadlines {
    WorkerDeadlines {
        library_open: PATIENCE,
        load: LoadDeadline {
            granted: PATIENCE,
            stall: PATIENCE,
            longest: PATIENCE,
        },
        prefill_base: PATIENCE,
        prefill_per_token: ms(1),
        inter_token: PATIENCE,
        control_call: PATIENCE,
        abort_to_finish: PATIENCE,
        unload: PATIENCE,
        heartbeat: HEARTBEAT,
    }
}

pub struct Worker {
    process: Child,
    socket: UnixStream,
    frames: FrameReader,
    folder: tempfile::TempDir,
    pub library: PathBuf,
    /// Runs come with the prompt's tokens, a word a token.
    counts: bool,
}

impl Worker {
    /// A worker that has greeted, for a model that is `scenario`.
    pub fn start(family: &str, scenario: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("model.rkllm"), scenario).expect("the model");
        let (socket, theirs) = UnixStream::pair().expect("a socket pair");
        let process = Program::new(env!("CARGO_BIN_EXE_rkllmd"))
            .args(["worker", "--parent-pid", &std::process::id().to_string()])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .expect("a worker process");
        let mut worker = Self {
            process,
            socket,
            frames: FrameReader::default(),
            folder,
            library: fake_runtime(family),
            counts: false,
        };
        let protocol = PROTOCOL_VERSION;
        let mut hello = Vec::new();
        encode(&DaemonHello { protocol }, &mut hello).expect("a frame");
        worker.socket.write_all(&hello).expect("a listening worker");
        assert_eq!(worker.next(), Event::Hello { protocol });
        worker
    }

    pub fn loaded(family: &str, scenario: &str, deadlines: WorkerDeadlines) -> Self {
        let mut worker = Self::start(family, scenario);
        worker.load(deadlines, false);
        while !matches!(worker.next(), Event::Loaded { .. }) {}
        worker
    }

    pub fn load(&mut self, deadlines: WorkerDeadlines, with_tokenizer: bool) {
        self.counts = with_tokenizer;
        self.load_slots(1, deadlines);
    }

    pub fn load_slots(&mut self, slots: u8, deadlines: WorkerDeadlines) {
        self.load_sharing(slots, None, deadlines);
    }

    /// Slots that share room for so many tokens.
    pub fn load_sharing(&mut self, slots: u8, pool: Option<u32>, deadlines: WorkerDeadlines) {
        self.load_handles(
            RequestHandles {
                count: slots,
                pool_tokens: pool,
                ..RequestHandles::default()
            },
            deadlines,
        );
    }

    /// Slots that are sequences of one handle.
    pub fn load_batch(&mut self, sequences: u8, deadlines: WorkerDeadlines) {
        self.load_handles(
            RequestHandles {
                count: sequences,
                is_batch: true,
                ..RequestHandles::default()
            },
            deadlines,
        );
    }

    /// Runs come with the prompt's tokens.
    pub fn count_words(&mut self) {
        self.counts = true;
    }

    fn load_handles(&mut self, handles: RequestHandles, deadlines: WorkerDeadlines) {
        self.send(Command::Load(Box::new(LoadSpec {
            library: self.library.clone(),
            assume_family: None,
            model: self.folder.path().join("model.rkllm"),
            shape: ModelShape::default(),
            handles: Handles::OfRequests(Box::new(RequestHandles {
                context_length: 64,
                eos_ids: vec![2],
                ..handles
            })),
            deadlines,
            walls: None,
        })));
    }

    /// Its own, until the test ends.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn send(&mut self, command: Command) {
        let mut frame = Vec::new();
        encode(&command, &mut frame).expect("a frame");
        self.socket.write_all(&frame).expect("a listening worker");
    }

    /// Gives a command to the first slot.
    pub fn ask(&mut self, command: SlotCommand) {
        self.ask_slot(0, command);
    }

    pub fn ask_slot(&mut self, slot: u8, command: SlotCommand) {
        self.send(Command::Slot { slot, command });
    }

    pub fn run(&mut self, run: u64, prompt: &str, begun: Option<BegunAnswer>) {
        let spec = self.spec(run, prompt, begun);
        self.ask(SlotCommand::Run(Box::new(spec)));
    }

    /// A run with any credit.
    pub fn spec(&self, run: u64, prompt: &str, begun: Option<BegunAnswer>) -> RunSpec {
        RunSpec {
            run,
            prompt: prompt.to_owned(),
            prompt_tokens: self.counts.then(|| {
                let words = prompt.split_whitespace();
                (10..).zip(words).map(|(id, _)| id).collect()
            }),
            begun,
            draws: Default::default(),
            constraint: None,
            adapter: None,
            redraws: None,
            vocabulary: None,
            sampling: SamplingRequest::default(),
            max_new_tokens: None,
            prefill_per_token: ms(1),
            credit: u32::MAX,
            save: None,
        }
    }

    /// The next event, if one comes within `limit`.
    pub fn next_within(&mut self, limit: Duration) -> Option<Event> {
        let until = Instant::now() + limit;
        let mut chunk = [0; 4096];
        loop {
            if let Some(event) = self.frames.next_message().expect("a frame") {
                return Some(event);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).expect("a timeout");
            match self.socket.read(&mut chunk) {
                Ok(0) => panic!("the worker closed its connection"),
                Ok(count) => self.frames.buffer().extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("reading from the worker: {error}"),
            }
        }
    }

    pub fn next(&mut self) -> Event {
        self.next_within(PATIENCE).expect("an event in time")
    }

    /// Everything up to the end of the run, and the end.
    pub fn until_end(&mut self) -> (Vec<Event>, RunEnd) {
        let mut events = Vec::new();
        loop {
            match self.next() {
                Event::Slot {
                    event: SlotEvent::RunEnded(end),
                    ..
                } => return (events, *end),
                event => events.push(event),
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).expect("a process id");
        rustix::process::kill_process(Pid::from_raw(pid).expect("not zero"), signal)
            .expect("a living worker");
    }

    pub fn is_alive(&mut self) -> bool {
        self.process.try_wait().expect("a status").is_none()
    }

    /// Waits for its end; `None`: by a signal.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.process.wait().expect("an exit status").code()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn text_of(events: &[Event]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        Event::Slot {
            event: SlotEvent::Token { text, .. },
            ..
        } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

pub fn heartbeats(events: &[Event]) -> usize {
    let beats = events.iter().filter(|event| **event == Event::Heartbeat);
    beats.count()
}

pub fn of_first_slot(event: SlotEvent) -> Event {
    Event::Slot { slot: 0, event }
}
