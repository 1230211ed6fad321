//! Slots that are sequences of one handle: their runs begin together when they are told to, and each ends by
//! itself. The process is real, the daemon is this test.

use crate::batches_support::{
    AT_ITS_LIMIT, ENDLESS, FINISHED, Told, answers, go, loaded, run, run_all, waits, whole,
};
use crate::daemon_support::FAMILIES_RUN;
use crate::worker_support::{QUIET, Worker, deadlines, ms};
use rkllmd::generation::{Deadline, SamplingRequest};
use rkllmd::ipc::{
    AbortMode, Command, EXIT_DEADLINE, Event, RunOutcome, RunSpec, SlotCommand, SlotEvent,
    WorkerDeadlines,
};

#[test]
fn runs_begin_when_they_are_told_to_and_end_one_by_one() {
    for family in FAMILIES_RUN {
        let scenario = waits("after-tokens = 6") + &answers();
        let mut worker = loaded(family, 3, &scenario, deadlines());
        run_all(&mut worker, &["beta", "alpha"]);
        assert_eq!(worker.next_within(QUIET), None, "it has not begun");
        worker.send(Command::BeginBatch);
        let mut told = Told::new(2);
        told.until(&mut worker, |told| told.ends[1].is_some());
        assert_eq!(told.texts[1], whole("alpha", 3), "{family}");
        assert_eq!((told.outcome(1), told.tokens(1)), (&FINISHED, 3));
        assert!(told.ends[0].is_none(), "the library is at it");
        go(&worker);
        told.until_all_end(&mut worker);
        assert_eq!(told.texts[0], whole("beta", 8), "{family}");
        assert_eq!((told.outcome(0), told.tokens(0)), (&FINISHED, 8));
    }
}

#[test]
fn who_is_not_wanted_leaves_at_once_also_in_prefill() {
    for place in ["in-prefill = true", "after-tokens = 2"] {
        let scenario = waits(place) + &answers();
        let mut worker = loaded("1_3_1", 2, &scenario, deadlines());
        run_all(&mut worker, &["beta", "beta"]);
        worker.send(Command::BeginBatch);
        let mut told = Told::new(2);
        if place != "in-prefill = true" {
            told.until(&mut worker, |told| told.texts[1] == whole("beta", 2));
        }
        let mode = AbortMode::AtOnce;
        worker.ask_slot(0, SlotCommand::Abort { run: 1, mode });
        told.until(&mut worker, |told| told.ends[0].is_some());
        assert_eq!(told.outcome(0), &RunOutcome::Aborted, "{place}");
        assert!(told.ends[1].is_none());
        go(&worker);
        told.until_all_end(&mut worker);
        assert_eq!(told.texts[1], whole("beta", 8), "{place}: undisturbed");
        assert_eq!(told.outcome(1), &FINISHED);
    }
}

#[test]
fn a_run_that_goes_on_under_its_number_has_an_end_of_its_own() {
    let scenario = waits("after-tokens = 6") + &answers();
    let mut worker = loaded("1_3_1", 2, &scenario, deadlines());
    run_all(&mut worker, &["beta", "alpha"]);
    worker.send(Command::BeginBatch);
    let mut told = Told::new(2);
    told.until(&mut worker, |told| told.ends[1].is_some());
    // Its first part's sequence comes back behind the one of slot 0, which the next batch waits for.
    (told.ends[1], told.texts[1]) = (None, String::new());
    let spec = worker.spec(2, "alpha", None);
    run(&mut worker, 1, spec);
    worker.send(Command::BeginBatch);
    go(&worker);
    told.until_all_end(&mut worker);
    assert_eq!(told.texts, [whole("beta", 8), whole("alpha", 3)]);
    assert_eq!((told.outcome(1), told.tokens(1)), (&FINISHED, 3));
}

#[test]
fn what_has_not_begun_is_withdrawn() {
    let mut worker = loaded("1_3_1", 2, &answers(), deadlines());
    run_all(&mut worker, &["beta", "alpha"]);
    let mode = AbortMode::AtOnce;
    worker.ask_slot(0, SlotCommand::Abort { run: 1, mode });
    let mut told = Told::new(2);
    told.until(&mut worker, |told| told.ends[0].is_some());
    assert_eq!((told.outcome(0), told.tokens(0)), (&RunOutcome::Aborted, 0));
    worker.send(Command::BeginBatch);
    told.until_all_end(&mut worker);
    assert_eq!(told.texts[1], whole("alpha", 3));
}

#[test]
fn the_last_one_that_is_not_wanted_ends_the_library() {
    let mut worker = loaded("1_3_1", 2, ENDLESS, deadlines());
    for round in 0..5_u64 {
        let runs = [2 * round + 1, 2 * round + 2];
        for (slot, id) in (0..).zip(runs) {
            let spec = worker.spec(id, "x", None);
            run(&mut worker, slot, spec);
        }
        worker.send(Command::BeginBatch);
        let mut told = Told::new(2);
        told.until(&mut worker, |told| {
            told.texts.iter().all(|text| text.len() > 10)
        });
        for (slot, run) in (0..).zip(runs) {
            let mode = AbortMode::AtOnce;
            worker.ask_slot(slot, SlotCommand::Abort { run, mode });
        }
        told.until_all_end(&mut worker);
        for slot in 0..2 {
            assert_eq!(told.outcome(slot), &RunOutcome::Aborted, "round {round}");
        }
    }
}

#[test]
fn each_run_has_a_budget_of_its_own() {
    for family in FAMILIES_RUN {
        let mut worker = loaded(family, 3, ENDLESS, deadlines());
        for (slot, tokens) in [(0, 2), (1, 9), (2, 5)] {
            let spec = RunSpec {
                max_new_tokens: Some(tokens),
                ..worker.spec(u64::from(slot) + 1, "x", None)
            };
            run(&mut worker, slot, spec);
        }
        worker.send(Command::BeginBatch);
        let mut told = Told::new(3);
        told.until_all_end(&mut worker);
        for (slot, tokens) in [(0, 2), (1, 9), (2, 5)] {
            assert_eq!(
                (told.outcome(slot), told.tokens(slot)),
                (&AT_ITS_LIMIT, tokens)
            );
            assert_eq!(told.texts[slot], "w ".repeat(tokens as usize), "{family}");
        }
        assert_eq!(told.order, [0, 2, 1], "{family}");
    }
}

#[test]
fn an_end_of_text_that_the_library_ignores_ends_its_run_alone() {
    // 2 is one of the model's.
    let scenario = "[[answer]]\nwhen-prompt-contains = \"alpha\"\n\
        tokens = [\"a\", { text = \"\", id = 2 }, \"b\", \"c\"]\n"
        .to_owned()
        + &answers();
    let mut worker = loaded("1_3_1", 2, &scenario, deadlines());
    run_all(&mut worker, &["alpha", "beta"]);
    worker.send(Command::BeginBatch);
    let mut told = Told::new(2);
    told.until_all_end(&mut worker);
    assert_eq!((&*told.texts[0], told.outcome(0)), ("a", &FINISHED));
    assert_eq!(told.texts[1], whole("beta", 8));
}

#[test]
fn what_is_not_alike_is_another_batch() {
    let mut worker = loaded("1_3_1", 3, &answers(), deadlines());
    run_all(&mut worker, &["beta", "beta"]);
    let hot = RunSpec {
        sampling: SamplingRequest {
            temperature: Some(1.5),
            ..SamplingRequest::default()
        },
        ..worker.spec(3, "alpha", None)
    };
    run(&mut worker, 2, hot);
    worker.send(Command::BeginBatch);
    let mut told = Told::new(3);
    told.until(&mut worker, |told| !told.texts[2].is_empty());
    assert!(told.ends[0].is_some() && told.ends[1].is_some());
    told.until_all_end(&mut worker);
    assert_eq!(told.texts[2], whole("alpha", 3));
}

#[test]
fn a_prompt_that_is_too_long_holds_up_no_other() {
    let scenario = waits("in-prefill = true") + &answers();
    let mut worker = Worker::start("1_3_1", &scenario);
    worker.count_words();
    worker.load_batch(2, deadlines());
    while !matches!(worker.next(), Event::Loaded { .. }) {}
    let long = "word ".repeat(100);
    run_all(&mut worker, &[&long, "beta"]);
    worker.send(Command::BeginBatch);
    let mut told = Told::new(2);
    told.until(&mut worker, |told| told.ends[0].is_some());
    let too_long = RunOutcome::ContextLengthExceeded {
        prompt_tokens: 100,
        limit_tokens: 64,
    };
    assert_eq!(told.outcome(0), &too_long);
    go(&worker);
    told.until_all_end(&mut worker);
    assert_eq!(told.texts[1], whole("beta", 8));
    assert_eq!(
        told.ends[1].as_ref().and_then(|end| end.prompt_tokens),
        Some(1)
    );
}

#[test]
fn a_batch_that_hangs_is_found() {
    let scenario =
        "[[fault]]\ncall = \"run\"\nkind = \"hang\"\nafter-tokens = 2\n".to_owned() + &answers();
    let short = WorkerDeadlines {
        inter_token: ms(500),
        ..deadlines()
    };
    let mut worker = loaded("1_3_1", 2, &scenario, short);
    run_all(&mut worker, &["beta", "beta"]);
    worker.send(Command::BeginBatch);
    let passed = loop {
        if let Event::Slot {
            event: SlotEvent::DeadlinePassed(passed),
            ..
        } = worker.next()
        {
            break passed;
        }
    };
    assert_eq!(passed.deadline, Deadline::InterToken);
    assert_eq!(worker.exit_code(), Some(EXIT_DEADLINE));
}

#[test]
fn a_batch_that_fails_fails_for_all_that_it_has() {
    let scenario = "[[fault]]\ncall = \"run\"\nkind = \"error-state\"\nafter-tokens = 4\n"
        .to_owned()
        + &answers();
    let mut worker = loaded("1_3_1", 3, &scenario, deadlines());
    run_all(&mut worker, &["beta", "alpha", "beta"]);
    worker.send(Command::BeginBatch);
    let mut told = Told::new(3);
    told.until_all_end(&mut worker);
    assert_eq!(told.outcome(1), &FINISHED, "it had ended before");
    for slot in [0, 2] {
        assert!(matches!(told.outcome(slot), RunOutcome::Failed { .. }));
    }
}
