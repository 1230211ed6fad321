//! Without a tokenizer the worker asks the library what a run takes of the context. What is still the size of the run
//! before shortens no answer; what is the run's own ends it where the context ends.

use crate::daemon_support::FAMILIES_RUN;
use crate::worker_support::{Worker, deadlines};
use rkllmd::generation::FinishReason;
use rkllmd::ipc::{AbortMode, Event, RunEnd, RunOutcome, SlotCommand, SlotEvent};

/// What may be made behind a prompt of one token: of the 64 of the context four stay unused.
const MOST: u32 = 59;

fn made(worker: &mut Worker, run: u64, prompt: &str) -> RunEnd {
    worker.run(run, prompt, None);
    let (_, end) = worker.until_end();
    let at_its_limit = RunOutcome::Finished(FinishReason::Length);
    assert_eq!(end.outcome, at_its_limit, "run {run}");
    end
}

#[test]
fn a_size_that_is_still_that_of_the_run_before_shortens_nothing() {
    // One token, with more bytes than the context has tokens.
    let prompt = "x".repeat(100);
    for family in FAMILIES_RUN {
        let scenario = "repeat = { token = \"w \", times = 1000 }\ntoken-delay-us = 10000\n";
        let mut worker = Worker::loaded(family, scenario, deadlines());
        // Each fills the context.
        for run in 1..=2 {
            let end = made(&mut worker, run, &prompt);
            assert_eq!(end.generated_tokens, MOST, "{family}, run {run}");
        }
        // One that is cut off between two tokens leaves less.
        worker.run(3, &prompt, None);
        let is_token = |event: &Event| {
            matches!(
                event,
                Event::Slot {
                    event: SlotEvent::Token { .. },
                    ..
                }
            )
        };
        let mut tokens = 0;
        while tokens < 20 {
            tokens += usize::from(is_token(&worker.next()));
        }
        let mode = AbortMode::AtOnce;
        worker.ask(SlotCommand::Abort { run: 3, mode });
        worker.until_end();
        let end = made(&mut worker, 4, &prompt);
        assert_eq!(end.generated_tokens, MOST, "{family}, behind a cut");
    }
}

#[test]
fn a_size_of_the_run_itself_ends_it_with_the_context() {
    let scenario = "repeat = { token = \"w \", times = 1000 }\ntoken-delay-us = 200000\n\
        cache-size-in-runs = true\n";
    let prompt = ["w"; 50].join(" ");
    let mut worker = Worker::loaded("1_3_1", scenario, deadlines());
    let mut short = worker.spec(1, &prompt, None);
    short.max_new_tokens = Some(1);
    worker.ask(SlotCommand::Run(Box::new(short)));
    let (_, end) = worker.until_end();
    assert_eq!(end.generated_tokens, 1);
    // At its first token the size is what the first run left, at its second one it is not.
    for run in 2..=3 {
        let end = made(&mut worker, run, &prompt);
        // Ten of the context are left.
        assert!(end.generated_tokens <= 10, "run {run}: {end:?}");
    }
}
