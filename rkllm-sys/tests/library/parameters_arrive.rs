//! What a caller sets reaches the library in the place its family has for it, what is not set is
//! the library's own, and what no library could take is refused before.

use crate::common::{DEFAULT, Model, collect, on_each_family, open, run_id};
use rkllm_sys::{
    CallError, CpuMask, Handle, History, InitParams, RunExtras, RunInput, RunItem, RunOptions,
    Sampling,
};

/// The run's parameters as the library saw them.
fn reported(
    name: &str,
    init: impl FnOnce(&mut InitParams),
    options: impl FnOnce(&Handle) -> RunOptions,
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
fn a_sequence_without_an_input_is_given_to_no_library_that_knows_none() {
    on_each_family(|name| {
        let model = Model::new("echo-prompt = true");
        let params = InitParams {
            n_batch: Some(2),
            ..model.params()
        };
        let library = open(name);
        assert!(!library.takes_idle_sequences(), "{name}");
        let handle = library.init(&params).expect(name);
        let (sink, collected) = collect();
        let items = [RunInput::Prompt("a"), RunInput::Nothing].map(RunItem::user);
        let error = handle
            .run_batch(&items, &DEFAULT, &RunExtras::default(), run_id(1), sink)
            .expect_err("no input");
        assert!(matches!(error, CallError::NotInLibrary { .. }), "{error:?}");
        assert_eq!(collected.all(), []);
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
fn values_that_no_library_takes_are_refused_before_it_sees_them() {
    let library = open("1_3_1");
    let model = Model::new("");
    let refused = |change: &dyn Fn(&mut InitParams)| {
        let mut params = model.params();
        change(&mut params);
        matches!(library.init(&params), Err(CallError::OutOfRange { .. }))
    };
    assert!(refused(&|params| params.max_context_len = Some(0)));
    assert!(refused(&|params| params.base_domain_id = Some(-1)));
    assert!(refused(&|params| params.enabled_cpus = Some(CpuMask(0))));
}
