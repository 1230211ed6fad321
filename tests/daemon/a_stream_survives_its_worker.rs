//! A worker's death is not a request's death: before its first token a request is run again, after
//! it the answer goes on where the text ends, byte for byte, with the counts of an answer that was
//! never interrupted.

use crate::daemon_support::{FAMILIES_RUN, Setup, chat, signal};
use crate::sixty_words::{
    CHAT, SHORT_DEADLINES, WORDS, answer_text, dies_once_read, fault, metric, read,
    read_past_a_death, read_with, scenario, start, word,
};
use rustix::process::Signal;
use serde_json::{Value, json};

#[test]
fn an_operator_can_kill_the_worker_in_the_middle_of_a_sentence() {
    for family in FAMILIES_RUN {
        let daemon = start(family, &scenario(""));
        let calm = read(&daemon, json!({}));
        assert_eq!(calm.text, answer_text(), "{family}");
        let first_worker = daemon.worker_pid();
        let mut killed = false;
        let streamed = read_with(&daemon, json!({}), |text| {
            if !killed && text.len() > 60 {
                signal(first_worker, Signal::KILL);
                killed = true;
            }
        });
        assert!(killed, "{family}");
        assert_eq!(streamed.text, answer_text(), "{family}: {streamed:?}");
        assert_eq!(streamed.finish_reason, calm.finish_reason, "{family}");
        for count in ["prompt_tokens", "completion_tokens", "total_tokens"] {
            assert_eq!(
                streamed.usage[count], calm.usage[count],
                "{family} {count}: {streamed:?}"
            );
        }
        assert_eq!(streamed.timings["resumptions"], 1, "{family}: {streamed:?}");
        assert_eq!(calm.timings.get("resumptions"), None, "{family}");
        assert_ne!(daemon.worker_pid(), first_worker, "{family}");
        assert_eq!(
            metric(&daemon, "rkllmd_runs_resumed_total{model=\"m\"}"),
            1.0
        );
        let exits = "rkllmd_worker_exits_total{model=\"m\",cause=\"killed-from-outside\"}";
        assert_eq!(metric(&daemon, exits), 1.0);
    }
}

#[test]
fn the_whole_gap_is_measured_and_what_of_it_is_not_the_next_workers_start() {
    const LOAD_S: f64 = 0.5;
    const PREFILL_S: f64 = 0.02;
    let fault = fault("call = \"run\"\nafter-tokens = 17\nonce = \"spent\"\nkind = \"segv\"");
    let daemon = start("1_3_1", &scenario(&format!("load-delay-ms = 500\n{fault}")));
    let streamed = read(&daemon, json!({}));
    assert_eq!(streamed.text, answer_text(), "{streamed:?}");
    let of = |name: &str| {
        let part = |part| {
            metric(
                &daemon,
                &format!("rkllmd_resume_{name}_seconds_{part}{{model=\"m\"}}"),
            )
        };
        assert_eq!(part("count"), 1.0, "{name}");
        part("sum")
    };
    let (gap, overhead) = (of("gap"), of("overhead"));
    assert!(gap >= LOAD_S + PREFILL_S, "{gap}");
    assert!(overhead <= gap - LOAD_S - PREFILL_S, "{overhead} of {gap}");
}

#[test]
fn every_way_to_die_between_two_tokens_is_survived() {
    for family in FAMILIES_RUN {
        for kind in ["segv", "abort", "ill", "exit", "hang"] {
            let fault = fault(&format!(
                "call = \"run\"\nafter-tokens = 17\nonce = \"spent\"\nkind = \"{kind}\""
            ));
            let daemon = start(family, &scenario(&fault));
            let streamed = read(&daemon, json!({}));
            assert_eq!(
                streamed.text,
                answer_text(),
                "{family} {kind}: {streamed:?}"
            );
            assert_eq!(
                streamed.usage["completion_tokens"], WORDS,
                "{family} {kind}"
            );
            assert_eq!(streamed.timings["resumptions"], 1, "{family} {kind}");
        }
    }
}

#[test]
fn a_death_before_the_first_token_is_invisible() {
    for family in FAMILIES_RUN {
        for kind in ["segv", "abort", "exit", "hang"] {
            for place in ["", "in-prefill = true\n"] {
                let fault = fault(&format!(
                    "call = \"run\"\n{place}once = \"spent\"\nkind = \"{kind}\""
                ));
                let daemon = start(family, &scenario(&fault));
                let streamed = read(&daemon, json!({"resume": false}));
                assert_eq!(
                    streamed.text,
                    answer_text(),
                    "{family} {kind} {place}: {streamed:?}"
                );
                assert_eq!(
                    streamed.timings.get("resumptions"),
                    None,
                    "{family} {kind} {place}"
                );
                assert_eq!(
                    metric(&daemon, "rkllmd_runs_repeated_total{model=\"m\"}"),
                    1.0
                );
            }
        }
    }
}

#[test]
fn a_death_at_every_token_leaves_the_same_bytes() {
    // The tokens of one daemon's only run that dies; half characters among them.
    let tokens = r#"["one ", {bytes = [0xc3]}, {bytes = [0xa9, 0x20]}, {text = "中 ", pieces = 3}, {bytes = [0x61, 0xf0, 0x9f]}, {bytes = [0xa6, 0x80]}, " end"]"#;
    let whole = "one é 中 a🦀 end";
    for after in 0..=8 {
        let scenario = format!(
            "tokens = {tokens}\ncontinue-answers = true\n[[fault]]\ncall = \"run\"\nafter-tokens = {after}\nonce = \"spent\"\nkind = \"segv\"\n"
        );
        let daemon = start("1_3_1", &scenario);
        let answer = daemon.post(CHAT, &chat("m", "x", json!({})));
        assert_eq!(answer.status, 200, "after {after}: {}", answer.body);
        assert_eq!(answer.content(), whole, "after {after}");
        daemon.log.wait_for("worker ended");
    }
}

#[test]
fn the_budget_and_the_stop_strings_go_on() {
    let death = dies_once_read(4);
    let words = |count: usize| (0..count).map(word).collect::<String>();
    for family in FAMILIES_RUN {
        let daemon = start(family, &scenario(&death));
        let streamed = read_past_a_death(&daemon, json!({"max_tokens": 10}), &words(4));
        assert_eq!(streamed.text, words(10), "{family}: {streamed:?}");
        assert_eq!(
            streamed.finish_reason.as_deref(),
            Some("length"),
            "{family}"
        );
        assert_eq!(streamed.usage["completion_tokens"], 10, "{family}");
        assert_eq!(streamed.timings["resumptions"], 1, "{family}");

        // Held back when the worker dies: the stop string begins before and ends after.
        let daemon = start(family, &scenario(&death));
        let stop = format!("{}{}", word(3).trim_start(), word(4));
        let streamed = read_past_a_death(&daemon, json!({"stop": [stop]}), &words(3));
        assert_eq!(streamed.text, words(3), "{family}: {streamed:?}");
        assert_eq!(streamed.finish_reason.as_deref(), Some("stop"), "{family}");

        // And released when it turns out not to be one.
        let daemon = start(family, &scenario(&death));
        let stop = format!("{}never", word(3));
        let streamed = read_past_a_death(&daemon, json!({"stop": [stop]}), &words(3));
        assert_eq!(streamed.text, answer_text(), "{family}: {streamed:?}");
    }
}

#[test]
fn the_last_token_of_the_budget_may_be_the_worker_s_last_act() {
    let fault = fault("call = \"run\"\nafter-tokens = 10\nonce = \"spent\"\nkind = \"segv\"");
    // This family learns of the budget at each token only: it goes on until it is told to stop.
    let daemon = start("1_2_1", &scenario(&fault));
    let streamed = read(&daemon, json!({"max_tokens": 10}));
    let ten: String = (0..10).map(word).collect();
    assert_eq!(streamed.text, ten, "{streamed:?}");
    assert_eq!(streamed.finish_reason.as_deref(), Some("length"));
}

#[test]
fn resuming_can_be_switched_off() {
    let death = dies_once_read(4);
    let four: String = (0..4).map(word).collect();
    let by_request = start("1_3_1", &scenario(&death));
    let streamed = read_past_a_death(&by_request, json!({"resume": false}), &four);
    let error = streamed.error.expect("an error");
    assert_eq!(error["code"], "answer_interrupted", "{error}");
    assert!(
        error["message"].as_str().unwrap().contains("SIGSEGV"),
        "{error}"
    );
    let refused = "rkllmd_resumes_refused_total{model=\"m\",reason=\"switched-off\"}";
    assert_eq!(metric(&by_request, refused), 1.0);

    let by_setting = Setup::new()
        .settings("recovery.resume = false")
        .scenario("m", &scenario(&death))
        .start();
    let streamed = read_past_a_death(&by_setting, json!({}), &four);
    assert_eq!(
        streamed.error.expect("an error")["code"],
        "answer_interrupted"
    );
    let whole = read(&by_setting, json!({"resume": true}));
    assert_eq!(whole.text, answer_text(), "{whole:?}");
}

#[test]
fn an_answer_that_another_worker_makes_otherwise_ends_and_is_not_told_twice() {
    let fault = format!(
        "{}{}",
        fault(
            "call = \"run\"\nafter-tokens = 3\nwhen-file = \"differs\"\nkind = \"special-token\"\nid = 7"
        ),
        dies_once_read(6),
    );
    let six: String = (0..6).map(word).collect();
    for differs in [false, true] {
        let daemon = start("run_extension", &scenario(&fault));
        let beside_the_model = daemon.folder().join("models/m");
        let repeats = json!({"seed": 1, "deterministic": true});
        let streamed = read_with(&daemon, repeats, |text| {
            if text != six {
                return;
            }
            if differs {
                let other = beside_the_model.join("differs");
                std::fs::write(other, "").expect("the file of another token");
            }
            let read = beside_the_model.join("read");
            std::fs::write(read, "").expect("the file that lets it die");
        });
        let page = daemon.get("/metrics").body;
        let refused = "rkllmd_resumes_refused_total{model=\"m\",reason=\"differs\"} 1";
        assert_eq!(page.contains(refused), differs, "{page}");
        if !differs {
            assert_eq!(streamed.text, answer_text(), "{streamed:?}");
            assert_eq!(streamed.timings["resumptions"], 1, "{streamed:?}");
            continue;
        }
        assert_eq!(streamed.text, six, "{streamed:?}");
        let error = streamed.error.expect("an error");
        assert_eq!(error["code"], "answer_interrupted", "{error}");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|message| message.contains("does not make the same of it")),
            "{error}"
        );
    }
}

#[test]
fn a_death_behind_the_token_that_ends_the_answer_costs_nothing() {
    let all = WORDS + 1;
    let fault = format!(
        "eos-token-id = 2\n{}",
        fault(&format!(
            "call = \"run\"\nafter-tokens = {all}\nonce = \"spent\"\nkind = \"segv\""
        ))
    );
    for family in FAMILIES_RUN {
        let daemon = start(family, &scenario(&fault));
        let streamed = read(&daemon, json!({}));
        assert_eq!(streamed.text, answer_text(), "{family}: {streamed:?}");
        assert_eq!(streamed.finish_reason.as_deref(), Some("stop"));
        assert_eq!(streamed.usage["completion_tokens"], all);
        assert_eq!(streamed.timings["resumptions"], 1);
    }
}

#[test]
fn an_answer_is_complete_although_the_library_ignores_its_end() {
    let ignored = format!(
        "{}eos-token-id = 2\neos-ignored = true\n{}",
        scenario(""),
        fault("call = \"abort\"\nkind = \"ignore\"")
    );
    for family in FAMILIES_RUN {
        let daemon = Setup::with_family(family)
            .settings(SHORT_DEADLINES)
            .scenario("m", &ignored)
            .model_file("m", "model.toml", "template = \"chatml\"\neos-ids = [2]\n")
            .start();
        let streamed = read(&daemon, json!({}));
        assert_eq!(streamed.text, answer_text(), "{family}: {streamed:?}");
        assert_eq!(streamed.finish_reason.as_deref(), Some("stop"));
        assert_eq!(streamed.timings["resumptions"], Value::Null, "{family}");
        let budget = read(&daemon, json!({"max_tokens": 5}));
        assert_eq!(budget.text, (0..5).map(word).collect::<String>());
        assert_eq!(budget.finish_reason.as_deref(), Some("length"));
    }
}
