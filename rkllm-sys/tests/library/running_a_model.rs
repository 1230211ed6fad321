//! A model of every family that is run behaves the same to its caller, whatever its library does.

use crate::common::{DEFAULT, Model, collect, on_each_family, open, run_id};
use rkllm_sys::{
    CallError, CallState, Flow, ResultSink, ResultView, RunInput, RunMode, RunOptions,
};
use std::sync::mpsc::{Sender, channel};

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
fn is_running_that_answers_nonsense_is_an_error() {
    let model = Model::new("[[fault]]\ncall = 'is_running'\nkind = 'fail'\ncode = 17");
    let handle = model.load(&open("1_3_1"));
    let error = handle.is_running().expect_err("17");
    assert!(
        matches!(error, CallError::Failed { code: 17, .. }),
        "{error:?}"
    );
}
