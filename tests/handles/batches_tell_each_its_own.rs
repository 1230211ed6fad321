//! What a library says of several sequences at once is told each run as far as it is its own: its text up to the
//! token that ends it, and times of the worker's clock where the library's figures are those of all together.

use crate::batches_support::{FINISHED, Told, answers, loaded, run, run_all, whole};
use crate::daemon_support::FAMILIES_RUN;
use crate::worker_support::{Worker, deadlines};
use rkllmd::generation::DrawRequest;
use rkllmd::ipc::{ClockFigures, Command, RunEnd, RunSpec};

const HALVES: &str = "[[answer]]\nwhen-prompt-contains = \"gamma\"\n\
    tokens = [{ text = \"\u{e9}\", pieces = 3 }, \"x\", { text = \"\u{e8}\", pieces = 2 }]\n";

#[test]
fn no_text_is_read_where_all_sequences_wait() {
    for family in FAMILIES_RUN {
        let mut worker = loaded(family, 2, &(answers() + HALVES), deadlines());
        run_all(&mut worker, &["gamma", "gamma"]);
        worker.send(Command::BeginBatch);
        let mut told = Told::new(2);
        told.until_all_end(&mut worker);
        for slot in 0..2 {
            assert_eq!(told.texts[slot], "\u{e9}x\u{e8}", "{family}");
            assert_eq!(told.tokens(slot), 6, "{family}");
        }
    }
}

#[test]
fn text_beside_half_a_character_of_another_one_is_not_lost() {
    for family in FAMILIES_RUN {
        let mut worker = loaded(family, 3, &(answers() + HALVES), deadlines());
        run_all(&mut worker, &["beta", "gamma", "alpha"]);
        worker.send(Command::BeginBatch);
        let mut told = Told::new(3);
        told.until_all_end(&mut worker);
        let texts = [
            whole("beta", 8),
            "\u{e9}x\u{e8}".to_owned(),
            whole("alpha", 3),
        ];
        assert_eq!(told.texts, texts, "{family}");
        let tokens = [0, 1, 2].map(|slot| told.tokens(slot));
        assert_eq!(tokens, [8, 6, 3], "{family}");
    }
}

#[test]
fn a_token_that_one_run_is_to_end_at_ends_no_other() {
    for family in FAMILIES_RUN {
        let mut worker = loaded(family, 2, &answers(), deadlines());
        let draws = DrawRequest {
            // That of its third word.
            stop_token_ids: vec![1002],
            ..DrawRequest::default()
        };
        let ends = RunSpec {
            draws,
            ..worker.spec(1, "beta", None)
        };
        run(&mut worker, 0, ends);
        let goes_on = worker.spec(2, "beta", None);
        run(&mut worker, 1, goes_on);
        worker.send(Command::BeginBatch);
        let mut told = Told::new(2);
        told.until_all_end(&mut worker);
        assert_eq!(told.texts, [whole("beta", 2), whole("beta", 8)], "{family}");
        assert_eq!(told.outcome(0), &FINISHED, "{family}");
    }
}

fn clock(end: Option<&RunEnd>) -> ClockFigures {
    let end = end.expect("an end");
    assert_eq!(end.perf, None, "the library's are those of all");
    end.clock.expect("times of a run that has made tokens")
}

/// A library that takes so long for each step, of which the first one is the prompts'.
const STEP_MS: f32 = 20.0;

fn slow(family: &str) -> Worker {
    let scenario = "token-delay-us = 20000\n".to_owned() + &answers();
    loaded(family, 3, &scenario, deadlines())
}

#[test]
fn each_run_has_times_of_its_own() {
    for family in FAMILIES_RUN {
        let mut worker = slow(family);
        run_all(&mut worker, &["beta", "alpha"]);
        let one = RunSpec {
            max_new_tokens: Some(1),
            ..worker.spec(3, "beta", None)
        };
        run(&mut worker, 2, one);
        worker.send(Command::BeginBatch);
        let mut told = Told::new(3);
        told.until_all_end(&mut worker);
        let [beta, alpha, one] = [0, 1, 2].map(|slot| clock(told.ends[slot].as_ref()));
        let until_the_last = |clock: ClockFigures| {
            let others = clock.others_ms.expect("there are others");
            assert!(clock.first_token_ms >= STEP_MS && others > 0.0, "{clock:?}");
            clock.first_token_ms + others
        };
        // Sleeps are never shorter.
        assert!(until_the_last(beta) >= 8.0 * STEP_MS, "{family}: {beta:?}");
        assert!(
            until_the_last(alpha) >= 3.0 * STEP_MS,
            "{family}: {alpha:?}"
        );
        assert!(until_the_last(alpha) < until_the_last(beta), "{family}");
        assert!(one.first_token_ms >= STEP_MS && one.others_ms.is_none());
    }
}

#[test]
fn what_is_computed_beside_a_lone_run_is_in_no_figure_of_it() {
    let mut worker = slow("1_3_1");
    run_all(&mut worker, &["beta"]);
    worker.send(Command::BeginBatch);
    let mut told = Told::new(1);
    told.until_all_end(&mut worker);
    // This library knows no sequence without an input.
    assert!(clock(told.ends[0].as_ref()).first_token_ms >= STEP_MS);
}
