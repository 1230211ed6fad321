//! A run ends once and completely: by itself, by an abort from anywhere, by a panic of its sink;
//! and what comes after its end is dropped.

use crate::common::{DEFAULT, Model, collect, on_each_family, open, run_id, wait_until};
use rkllm_sys::{
    CallError, CallState, ControlHandle, Flow, ResultSink, ResultView, RunInput, RunOptions,
    late_callbacks,
};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

#[test]
fn abort_from_another_thread_ends_the_run_with_one_finish() {
    on_each_family(|name| {
        // An hour, if it is not aborted.
        let model = Model::new("repeat = { token = 'x', times = 36000 }\ntoken-delay-us = 100000");
        let handle = model.load(&open(name));
        assert!(!handle.is_running().expect(name));
        let control = handle.control();
        let (sink, collected) = collect();
        std::thread::scope(|scope| {
            let run = scope.spawn(|| handle.run(&RunInput::Prompt("x"), &DEFAULT, run_id(1), sink));
            collected.wait_for_one();
            assert!(control.is_running().expect(name), "{name}");
            control.abort().expect(name);
            run.join().expect("no panic").expect(name);
        });
        let states = collected.states();
        let finishes = states.iter().filter(|s| **s == CallState::Finish).count();
        assert_eq!(finishes, 1, "{name}");
        assert_eq!(states.last(), Some(&CallState::Finish), "{name}");
        assert!(!handle.is_running().expect(name), "{name}");

        let (sink, collected) = collect();
        handle
            .set_chat_template("", "", "")
            .expect("the next call is served");
        let short = RunOptions::default();
        let control = handle.control();
        std::thread::scope(|scope| {
            let run = scope.spawn(|| handle.run(&RunInput::Prompt("y"), &short, run_id(2), sink));
            let first = collected.wait_for_one();
            assert_eq!(first.run, run_id(2), "{name}: the next run is clean");
            assert_eq!(first.state, CallState::Normal, "{name}");
            control.abort().expect(name);
            run.join().expect("no panic").expect(name);
        });
    });
}

/// Aborts its own run at the third token.
struct AbortInside {
    control: ControlHandle,
    tokens: usize,
    states: Sender<CallState>,
}

impl ResultSink for AbortInside {
    fn on_result(&mut self, result: ResultView<'_>) -> Flow {
        self.states.send(result.state).expect("the test listens");
        self.tokens += 1;
        if self.tokens == 3 {
            self.control.abort().expect("an abort inside the callback");
        }
        Flow::Continue
    }
}

#[test]
fn abort_from_inside_the_sink_neither_deadlocks_nor_goes_on() {
    on_each_family(|name| {
        let model = Model::new("repeat = { token = 'x', times = 100000 }");
        let handle = model.load(&open(name));
        let (states, received) = channel();
        let sink = AbortInside {
            control: handle.control(),
            tokens: 0,
            states,
        };
        handle
            .run(&RunInput::Prompt("x"), &DEFAULT, run_id(1), Box::new(sink))
            .expect(name);
        use CallState::{Finish, Normal};
        let states: Vec<_> = received.try_iter().collect();
        assert_eq!(states, [Normal, Normal, Normal, Finish], "{name}");
    });
}

#[test]
fn a_callback_after_the_run_is_dropped_and_counted() {
    on_each_family(|name| {
        let before = late_callbacks();
        let model = Model::new("tokens = ['a']\n[[fault]]\ncall = 'run'\nkind = 'late-callback'");
        let handle = model.load(&open(name));
        let (sink, collected) = collect();
        handle
            .run(&RunInput::Prompt("x"), &DEFAULT, run_id(1), sink)
            .expect(name);
        let at_return = collected.all();
        wait_until("the late callback", || late_callbacks() == before + 1);
        assert_eq!(collected.all(), at_return, "{name}: the sink got no more");
        assert_eq!(collected.text(), "a", "{name}");
    });
}

/// Panics at its second token and tells when it is dropped.
struct PanicInside {
    tokens: usize,
    dropped: Sender<()>,
}

impl ResultSink for PanicInside {
    fn on_result(&mut self, _: ResultView<'_>) -> Flow {
        self.tokens += 1;
        assert!(self.tokens < 2, "the sink fell over");
        Flow::Continue
    }
}

impl Drop for PanicInside {
    fn drop(&mut self) {
        // The receiver may be gone, which is fine.
        let _ = self.dropped.send(());
    }
}

#[test]
fn a_panic_in_the_sink_ends_the_run_and_reaches_no_c_code() {
    on_each_family(|name| {
        for thread in ["caller", "other"] {
            let model = Model::new(&format!(
                "repeat = {{ token = 'x', times = 400 }}\ncallback-thread = '{thread}'"
            ));
            let handle = model.load(&open(name));
            let (dropped, was_dropped) = channel();
            let sink = PanicInside { tokens: 0, dropped };
            let error = handle
                .run(&RunInput::Prompt("x"), &DEFAULT, run_id(5), Box::new(sink))
                .expect_err("a panic");
            assert!(
                matches!(&error, CallError::SinkPanicked { run, message }
                    if *run == run_id(5) && message.contains("fell over")),
                "{name}: {error:?}"
            );
            was_dropped.try_recv().expect("the sink was dropped");
            // The prompt's token and the two that came before the run was aborted.
            assert_eq!(handle.kv_cache_size().expect(name), 3, "{name}");
            let (sink, collected) = collect();
            handle
                .run(&RunInput::Prompt("x"), &DEFAULT, run_id(6), sink)
                .expect("the next run is served");
            assert_eq!(collected.text().len(), 400, "{name}");
        }
    });
}

#[test]
fn a_second_run_on_a_running_model_is_busy() {
    let model = Model::new("repeat = { token = 'x', times = 36000 }\ntoken-delay-us = 100000");
    let handle = model.load(&open("1_3_1"));
    let (sink, collected) = collect();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| handle.run(&RunInput::Prompt("x"), &DEFAULT, run_id(1), sink));
        collected.wait_for_one();
        let (second, nothing) = collect();
        let error = handle
            .run(&RunInput::Prompt("x"), &DEFAULT, run_id(2), second)
            .expect_err("busy");
        assert!(matches!(error, CallError::Busy { .. }), "{error:?}");
        assert_eq!(nothing.all(), []);
        let error = handle.clear_kv_cache(false).expect_err("busy");
        assert!(matches!(error, CallError::Busy { .. }), "{error:?}");
        handle.abort().expect("aborted");
        run.join().expect("no panic").expect("a run");
    });
}

#[test]
fn two_runs_cannot_share_a_number() {
    let model = Model::new("repeat = { token = 'x', times = 36000 }\ntoken-delay-us = 100000");
    let (first, second) = (model.load(&open("1_3_1")), model.load(&open("1_2_1")));
    let (sink, collected) = collect();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| first.run(&RunInput::Prompt("x"), &DEFAULT, run_id(1), sink));
        collected.wait_for_one();
        let (sink, _) = collect();
        let error = second
            .run(&RunInput::Prompt("x"), &DEFAULT, run_id(1), sink)
            .expect_err("a number in use");
        assert!(matches!(error, CallError::RunIdInUse { .. }), "{error:?}");
        first.abort().expect("aborted");
        run.join().expect("no panic").expect("a run");
    });
}

#[test]
fn a_destroyed_model_is_not_called() {
    on_each_family(|name| {
        let handle = Model::new("").load(&open(name));
        let control = handle.control();
        assert!(!control.is_running().expect(name));
        handle.destroy().expect(name);
        assert!(matches!(control.abort(), Err(CallError::Destroyed { .. })));
        assert!(matches!(
            control.is_running(),
            Err(CallError::Destroyed { .. })
        ));
        assert!(matches!(
            control.kv_cache_size(),
            Err(CallError::Destroyed { .. })
        ));
    });
}

#[test]
fn many_runs_in_a_row_leave_no_entry_behind() {
    let model = Model::new("tokens = ['a', 'b']");
    let handle = model.load(&open("1_3_1"));
    let before = late_callbacks();
    for _ in 0..1000 {
        let (sink, collected) = collect();
        // The same number each time: one that is still in the table would be refused.
        handle
            .run(&RunInput::Prompt("x"), &DEFAULT, run_id(1), sink)
            .expect("a run");
        assert_eq!(collected.all().len(), 3);
    }
    assert_eq!(late_callbacks(), before);
}

#[test]
fn the_sink_is_gone_when_the_run_has_returned() {
    let model = Model::new("tokens = ['a']");
    let handle = model.load(&open("1_3_1"));
    struct Keeps(#[allow(dead_code, reason = "kept for its count")] Arc<()>);
    impl ResultSink for Keeps {
        fn on_result(&mut self, _: ResultView<'_>) -> Flow {
            Flow::Continue
        }
    }
    let kept = Arc::new(());
    handle
        .run(
            &RunInput::Prompt("x"),
            &DEFAULT,
            run_id(1),
            Box::new(Keeps(Arc::clone(&kept))),
        )
        .expect("a run");
    assert_eq!(Arc::strong_count(&kept), 1);
}
