//! A worker process without a daemon: driven by hand over its socket, killed when the test ends.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use rkllmd::generation::SamplingRequest;
use rkllmd::ipc::{
    BegunAnswer, Command, DaemonHello, Event, FrameReader, LoadDeadline, LoadSpec,
    PROTOCOL_VERSION, RunEnd, RunSpec, WorkerDeadlines, encode,
};
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
    family: &'static str,
}

impl Worker {
    /// A worker that has greeted, for a model that is `scenario`.
    pub fn start(family: &'static str, scenario: &str) -> Self {
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
            family,
        };
        let protocol = PROTOCOL_VERSION;
        let mut hello = Vec::new();
        encode(&DaemonHello { protocol }, &mut hello).expect("a frame");
        worker.socket.write_all(&hello).expect("a listening worker");
        assert_eq!(worker.next(), Event::Hello { protocol });
        worker
    }

    pub fn loaded(family: &'static str, scenario: &str, deadlines: WorkerDeadlines) -> Self {
        let mut worker = Self::start(family, scenario);
        worker.load(deadlines, false);
        while !matches!(worker.next(), Event::Loaded { .. }) {}
        worker
    }

    pub fn load(&mut self, deadlines: WorkerDeadlines, with_tokenizer: bool) {
        let tokenizer_json = with_tokenizer.then(|| {
            let path = self.folder.path().join("tokenizer.json");
            fs::write(&path, TOKENIZER).expect("the tokenizer");
            path
        });
        self.send(Command::Load(Box::new(LoadSpec {
            library: fake_runtime(self.family),
            assume_family: None,
            model: self.folder.path().join("model.rkllm"),
            context_length: 64,
            max_new_tokens: None,
            sampling: SamplingRequest::default(),
            cpu_mask: None,
            base_domain_id: None,
            eos_ids: vec![2],
            tokenizer_json,
            raw: None,
            deadlines,
        })));
    }

    pub fn send(&mut self, command: Command) {
        let mut frame = Vec::new();
        encode(&command, &mut frame).expect("a frame");
        self.socket.write_all(&frame).expect("a listening worker");
    }

    pub fn run(&mut self, run: u64, prompt: &str, begun: Option<BegunAnswer>) {
        self.send(Command::Run(Box::new(RunSpec {
            run,
            prompt: prompt.to_owned(),
            begun,
            sampling: SamplingRequest::default(),
            max_new_tokens: None,
            prefill_per_token: ms(1),
        })));
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
                Event::RunEnded(end) => return (events, *end),
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

/// A token a word, as the fake runtime counts them.
const TOKENIZER: &str = r#"{
    "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
    "post_processor": null, "decoder": null,
    "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "one": 11, "two": 12}, "unk_token": "[UNK]"}
}"#;

pub fn text_of(events: &[Event]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        Event::Token { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

pub fn heartbeats(events: &[Event]) -> usize {
    let beats = events.iter().filter(|event| **event == Event::Heartbeat);
    beats.count()
}
