//! A worker process, driven as the daemon drives it but by hand: what it says while calls are in
//! progress, when one hangs, and how it takes over a begun answer.

mod daemon_support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use daemon_support::{FAMILIES_RUN, PATIENCE, fake_runtime};
use rkllmd::generation::{FinishReason, SamplingRequest};
use rkllmd::ipc::{
    AbortMode, BegunAnswer, Command, DaemonHello, EXIT_DEADLINE, Event, FrameReader, LoadDeadline,
    LoadSpec, PROTOCOL_VERSION, RunEnd, RunOutcome, RunSpec, TokenKind, WorkerDeadlines, encode,
};
use rustix::process::{Pid, Signal};

const HEARTBEAT: Duration = Duration::from_millis(100);
/// Nothing that is expected takes this long, nothing that is not may come within it.
const QUIET: Duration = Duration::from_millis(500);

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn deadlines() -> WorkerDeadlines {
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

struct Worker {
    process: Child,
    socket: UnixStream,
    frames: FrameReader,
    folder: tempfile::TempDir,
    family: &'static str,
}

impl Worker {
    /// A worker that has greeted, for a model that is `scenario`.
    fn start(family: &'static str, scenario: &str) -> Self {
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

    fn loaded(family: &'static str, scenario: &str, deadlines: WorkerDeadlines) -> Self {
        let mut worker = Self::start(family, scenario);
        worker.load(deadlines, false);
        while !matches!(worker.next(), Event::Loaded { .. }) {}
        worker
    }

    fn load(&mut self, deadlines: WorkerDeadlines, with_tokenizer: bool) {
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
            deadlines,
        })));
    }

    fn send(&mut self, command: Command) {
        let mut frame = Vec::new();
        encode(&command, &mut frame).expect("a frame");
        self.socket.write_all(&frame).expect("a listening worker");
    }

    fn run(&mut self, run: u64, prompt: &str, begun: Option<BegunAnswer>) {
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
    fn next_within(&mut self, limit: Duration) -> Option<Event> {
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

    fn next(&mut self) -> Event {
        self.next_within(PATIENCE).expect("an event in time")
    }

    /// Everything up to the end of the run, and the end.
    fn until_end(&mut self) -> (Vec<Event>, RunEnd) {
        let mut events = Vec::new();
        loop {
            match self.next() {
                Event::RunEnded(end) => return (events, *end),
                event => events.push(event),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).expect("a process id");
        rustix::process::kill_process(Pid::from_raw(pid).expect("not zero"), signal)
            .expect("a living worker");
    }

    fn exit_code(&mut self) -> Option<i32> {
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

fn text_of(events: &[Event]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        Event::Token { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

fn heartbeats(events: &[Event]) -> usize {
    let beats = events.iter().filter(|event| **event == Event::Heartbeat);
    beats.count()
}

#[test]
fn heartbeats_come_while_a_call_is_in_progress_and_only_then() {
    let scenario = "load-delay-ms = 1500\nprefill-delay-ms = 1500\ntokens = [\"a\", \"b\"]\ntoken-delay-us = 1500000\n";
    let mut worker = Worker::start("1_3_1", scenario);
    assert_eq!(worker.next_within(QUIET), None, "nothing is in progress");
    worker.load(deadlines(), false);
    let mut loading = Vec::new();
    while !matches!(loading.last(), Some(Event::Loaded { .. })) {
        loading.push(worker.next());
    }
    assert!(heartbeats(&loading) >= 5, "{loading:?}");
    assert_eq!(worker.next_within(QUIET), None, "nothing is in progress");

    worker.run(1, "x", None);
    let (events, _) = worker.until_end();
    let waits: Vec<_> = events
        .split(|event| matches!(event, Event::Token { .. }))
        .collect();
    assert_eq!(waits.len(), 3, "{events:?}");
    assert!(heartbeats(waits[0]) >= 5, "in prefill: {events:?}");
    assert!(heartbeats(waits[1]) >= 5, "between tokens: {events:?}");
    assert_eq!(worker.next_within(QUIET), None, "nothing is in progress");
}

#[test]
fn a_stopped_worker_is_silent_and_goes_on_where_it_was() {
    let scenario = "prefill-delay-ms = 3000\ntokens = [\"fine\"]\n";
    let mut worker = Worker::loaded("1_3_1", scenario, deadlines());
    worker.run(1, "x", None);
    assert_eq!(worker.next(), Event::Heartbeat);
    worker.signal(Signal::STOP);
    // One may have been on its way.
    while worker.next_within(QUIET).is_some() {}
    assert_eq!(worker.next_within(QUIET), None);
    worker.signal(Signal::CONT);
    assert_eq!(worker.next(), Event::Heartbeat);
    let (events, end) = worker.until_end();
    assert_eq!(text_of(&events), "fine");
    assert!(!end.tainted);
}

#[test]
fn a_stream_in_flow_carries_no_heartbeat() {
    let scenario = "repeat = { token = \"w \", times = 50 }\ntoken-delay-us = 30000\n";
    let slow = WorkerDeadlines {
        heartbeat: ms(1000),
        ..deadlines()
    };
    let mut worker = Worker::loaded("1_3_1", scenario, slow);
    worker.run(1, "x", None);
    let (events, end) = worker.until_end();
    assert_eq!(end.generated_tokens, 50);
    assert_eq!(heartbeats(&events), 0, "{events:?}");
}

#[test]
fn a_load_without_progress_ends_after_the_time_it_is_granted() {
    let scenario = "[[fault]]\ncall = \"init\"\nkind = \"hang\"\n";
    let mut worker = Worker::start("1_3_1", scenario);
    let granted = ms(1500);
    let short = WorkerDeadlines {
        load: LoadDeadline {
            granted,
            stall: ms(200),
            longest: PATIENCE,
        },
        ..deadlines()
    };
    worker.load(short, false);
    let last = loop {
        match worker.next() {
            Event::Heartbeat | Event::LibraryOpened(_) => {}
            event => break event,
        }
    };
    let Event::DeadlinePassed {
        deadline,
        limit,
        call,
    } = last
    else {
        panic!("{last:?}");
    };
    assert_eq!((&*deadline, &*call), ("load", "rkllm_init"));
    // Opening the model file and the like may count as progress at the start.
    assert!(limit >= granted && limit < granted + ms(1000), "{limit:?}");
    assert_eq!(worker.exit_code(), Some(EXIT_DEADLINE));
}

#[test]
fn a_control_call_that_hangs_taints_the_worker_and_leaves_the_run_alone() {
    for family in FAMILIES_RUN {
        let scenario = "repeat = { token = \"w \", times = 40 }\ntoken-delay-us = 50000\n\
            [[fault]]\ncall = \"get_kv_cache_size\"\nkind = \"hang\"\n";
        let short = WorkerDeadlines {
            control_call: ms(500),
            ..deadlines()
        };
        let mut worker = Worker::loaded(family, scenario, short);
        worker.run(1, "x", None);
        let (events, end) = worker.until_end();
        let tainted: Vec<usize> = (0..events.len())
            .filter(|&at| matches!(events[at], Event::Tainted { .. }))
            .collect();
        assert_eq!(tainted.len(), 1, "{family}: {events:?}");
        assert_eq!(
            events[tainted[0]],
            Event::Tainted {
                deadline: "control-call".to_owned(),
                limit: ms(500),
                call: "rkllm_get_kv_cache_size".to_owned(),
            }
        );
        assert!(!text_of(&events[tainted[0]..]).is_empty(), "{family}");
        assert_eq!(text_of(&events), "w ".repeat(40), "{family}");
        assert_eq!(end.outcome, RunOutcome::Finished(FinishReason::Stop));
        assert!(end.tainted, "{family}");
        assert_eq!(end.prompt_tokens, None, "{family}");
        // It stays, quietly, until it is told to go.
        assert_eq!(worker.next_within(QUIET), None, "{family}");
        assert!(worker.process.try_wait().expect("a status").is_none());
        worker.send(Command::Unload);
        assert_eq!(worker.exit_code(), Some(0), "{family}");
    }
}

#[test]
fn a_run_that_has_returned_waits_no_longer_than_its_control_calls_deadline() {
    let scenario =
        "tokens = [\"fine\"]\n[[fault]]\ncall = \"get_kv_cache_size\"\nkind = \"hang\"\n";
    let short = WorkerDeadlines {
        control_call: ms(500),
        ..deadlines()
    };
    let mut worker = Worker::loaded("1_3_1", scenario, short);
    worker.run(1, "x", None);
    let (events, end) = worker.until_end();
    assert!(
        matches!(events.last(), Some(Event::Tainted { .. })),
        "{events:?}"
    );
    assert_eq!(end.outcome, RunOutcome::Finished(FinishReason::Stop));
    assert!(end.tainted);
}

#[test]
fn when_the_abort_call_hangs_the_callback_still_ends_the_run() {
    // The first abort comes while the prompt is read, from outside the callback.
    let scenario = "repeat = { token = \"w \", times = 1000 }\ntoken-delay-us = 20000\n\
        prefill-delay-ms = 2000\n[[fault]]\ncall = \"abort\"\noccasion = 1\nkind = \"hang\"\n";
    let short = WorkerDeadlines {
        control_call: ms(300),
        ..deadlines()
    };
    let mut worker = Worker::loaded("1_3_1", scenario, short);
    worker.run(1, "x", None);
    assert_eq!(worker.next(), Event::Heartbeat);
    worker.send(Command::Abort {
        run: 1,
        mode: AbortMode::AtOnce,
    });
    let (events, end) = worker.until_end();
    let calls: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Tainted { call, .. } => Some(call.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(calls, ["rkllm_abort"]);
    assert_eq!(end.outcome, RunOutcome::Aborted);
    assert_eq!((end.generated_tokens, end.tainted), (0, true));
}

#[test]
fn an_abort_that_does_nothing_ends_the_worker() {
    for family in FAMILIES_RUN {
        let scenario = "repeat = { token = \"w \", times = 100000 }\ntoken-delay-us = 20000\n\
            eos-token-id = 3\neos-ignored = true\n\
            [[fault]]\ncall = \"abort\"\nkind = \"fail\"\ncode = 0\n";
        let short = WorkerDeadlines {
            abort_to_finish: ms(1000),
            ..deadlines()
        };
        let mut worker = Worker::loaded(family, scenario, short);
        worker.run(1, "x", None);
        while !matches!(worker.next(), Event::Token { .. }) {}
        worker.send(Command::Abort {
            run: 1,
            mode: AbortMode::BetweenTokens,
        });
        let passed = loop {
            match worker.next() {
                Event::Heartbeat | Event::Token { .. } => {}
                event => break event,
            }
        };
        assert_eq!(
            passed,
            Event::DeadlinePassed {
                deadline: "abort-to-finish".to_owned(),
                limit: ms(1000),
                call: "rkllm_run".to_owned(),
            },
            "{family}"
        );
        assert_eq!(worker.exit_code(), Some(EXIT_DEADLINE), "{family}");
    }
}

#[test]
fn a_run_that_failed_taints_the_worker_and_one_that_was_refused_does_not() {
    let fails = "tokens = [\"fine\"]\n[[fault]]\ncall = \"run\"\nwhen-prompt-contains = \"fail\"\n";
    for (kind, tainted) in [("fail", false), ("error-state", true)] {
        let scenario = format!("{fails}kind = \"{kind}\"\n");
        let mut worker = Worker::loaded("1_3_1", &scenario, deadlines());
        worker.run(1, "please fail", None);
        let (_, end) = worker.until_end();
        assert_eq!(end.tainted, tainted, "{kind}: {:?}", end.outcome);
        let is_refused = matches!(end.outcome, RunOutcome::Refused { .. });
        assert_eq!(is_refused, !tainted, "{kind}: {:?}", end.outcome);
        worker.run(2, "x", None);
        let (_, end) = worker.until_end();
        assert_eq!(end.tainted, tainted, "{kind}: for good");
    }
}

#[test]
fn every_token_tells_its_id_and_what_stands_behind_its_text() {
    for family in FAMILIES_RUN {
        let scenario = "tokens = [\"a\", { text = \"é\", pieces = 2, id = 7 }, \
            { text = \"\", id = 8 }, { bytes = [0xc3], id = 9 }, { bytes = [0xa9], id = 10 }]\n";
        let mut worker = Worker::loaded(family, scenario, deadlines());
        worker.run(1, "x", None);
        let (events, end) = worker.until_end();
        let tokens: Vec<_> = events
            .into_iter()
            .filter_map(|event| match event {
                Event::Token { kind, id, text, .. } => Some((kind, id, text)),
                _ => None,
            })
            .collect();
        use TokenKind::{Partial, Swallowed, Text};
        let expected = [
            (Text, 1000, "a"),
            (Partial, 7, ""),
            (Text, 7, "é"),
            (Swallowed, 8, ""),
            (Partial, 9, ""),
            (Text, 10, "é"),
        ];
        let expected = expected.map(|(kind, id, text)| (kind, Some(id), text.to_owned()));
        assert_eq!(tokens, expected, "{family}");
        assert_eq!(end.generated_tokens, 6, "{family}");
    }
}

/// What the runtime was given, from the parameters that the fake one reports.
fn input_type(text: &str) -> u64 {
    let reported: serde_json::Value = serde_json::from_str(text).expect("the parameters");
    reported["run"]["input_type"].as_u64().expect("a number")
}

#[test]
fn a_begun_answer_is_taken_over_by_its_tokens_or_by_its_text() {
    const PROMPT: u64 = 0;
    const TOKENS: u64 = 1;
    let begun = |token_ids: Option<&[i32]>| BegunAnswer {
        text: " one two".to_owned(),
        token_ids: token_ids.map(<[i32]>::to_vec),
    };
    for family in FAMILIES_RUN {
        let mut worker = Worker::start(family, "tokens = [\"{params}\"]\n");
        worker.load(deadlines(), true);
        while !matches!(worker.next(), Event::Loaded { .. }) {}

        // Three words in the prompt; the begun answer is two words or three ids.
        let cases = [
            (None, PROMPT, 3, Some(true)),
            (Some(begun(None)), PROMPT, 5, Some(true)),
            (Some(begun(Some(&[5, 6, 7]))), TOKENS, 6, None),
        ];
        for (run, (begun, expected_input, input_tokens, agrees)) in (1..).zip(cases) {
            worker.run(run, "say one two", begun);
            let (events, end) = worker.until_end();
            let counted = Event::PromptCounted { run, tokens: 3 };
            let told: Vec<_> = events
                .iter()
                .filter(|event| **event != Event::Heartbeat)
                .collect();
            assert_eq!(told[0], &counted, "{family}: {events:?}");
            assert_eq!(input_type(&text_of(&events)), expected_input, "{family}");
            assert_eq!(end.prompt_tokens, Some(input_tokens), "{family}");
            let prefilled = end.perf.expect("perf figures").prefill_tokens;
            assert_eq!(prefilled, input_tokens, "{family}");
            assert_eq!(end.tokenizer_agrees, agrees, "{family}");
        }

        // Both count against the context.
        worker.run(4, "say one two", Some(begun(Some(&[5; 61]))));
        let (events, end) = worker.until_end();
        assert_eq!(events[0], Event::PromptCounted { run: 4, tokens: 3 });
        assert_eq!(
            end.outcome,
            RunOutcome::ContextLengthExceeded {
                prompt_tokens: 64,
                limit_tokens: 64,
            }
        );
    }
}

#[test]
fn without_a_tokenizer_a_begun_answer_goes_by_its_text() {
    let mut worker = Worker::loaded("1_3_1", "echo-prompt = true\n", deadlines());
    let begun = BegunAnswer {
        text: " two three".to_owned(),
        token_ids: Some(vec![5, 6, 7]),
    };
    worker.run(1, "one", Some(begun));
    let (events, end) = worker.until_end();
    assert_eq!(text_of(&events), "one two three");
    assert_eq!(end.prompt_tokens, Some(3));
    assert_eq!(end.tokenizer_agrees, None);
    let counted = |event: &Event| matches!(event, Event::PromptCounted { .. });
    assert!(!events.iter().any(counted), "{events:?}");
}
