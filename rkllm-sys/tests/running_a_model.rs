//! A model of every family that is run behaves the same to its caller, whatever its library does.

mod common;

use common::{Model, RUN_FAMILIES, collect, open, run_id, wait_until};
use rkllm_sys::{
    CallError, CallState, ControlHandle, CpuMask, Flow, History, ResultSink, ResultView, RunInput,
    RunMode, RunOptions, Sampling, late_callbacks,
};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

fn on_each_family(test: impl Fn(&str)) {
    for name in RUN_FAMILIES {
        test(name);
    }
}

const DEFAULT: RunOptions = RunOptions {
    history: History::Forget,
    mode: RunMode::Generate,
    per_run: None,
};

#[test]
fn tokens_come_in_order_and_finish_alone_brings_figures() {
    on_each_family(|name| {
        let model = Model::new("tokens = ['Hello', ' ', 'world']");
        let handle = model.load(&open(name));
        let (sink, collected) = collect();
        let run = run_id(7);
        handle
            .run(&RunInput::Prompt("one two"), &DEFAULT, run, sink)
            .expect(name);
        assert_eq!(collected.text(), "Hello world", "{name}");
        let all = collected.all();
        let (finish, tokens) = all.split_last().expect("results");
        assert!(all.iter().all(|seen| seen.run == run), "{name}");
        for (seen, id) in tokens.iter().zip(1000..) {
            assert_eq!(seen.state, CallState::Normal, "{name}");
            assert_eq!(seen.token_id, Some(id), "{name}");
            assert_eq!(seen.perf, None, "{name}");
        }
        assert_eq!(finish.state, CallState::Finish, "{name}");
        assert_eq!((&finish.text, finish.token_id), (&None, None), "{name}");
        let perf = finish.perf.expect("figures");
        assert_eq!(perf.generate_tokens, 2, "{name}: one less than three");
        assert_eq!(perf.prefill_tokens, 2, "{name}: as many as words");
        assert!(perf.memory_usage_mb > 0.0, "{name}");
        handle.destroy().expect(name);
    });
}

#[test]
fn half_a_character_is_waited_for() {
    on_each_family(|name| {
        let model = Model::new("tokens = ['a', { text = '€', pieces = 3 }, { bytes = [255] }]");
        let handle = model.load(&open(name));
        let (sink, collected) = collect();
        handle
            .run(&RunInput::Prompt("x"), &DEFAULT, run_id(1), sink)
            .expect(name);
        use CallState::{Finish, Normal, Waiting};
        assert_eq!(
            collected.states(),
            [Normal, Waiting, Waiting, Normal, Normal, Finish],
            "{name}"
        );
        let texts: Vec<_> = collected.all().into_iter().map(|seen| seen.text).collect();
        assert_eq!(texts[1], None, "{name}");
        assert_eq!(texts[3].as_deref(), Some("€".as_bytes()), "{name}");
        assert_eq!(texts[4].as_deref(), Some(&[255][..]), "{name}");
    });
}

/// The run's parameters as the library saw them.
fn reported(
    name: &str,
    init: impl FnOnce(&mut rkllm_sys::InitParams),
    options: impl FnOnce(&rkllm_sys::Handle) -> RunOptions,
) -> serde_json::Value {
    let model = Model::new("tokens = ['{params}']");
    let mut params = model.params();
    init(&mut params);
    let handle = open(name).init(&params).expect(name);
    let (sink, collected) = collect();
    let options = options(&handle);
    handle
        .run(&RunInput::Prompt("x"), &options, run_id(1), sink)
        .expect(name);
    serde_json::from_str(&collected.text()).expect("JSON")
}

#[test]
fn what_is_not_set_is_the_librarys_own_default() {
    on_each_family(|name| {
        let reported = reported(name, |_| {}, |_| DEFAULT);
        let init = &reported["init"];
        assert_eq!(init["max_context_len"], 512, "{name}: {reported}");
        assert_eq!(init["max_new_tokens"], -1, "{name}");
        assert_eq!(init["top_k"], 40, "{name}");
        assert_eq!(init["top_p"], 0.9, "{name}");
        assert_eq!(init["repeat_penalty"], 1.1, "{name}");
        assert_eq!(init["n_keep"], -1, "{name}");
        assert_eq!(init["skip_special_token"], 1, "{name}");
        assert_eq!(init["is_async"], 0, "{name}");
        assert_eq!(init["enabled_cpus_num"], 4, "{name}");
        assert_eq!(init["enabled_cpus_mask"], 0xF0, "{name}");
        assert_eq!(init["n_batch"], 1, "{name}");
        let run = &reported["run"];
        assert_eq!(run["role"], "user", "{name}");
        assert_eq!(run["keep_history"], 0, "{name}");
        assert!(run.get("sampling").is_none(), "{name}");
    });
}

#[test]
fn what_is_set_arrives_in_its_place() {
    on_each_family(|name| {
        let reported = reported(
            name,
            |params| {
                params.max_context_len = Some(1024);
                params.max_new_tokens = Some(77);
                params.n_keep = Some(3);
                params.skip_special_token = Some(false);
                params.base_domain_id = Some(2);
                params.enabled_cpus = Some(CpuMask(0x7));
                params.sampling = Sampling {
                    top_k: Some(1),
                    top_p: Some(0.25),
                    temperature: Some(0.5),
                    repeat_penalty: Some(1.25),
                    frequency_penalty: Some(0.75),
                    presence_penalty: Some(-0.5),
                    mirostat: Some(2),
                    mirostat_tau: Some(4.5),
                    mirostat_eta: Some(0.125),
                };
            },
            |_| RunOptions {
                history: History::Keep,
                ..DEFAULT
            },
        );
        for (field, value) in [
            ("max_context_len", 1024.0),
            ("max_new_tokens", 77.0),
            ("n_keep", 3.0),
            ("skip_special_token", 0.0),
            ("base_domain_id", 2.0),
            ("enabled_cpus_num", 3.0),
            ("enabled_cpus_mask", 7.0),
            ("top_k", 1.0),
            ("top_p", 0.25),
            ("temperature", 0.5),
            ("repeat_penalty", 1.25),
            ("frequency_penalty", 0.75),
            ("presence_penalty", -0.5),
            ("mirostat", 2.0),
            ("mirostat_tau", 4.5),
            ("mirostat_eta", 0.125),
        ] {
            let found = reported["init"][field].as_f64();
            assert_eq!(found, Some(value), "{name}: {field} in {reported}");
        }
        assert_eq!(reported["run"]["keep_history"], 1, "{name}");
    });
}

#[test]
fn sampling_per_run_exists_from_1_3_0_on_and_fills_up_from_init() {
    assert!(Model::new("").load(&open("1_2_1")).per_run().is_none());
    assert!(
        Model::new("")
            .load(&open("1_2_1"))
            .release_buffer()
            .is_none()
    );
    for name in ["1_3_0", "1_3_1"] {
        let reported = reported(
            name,
            |params| params.sampling.top_p = Some(0.75),
            |handle| {
                assert!(handle.release_buffer().is_some(), "{name}");
                let per_run = handle.per_run().expect("1.3.0 or later");
                let sampling = Sampling {
                    temperature: Some(0.25),
                    ..Sampling::default()
                };
                RunOptions {
                    per_run: Some(per_run.values(sampling, Some(9))),
                    ..DEFAULT
                }
            },
        );
        let run = &reported["run"];
        assert_eq!(run["max_new_tokens"], 9, "{name}: {reported}");
        assert_eq!(run["sampling"]["temperature"], 0.25, "{name}");
        assert_eq!(run["sampling"]["top_p"], 0.75, "{name}: from init");
        assert_eq!(run["sampling"]["top_k"], 40, "{name}: the default");
        assert_eq!(run["sampling"]["mirostat_eta"], 0.1, "{name}: the default");
    }
}

#[test]
fn per_run_values_of_one_library_are_refused_by_another_that_has_none() {
    let model = Model::new("tokens = ['x']");
    let newer = model.load(&open("1_3_1"));
    let older = model.load(&open("1_2_1"));
    let options = RunOptions {
        per_run: newer
            .per_run()
            .map(|per_run| per_run.values(Sampling::default(), Some(1))),
        ..DEFAULT
    };
    assert!(options.per_run.is_some());
    let (sink, collected) = collect();
    let error = older
        .run(&RunInput::Prompt("x"), &options, run_id(1), sink)
        .expect_err("not in the family");
    assert!(matches!(error, CallError::NotInFamily { .. }), "{error:?}");
    assert_eq!(collected.all(), []);
}

#[test]
fn max_new_tokens_of_a_run_goes_before_that_of_init() {
    for name in ["1_3_0", "1_3_1"] {
        let model = Model::new("repeat = { token = 'x', times = 100 }");
        let mut params = model.params();
        params.max_new_tokens = Some(5);
        let handle = open(name).init(&params).expect(name);
        let length = |options| {
            let (sink, collected) = collect();
            handle
                .run(&RunInput::Prompt("x"), &options, run_id(1), sink)
                .expect(name);
            collected.text().len()
        };
        assert_eq!(length(DEFAULT), 5, "{name}");
        let per_run = handle.per_run().expect(name);
        let options = RunOptions {
            per_run: Some(per_run.values(Sampling::default(), Some(12))),
            ..DEFAULT
        };
        assert_eq!(length(options), 12, "{name}");
    }
}

#[test]
fn with_an_empty_template_the_prompt_arrives_as_given() {
    on_each_family(|name| {
        let model = Model::new("echo-prompt = true");
        let handle = model.load(&open(name));
        let echoed = || {
            let (sink, collected) = collect();
            handle
                .run(&RunInput::Prompt("a <b>\n  c"), &DEFAULT, run_id(1), sink)
                .expect(name);
            collected.text()
        };
        assert_eq!(
            echoed(),
            "<|fake-user|>a <b>\n  c<|fake-assistant|>",
            "{name}"
        );
        handle.set_chat_template("", "", "").expect(name);
        assert_eq!(echoed(), "a <b>\n  c", "{name}");
        handle.set_chat_template("S", "[", "]").expect(name);
        assert_eq!(echoed(), "S[a <b>\n  c]", "{name}");
    });
}

#[test]
fn tokens_are_an_input_too() {
    on_each_family(|name| {
        let model = Model::new("echo-prompt = true");
        let handle = model.load(&open(name));
        let (sink, collected) = collect();
        handle
            .run(&RunInput::Tokens(&[5, -1, 7]), &DEFAULT, run_id(1), sink)
            .expect(name);
        assert_eq!(collected.text(), "5 -1 7", "{name}");
        let finish = collected.all().pop().and_then(|seen| seen.perf);
        assert_eq!(finish.map(|perf| perf.prefill_tokens), Some(3), "{name}");
        let (sink, _) = collect();
        let error = handle
            .run(&RunInput::Tokens(&[]), &DEFAULT, run_id(2), sink)
            .expect_err("no tokens");
        assert!(matches!(error, CallError::OutOfRange { .. }), "{error:?}");
    });
}

#[test]
fn a_nul_in_a_prompt_is_an_error_and_not_a_shorter_prompt() {
    let model = Model::new("echo-prompt = true");
    let handle = model.load(&open("1_3_1"));
    let (sink, collected) = collect();
    let error = handle
        .run(&RunInput::Prompt("ab\0c"), &DEFAULT, run_id(1), sink)
        .expect_err("a NUL");
    assert!(
        matches!(error, CallError::InteriorNul { position: 2, .. }),
        "{error:?}"
    );
    assert_eq!(collected.all(), []);
}

#[test]
fn a_prompt_that_is_too_long_fails_without_a_result() {
    on_each_family(|name| {
        let model = Model::new("tokens = ['x']");
        let mut params = model.params();
        params.max_context_len = Some(32);
        let handle = open(name).init(&params).expect(name);
        handle.set_chat_template("", "", "").expect(name);
        let prompt = |words: usize| vec!["w"; words].join(" ");
        let (sink, _) = collect();
        handle
            .run(&RunInput::Prompt(&prompt(28)), &DEFAULT, run_id(1), sink)
            .expect("the most that fits");
        let (sink, collected) = collect();
        let error = handle
            .run(&RunInput::Prompt(&prompt(29)), &DEFAULT, run_id(2), sink)
            .expect_err("too long");
        assert!(
            matches!(
                error,
                CallError::Failed {
                    function: "rkllm_run",
                    code: -1,
                    ..
                }
            ),
            "{name}: {error:?}"
        );
        assert_eq!(collected.all(), [], "{name}");
    });
}

#[test]
fn the_kv_cache_is_counted_and_cleared() {
    on_each_family(|name| {
        let model = Model::new("tokens = ['a', 'b']");
        let handle = model.load(&open(name));
        assert_eq!(handle.kv_cache_size().expect(name), 0);
        let (sink, _) = collect();
        handle
            .run(
                &RunInput::Prompt("one two three"),
                &DEFAULT,
                run_id(1),
                sink,
            )
            .expect(name);
        assert_eq!(handle.kv_cache_size().expect(name), 5, "{name}");
        handle.clear_kv_cache(false).expect(name);
        assert_eq!(handle.kv_cache_size().expect(name), 0, "{name}");
    });
}

#[test]
fn hidden_states_and_logits_come_in_their_modes_only() {
    on_each_family(|name| {
        let model = Model::new("tokens = ['a']\nembedding-size = 3\nvocab-size = 2");
        let handle = model.load(&open(name));
        let run = |mode| {
            let (sink, collected) = collect();
            let options = RunOptions { mode, ..DEFAULT };
            handle
                .run(&RunInput::Tokens(&[1, 2]), &options, run_id(1), sink)
                .expect(name);
            collected.all()
        };
        let hidden: Vec<_> = run(RunMode::LastHiddenLayer)
            .into_iter()
            .filter_map(|seen| seen.hidden)
            .collect();
        assert_eq!(hidden, [(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 3)], "{name}");
        let logits: Vec<_> = run(RunMode::Logits)
            .into_iter()
            .filter_map(|seen| seen.logits)
            .collect();
        assert_eq!(logits, [(vec![0.0, 1.0, 2.0, 3.0], 2)], "{name}");
        let plain = run(RunMode::Generate);
        assert!(
            plain
                .iter()
                .all(|seen| seen.hidden.is_none() && seen.logits.is_none())
        );
    });
}

#[test]
fn abort_from_another_thread_ends_the_run_with_one_finish() {
    on_each_family(|name| {
        // An hour, if nobody aborts it.
        let model = Model::new("repeat = { token = 'x', times = 3600 }\ntoken-delay-us = 1000000");
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
        let model = Model::new("repeat = { token = 'x', times = 1000000000 }");
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
fn callbacks_from_another_thread_are_received() {
    on_each_family(|name| {
        let model = Model::new("tokens = ['a', 'b', 'c']\ncallback-thread = 'other'");
        let handle = model.load(&open(name));
        struct Threads(Sender<std::thread::ThreadId>);
        impl ResultSink for Threads {
            fn on_result(&mut self, _: ResultView<'_>) -> Flow {
                self.0
                    .send(std::thread::current().id())
                    .expect("the test listens");
                Flow::Continue
            }
        }
        let (threads, received) = channel();
        handle
            .run(
                &RunInput::Prompt("x"),
                &DEFAULT,
                run_id(1),
                Box::new(Threads(threads)),
            )
            .expect(name);
        let threads: Vec<_> = received.try_iter().collect();
        assert_eq!(threads.len(), 4, "{name}");
        assert!(
            threads.iter().all(|id| *id != std::thread::current().id()),
            "{name}"
        );
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
                "repeat = {{ token = 'x', times = 1000000000 }}\ncallback-thread = '{thread}'"
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
            let (sink, collected) = collect();
            let control = handle.control();
            std::thread::scope(|scope| {
                let run =
                    scope.spawn(|| handle.run(&RunInput::Prompt("x"), &DEFAULT, run_id(6), sink));
                collected.wait_for_one();
                control.abort().expect(name);
                run.join()
                    .expect("no panic")
                    .expect("the next run is served");
            });
        }
    });
}

#[test]
fn release_buffer_is_an_answer_that_goes_on() {
    for name in ["1_3_0", "1_3_1"] {
        struct Release(rkllm_sys::ReleaseBuffer, Sender<CallState>);
        impl ResultSink for Release {
            fn on_result(&mut self, result: ResultView<'_>) -> Flow {
                self.1.send(result.state).expect("the test listens");
                Flow::ReleaseBuffer(self.0)
            }
        }
        let model = Model::new("tokens = ['a', 'b']");
        let handle = model.load(&open(name));
        let (states, received) = channel();
        let release = handle.release_buffer().expect(name);
        handle
            .run(
                &RunInput::Prompt("x"),
                &DEFAULT,
                run_id(1),
                Box::new(Release(release, states)),
            )
            .expect(name);
        assert_eq!(received.try_iter().count(), 3, "{name}");
    }
}

#[test]
fn an_error_state_and_a_return_code_are_both_told() {
    on_each_family(|name| {
        let model = Model::new(
            "tokens = ['a', 'b', 'c']\n[[fault]]\ncall = 'run'\nkind = 'error-state'\nafter-tokens = 2",
        );
        let handle = model.load(&open(name));
        let (sink, collected) = collect();
        let error = handle
            .run(&RunInput::Prompt("x"), &DEFAULT, run_id(1), sink)
            .expect_err("an error");
        assert!(
            matches!(error, CallError::Failed { code: -1, .. }),
            "{error:?}"
        );
        use CallState::{Error, Normal};
        assert_eq!(collected.states(), [Normal, Normal, Error], "{name}");
    });
}

#[test]
fn a_second_run_on_a_running_model_is_busy() {
    let model = Model::new("repeat = { token = 'x', times = 3600 }\ntoken-delay-us = 1000000");
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
    let model = Model::new("repeat = { token = 'x', times = 3600 }\ntoken-delay-us = 1000000");
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
fn init_without_a_handle_is_an_error() {
    on_each_family(|name| {
        let model = Model::new("[[fault]]\ncall = 'init'\nkind = 'null-handle'\noccasion = 1");
        let library = open(name);
        let error = library.init(&model.params()).expect_err("no handle");
        assert!(
            matches!(error, CallError::NoHandle { .. }),
            "{name}: {error:?}"
        );
        library.init(&model.params()).expect("the next time");
    });
}

#[test]
fn an_init_that_fails_says_so() {
    on_each_family(|name| {
        let library = open(name);
        let broken = Model::new("no-such-key = 1");
        let error = library.init(&broken.params()).expect_err("a bad scenario");
        assert!(
            matches!(
                error,
                CallError::Failed {
                    function: "rkllm_init",
                    code: -1,
                    ..
                }
            ),
            "{name}: {error:?}"
        );
        let model = Model::new("max-context-limit = 1024");
        let mut params = model.params();
        params.max_context_len = Some(1025);
        assert!(
            library.init(&params).is_err(),
            "{name}: over the model's limit"
        );
        params.max_context_len = Some(1024);
        library.init(&params).expect("at the model's limit");
    });
}

#[test]
fn values_that_no_library_takes_are_refused_before_it_sees_them() {
    let library = open("1_3_1");
    let model = Model::new("");
    let refused = |change: &dyn Fn(&mut rkllm_sys::InitParams)| {
        let mut params = model.params();
        change(&mut params);
        matches!(library.init(&params), Err(CallError::OutOfRange { .. }))
    };
    assert!(refused(&|params| params.max_context_len = Some(0)));
    assert!(refused(&|params| params.base_domain_id = Some(-1)));
    assert!(refused(&|params| params.enabled_cpus = Some(CpuMask(0))));
}

#[test]
fn is_running_that_answers_nonsense_is_an_error() {
    let model = Model::new("[[fault]]\ncall = 'is_running'\nkind = 'fail'\ncode = 17");
    let handle = model.load(&open("1_3_1"));
    let error = handle.is_running().expect_err("17");
    assert!(
        matches!(error, CallError::Failed { code: 17, .. }),
        "{error:?}"
    );
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
