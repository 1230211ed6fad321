//! Several handles in one worker: each has its own runs, callbacks, credit and aborts. The process is
//! real, the daemon is this test.

use std::fs;
use std::path::{Path, PathBuf};

use crate::worker_support::{Worker, deadlines, ms};
use rkllmd::generation::{Deadline, FinishReason};
use rkllmd::ipc::{
    AbortMode, EXIT_LOAD_FAILED, Event, RawRunSpec, RunEnd, RunOutcome, RunSpec, SlotCommand,
    SlotEvent, WorkerDeadlines,
};
use rkllmd::library_calls::{InferParam, Input, RowSelection};

fn loaded(slots: u8, scenario: &str, deadlines: WorkerDeadlines) -> Worker {
    let mut worker = Worker::start("1_3_1", scenario);
    worker.load_slots(slots, deadlines);
    while !matches!(worker.next(), Event::Loaded { .. }) {}
    worker
}

fn run(worker: &mut Worker, slot: u8, spec: RunSpec) {
    worker.ask_slot(slot, SlotCommand::Run(Box::new(spec)));
}

/// What the slots have told so far.
struct Told {
    texts: Vec<String>,
    ends: Vec<Option<RunEnd>>,
}

impl Told {
    fn new(slots: usize) -> Self {
        Self {
            texts: vec![String::new(); slots],
            ends: vec![None; slots],
        }
    }

    fn next(&mut self, worker: &mut Worker) {
        let Event::Slot { slot, event } = worker.next() else {
            return;
        };
        let slot = usize::from(slot);
        match event {
            SlotEvent::Token { run, text, .. } => {
                assert_eq!(run, slot as u64 + 1, "another slot's token");
                self.texts[slot].push_str(&text);
            }
            SlotEvent::RunEnded(end) => self.ends[slot] = Some(*end),
            _ => {}
        }
    }

    fn until(&mut self, worker: &mut Worker, happened: impl Fn(&Self) -> bool) {
        while !happened(self) {
            self.next(worker);
        }
    }

    fn outcome(&self, slot: usize) -> &RunOutcome {
        &self.ends[slot].as_ref().expect("an end").outcome
    }
}

const FINISHED: RunOutcome = RunOutcome::Finished(FinishReason::Stop);

#[test]
fn a_run_without_credit_waits_and_no_other_does() {
    let scenario = "repeat = { token = \"w \", times = 20 }\n";
    let mut worker = loaded(2, scenario, deadlines());
    let held_up = RunSpec {
        credit: 5,
        ..worker.spec(1, "x", None)
    };
    run(&mut worker, 0, held_up);
    let mut told = Told::new(2);
    told.until(&mut worker, |told| told.texts[0] == "w ".repeat(5));
    let other = worker.spec(2, "x", None);
    run(&mut worker, 1, other);
    told.until(&mut worker, |told| told.ends[1].is_some());
    assert_eq!(told.texts[1], "w ".repeat(20));
    assert_eq!(told.outcome(1), &FINISHED);
    assert_eq!(told.texts[0], "w ".repeat(5), "no more than its credit");
    let events = 100;
    worker.ask_slot(0, SlotCommand::Credit { run: 1, events });
    told.until(&mut worker, |told| told.ends[0].is_some());
    assert_eq!(told.texts[0], "w ".repeat(20));
    assert_eq!(told.outcome(0), &FINISHED);
}

#[test]
fn waiting_for_credit_is_not_the_librarys_time() {
    let scenario = "repeat = { token = \"w \", times = 20 }\n";
    let short = WorkerDeadlines {
        inter_token: ms(500),
        ..deadlines()
    };
    let mut worker = loaded(1, scenario, short);
    let held_up = RunSpec {
        credit: 5,
        ..worker.spec(1, "x", None)
    };
    run(&mut worker, 0, held_up);
    let mut told = Told::new(1);
    told.until(&mut worker, |told| told.texts[0] == "w ".repeat(5));
    // Only heartbeats come, for longer than a token may take.
    for _ in 0..10 {
        assert_eq!(worker.next(), Event::Heartbeat);
    }
    let events = 100;
    worker.ask_slot(0, SlotCommand::Credit { run: 1, events });
    told.until(&mut worker, |told| told.ends[0].is_some());
    assert_eq!(told.outcome(0), &FINISHED);
}

#[test]
fn what_a_client_does_not_read_is_not_the_librarys_to_end() {
    let scenario = "repeat = { token = \"w \", times = 20 }\n";
    let short = WorkerDeadlines {
        abort_to_finish: ms(500),
        ..deadlines()
    };
    let mut worker = loaded(1, scenario, short);
    worker.ask_slot(
        0,
        SlotCommand::RawRun(Box::new(RawRunSpec {
            run: 1,
            inputs: vec![Input::prompt("x")],
            infer: InferParam::default(),
            rows: RowSelection::All,
            generate_after_logits: false,
            clear_kv_cache: true,
            prefill_per_token: ms(1),
            tensor_limit_bytes: 1 << 20,
            credit: 5,
        })),
    );
    let mut results = 0;
    while results < 5 {
        let Event::Slot { event, .. } = worker.next() else {
            continue;
        };
        assert!(matches!(event, SlotEvent::RawResult { .. }), "{event:?}");
        results += 1;
    }
    let mode = AbortMode::AtOnce;
    worker.ask_slot(0, SlotCommand::Abort { run: 1, mode });
    // Only heartbeats come, for longer than an abort may take.
    for _ in 0..10 {
        assert_eq!(worker.next(), Event::Heartbeat);
    }
    let events = 100;
    worker.ask_slot(0, SlotCommand::Credit { run: 1, events });
    let end = loop {
        match worker.next() {
            Event::Slot {
                event: SlotEvent::RawEnded { result, .. },
                ..
            } => break result,
            Event::Heartbeat
            | Event::Slot {
                event: SlotEvent::RawResult { .. },
                ..
            } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(end, Ok(()));
}

#[test]
fn an_abort_ends_the_run_of_its_slot_and_no_other() {
    let scenario = "repeat = { token = \"w \", times = 50 }\ntoken-delay-us = 10000\n";
    let mut worker = loaded(3, scenario, deadlines());
    for slot in 0..3 {
        let spec = worker.spec(u64::from(slot) + 1, "x", None);
        run(&mut worker, slot, spec);
    }
    let mut told = Told::new(3);
    told.until(&mut worker, |told| {
        told.texts.iter().all(|text| !text.is_empty())
    });
    let mode = AbortMode::AtOnce;
    worker.ask_slot(1, SlotCommand::Abort { run: 2, mode });
    told.until(&mut worker, |told| told.ends.iter().all(Option::is_some));
    assert_eq!(told.outcome(1), &RunOutcome::Aborted);
    for slot in [0, 2] {
        assert_eq!(told.outcome(slot), &FINISHED);
        assert_eq!(told.texts[slot], "w ".repeat(50));
    }
}

#[test]
fn a_control_call_that_hangs_in_one_slot_leaves_the_others_theirs() {
    let scenario = "repeat = { token = \"w \", times = 50 }\ntoken-delay-us = 20000\n\
        [[fault]]\ncall = \"get_kv_cache_size\"\noccasion = 1\nkind = \"hang\"\n";
    let short = WorkerDeadlines {
        control_call: ms(300),
        ..deadlines()
    };
    let mut worker = loaded(2, scenario, short);
    for slot in 0..2 {
        let spec = worker.spec(u64::from(slot) + 1, "x", None);
        run(&mut worker, slot, spec);
        // So that it is surely the first slot's call that hangs.
        while !matches!(worker.next(), Event::Slot { slot: told, .. } if told == slot) {}
    }
    let mut told = Told::new(2);
    told.until(&mut worker, |told| told.ends.iter().all(Option::is_some));
    let ends: Vec<&RunEnd> = told.ends.iter().flatten().collect();
    assert_eq!([&ends[0].outcome, &ends[1].outcome], [&FINISHED; 2]);
    assert!(ends[0].tainted && ends[1].tainted, "the worker is");
    let counted = [ends[0].prompt_tokens, ends[1].prompt_tokens];
    assert_eq!(counted, [None, Some(1)]);
}

/// The library lets none wait for one that came later, so those do not hide it.
#[test]
fn a_run_that_hangs_in_a_pool_is_found_while_new_ones_come_and_go() {
    let scenario = "repeat = { token = \"w \", times = 20 }\ntoken-delay-us = 20000\n\
        [[fault]]\ncall = \"run\"\nkind = \"hang\"\nafter-tokens = 2\n\
        when-prompt-contains = \"hangs\"\n";
    let short = WorkerDeadlines {
        prefill_base: ms(100),
        inter_token: ms(500),
        ..deadlines()
    };
    let mut worker = Worker::start("1_3_1", scenario);
    worker.load_sharing(4, Some(128), short);
    while !matches!(worker.next(), Event::Loaded { .. }) {}
    let spec = worker.spec(1, "hangs", None);
    run(&mut worker, 0, spec);
    let mut told = Told::new(1);
    told.until(&mut worker, |told| told.texts[0] == "w w ");
    let (mut runs, mut tokens) = (2, 0);
    let spec = worker.spec(runs, "x", None);
    run(&mut worker, 1, spec);
    let passed = loop {
        match worker.next() {
            Event::Slot {
                slot: 1,
                event: SlotEvent::Token { .. },
            } => tokens += 1,
            Event::Slot {
                slot: 1,
                event: SlotEvent::RunEnded(_),
            } => {
                runs += 1;
                let spec = worker.spec(runs, "x", None);
                run(&mut worker, 1, spec);
            }
            Event::Slot {
                slot: 0,
                event: SlotEvent::DeadlinePassed(passed),
            } => break passed,
            _ => {}
        }
    };
    assert_eq!(passed.deadline, Deadline::InterToken);
    // Four contexts would be 256.
    assert!(tokens < 150, "after {tokens} tokens of others");
}

/// It cannot be waiting for room, so an older run that goes on does not hide it either.
#[test]
fn a_run_that_hangs_in_a_nearly_empty_pool_is_found_beside_an_older_one() {
    let scenario = "repeat = { token = \"w \", times = 60 }\ntoken-delay-us = 50000\n\
        [[fault]]\ncall = \"run\"\nkind = \"hang\"\nafter-tokens = 2\n\
        when-prompt-contains = \"hangs\"\n";
    let short = WorkerDeadlines {
        inter_token: ms(500),
        ..deadlines()
    };
    let mut worker = Worker::start("1_3_1", scenario);
    worker.load_sharing(4, Some(100_000), short);
    while !matches!(worker.next(), Event::Loaded { .. }) {}
    let spec = worker.spec(1, "x", None);
    run(&mut worker, 0, spec);
    let mut told = Told::new(2);
    told.until(&mut worker, |told| !told.texts[0].is_empty());
    let spec = worker.spec(2, "hangs", None);
    run(&mut worker, 1, spec);
    let passed = loop {
        match worker.next() {
            Event::Slot {
                slot: 0,
                event: SlotEvent::RunEnded(_),
            } => panic!("the older one has ended before"),
            Event::Slot {
                slot: 1,
                event: SlotEvent::DeadlinePassed(passed),
            } => break passed,
            _ => {}
        }
    };
    assert_eq!(passed.deadline, Deadline::InterToken);
}

/// The fake library of this family, which says that it is the last release of it, as the first.
fn of_release_1_2_1(library: &Path, folder: &Path) -> PathBuf {
    let mut bytes = fs::read(library).expect("the library");
    let (last, first) = (b"(version: 1.2.3 ", b"(version: 1.2.1 ");
    let mut windows = bytes.windows(last.len());
    let at = windows.position(|window| window == last);
    let at = at.expect("its version");
    bytes[at..at + first.len()].copy_from_slice(first);
    let copy = folder.join("librkllmrt.so");
    fs::write(&copy, bytes).expect("a copy");
    copy
}

#[test]
fn a_release_with_one_handle_a_process_is_not_given_more() {
    let mut worker = Worker::start("1_2_1", "tokens = [\"a\"]\n");
    worker.library = of_release_1_2_1(&worker.library, worker.folder());
    worker.load_slots(2, deadlines());
    let last = loop {
        match worker.next() {
            Event::Heartbeat | Event::LibraryOpened(_) => {}
            event => break event,
        }
    };
    let Event::LoadFailed { reason, failure } = last else {
        panic!("{last:?}");
    };
    assert!(reason.contains("`parallel`"), "{reason}");
    assert!(failure.is_some(), "certain");
    assert_eq!(worker.exit_code(), Some(EXIT_LOAD_FAILED));
}
