//! A library that breaks every rule of its own results does no harm beyond its run: what comes
//! during the run reaches its sink as it came, what comes later is dropped and counted, and
//! the next run is clean.

use crate::common::{
    Collected, DEFAULT, Model, RUN_FAMILIES, collect, open, run, run_id, wait_until,
};
use rkllm_sys::{CallState, Handle, RunInput, late_callbacks};
use std::time::{Duration, Instant};

use CallState::{Finish, Normal};

const PROMPT: RunInput<'_> = RunInput::Prompt("x");
/// Tests a model with tokens `a`, `b`, and `fault` in each run whose prompt has "fault" in it.
fn with_fault(fault: &str, test: impl Fn(&str, &Handle)) {
    for thread in ["caller", "other"] {
        for name in RUN_FAMILIES {
            let model = Model::new(&format!(
                "tokens = ['a', 'b']\ncallback-thread = '{thread}'\n\
                 [[fault]]\ncall = 'run'\nwhen-prompt-contains = 'fault'\n{fault}"
            ));
            let handle = model.load(&open(name));
            let late = late_callbacks();
            test(name, &handle);
            assert_eq!(late_callbacks(), late, "{name}: all came during the run");
            let next = run(&handle, &PROMPT, 2);
            assert_eq!(next.states(), [Normal, Normal, Finish], "{name}");
            assert_eq!(next.text(), "ab", "{name}: the next run is clean");
            handle.destroy().expect(name);
        }
    }
}

/// What a run of `handle` gave during which `then` was done, once it had given something. Its id is no
/// other run's here.
fn during_a_run(name: &str, handle: &Handle, then: impl FnOnce()) -> Collected {
    let (sink, collected) = collect();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| handle.run(&PROMPT, &DEFAULT, run_id(2), sink));
        collected.wait_for_one();
        then();
        run.join().expect("no panic").expect(name);
    });
    collected
}

#[test]
fn finish_comes_twice() {
    with_fault("kind = 'finish-twice'", |name, handle| {
        let got = run(handle, &RunInput::Prompt("fault"), 1);
        assert_eq!(got.states(), [Normal, Normal, Finish, Finish], "{name}");
        assert!(got.all()[3].perf.is_some(), "{name}");
    });
}

#[test]
fn text_comes_after_finish() {
    with_fault("kind = 'text-after-finish'", |name, handle| {
        let got = run(handle, &RunInput::Prompt("fault"), 1);
        assert_eq!(got.states(), [Normal, Normal, Finish, Normal], "{name}");
        assert_eq!(got.text(), "abafter FINISH", "{name}");
        assert_eq!(got.ids(), [1000, 1001, 1], "{name}");
    });
}

#[test]
fn text_is_null_and_the_run_goes_on() {
    let fault = "kind = 'null-text'\nafter-tokens = 1\nid = 77";
    with_fault(fault, |name, handle| {
        let got = run(handle, &RunInput::Prompt("fault"), 1);
        assert_eq!(got.states(), [Normal, Normal, Normal, Finish], "{name}");
        let texts: Vec<_> = got.all().into_iter().map(|seen| seen.text).collect();
        let expected = [Some(b"a".to_vec()), None, Some(b"b".to_vec()), None];
        assert_eq!(texts, expected, "{name}");
        assert_eq!(got.ids(), [1000, 77, 1001], "{name}");
        let perf = got.all()[3].perf.expect("figures");
        assert_eq!(perf.generate_tokens, 2, "{name}: one less than three");
    });
}

#[test]
fn a_special_token_is_swallowed() {
    let fault = "kind = 'special-token'\nafter-tokens = 1\nid = 5";
    with_fault(fault, |name, handle| {
        let got = run(handle, &RunInput::Prompt("fault"), 1);
        assert_eq!(got.all()[1].text.as_deref(), Some(&b""[..]), "{name}");
        assert_eq!(got.ids(), [1000, 5, 1001], "{name}");
    });
}

#[test]
fn several_break_the_end_of_one_run() {
    let faults = "kind = 'finish-twice'\n\
        [[fault]]\ncall = 'run'\nwhen-prompt-contains = 'fault'\nafter-tokens = 2\n\
        kind = 'text-after-finish'\ntext = 'c'\nid = 9";
    with_fault(faults, |name, handle| {
        let got = run(handle, &RunInput::Prompt("fault"), 1);
        assert_eq!(
            got.states(),
            [Normal, Normal, Finish, Finish, Normal],
            "{name}"
        );
        assert_eq!((got.text().as_str(), got.ids()[2]), ("abc", 9), "{name}");
    });
}

#[test]
fn an_aborted_run_can_end_against_the_rules_too() {
    for name in RUN_FAMILIES {
        let model = Model::new(
            "repeat = { token = 'x', times = 36000 }\ntoken-delay-us = 100000\n\
             [[fault]]\ncall = 'run'\nkind = 'finish-twice'",
        );
        let handle = model.load(&open(name));
        let collected = during_a_run(name, &handle, || handle.abort().expect(name));
        assert!(collected.states().ends_with(&[Finish, Finish]), "{name}");
    }
}

#[test]
fn a_callback_after_destroy_is_dropped_and_counted() {
    for name in RUN_FAMILIES {
        let library = open(name);
        let faulty =
            Model::new("tokens = ['a']\n[[fault]]\ncall = 'destroy'\nkind = 'late-callback'");
        let other = Model::new("repeat = { token = 'x', times = 36000 }\ntoken-delay-us = 20000");
        let (first, second) = (faulty.load(&library), other.load(&library));
        let before = late_callbacks();
        let ended = run(&first, &PROMPT, 1);
        let collected = during_a_run(name, &second, || {
            first.destroy().expect(name);
            wait_until("the late callback", || late_callbacks() == before + 1);
            second.abort().expect(name);
        });
        assert_eq!(ended.states(), [Normal, Finish], "{name}");
        // What came late has no text; the run that went on meanwhile had one with each token.
        let all = collected.all();
        let (finish, tokens) = all.split_last().expect("results");
        assert_eq!(finish.state, Finish, "{name}");
        for token in tokens {
            assert_eq!(token.text.as_deref(), Some(&b"x"[..]), "{name}");
        }
    }
}

#[test]
fn an_abort_that_is_ignored_changes_nothing() {
    for name in RUN_FAMILIES {
        let model = Model::new(
            "repeat = { token = 'x', times = 20 }\ntoken-delay-us = 10000\n\
             [[fault]]\ncall = 'abort'\nkind = 'ignore'",
        );
        let handle = model.load(&open(name));
        let collected = during_a_run(name, &handle, || {
            handle.abort().expect("the library says 0")
        });
        assert_eq!(collected.text().len(), 20, "{name}");
        assert_eq!(collected.states().last(), Some(&Finish), "{name}");
    }
}

#[test]
fn a_fault_in_prefill_comes_before_any_token() {
    for name in RUN_FAMILIES {
        for (kind, states) in [
            ("error-state", &[CallState::Error][..]),
            ("fail", &[]),
            ("never-finish", &[]),
        ] {
            let model = Model::new(&format!(
                "tokens = ['a']\nprefill-delay-ms = 200\n\
                 [[fault]]\ncall = 'run'\nin-prefill = true\nkind = '{kind}'"
            ));
            let handle = model.load(&open(name));
            let (sink, collected) = collect();
            let began = Instant::now();
            let result = handle.run(&PROMPT, &DEFAULT, run_id(1), sink);
            assert!(
                began.elapsed() >= Duration::from_millis(100),
                "{name} {kind}"
            );
            assert_eq!(result.is_ok(), kind == "never-finish", "{name} {kind}");
            assert_eq!(collected.states(), states, "{name} {kind}");
        }
    }
}
