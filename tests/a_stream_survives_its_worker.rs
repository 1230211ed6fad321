//! A worker's death is not a request's death: before its first token a request is run again, after
//! it the answer goes on where the text ends, byte for byte, with the counts of an answer that was
//! never interrupted.

mod daemon_support;

use daemon_support::{Daemon, FAMILIES_RUN, Setup, chat, eventually, signal};
use rustix::process::Signal;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const WORDS: usize = 60;

/// What the scenario answers: words with characters of one to four bytes.
fn answer_text() -> String {
    (0..WORDS).map(word).collect()
}

fn word(n: usize) -> String {
    format!("{}{n} ", ["a", "é", "中", "🦀"][n % 4])
}

/// A scenario with that answer, 2 ms a token, and a fault.
fn scenario(fault: &str) -> String {
    let words: Vec<String> = (0..WORDS).map(|n| format!("{:?}", word(n))).collect();
    format!(
        "tokens = [{}]\ncontinue-answers = true\ntoken-delay-us = 2000\nprefill-delay-ms = 20\n{fault}\n",
        words.join(", ")
    )
}

fn fault(lines: &str) -> String {
    format!("[[fault]]\n{lines}\n")
}

const SHORT_DEADLINES: &str = r#"
deadlines.prefill-base = "1s"
deadlines.prefill-per-token = "1ms"
deadlines.inter-token = "1s"
deadlines.control-call = "1s"
deadlines.abort-to-finish = "1s"
deadlines.heartbeat = "2s"
"#;

fn start(family: &str, scenario: &str) -> Daemon {
    Setup::with_family(family)
        .settings(SHORT_DEADLINES)
        .scenario("m", scenario)
        .start()
}

/// A streamed answer, read to its end.
#[derive(Debug, Default)]
struct Streamed {
    text: String,
    finish_reason: Option<String>,
    usage: Value,
    timings: Value,
    error: Option<Value>,
}

fn read(daemon: &Daemon, extra: Value) -> Streamed {
    read_with(daemon, extra, |_| {})
}

/// `at_text` is called with all text so far, after each piece.
fn read_with(daemon: &Daemon, extra: Value, mut at_text: impl FnMut(&str)) -> Streamed {
    let mut body = chat(
        "m",
        "x",
        json!({"stream": true, "stream_options": {"include_usage": true}}),
    );
    if let (Value::Object(body), Value::Object(extra)) = (&mut body, extra) {
        body.extend(extra);
    }
    let mut stream = daemon.stream(CHAT, &body);
    let mut streamed = Streamed::default();
    while let Some(data) = stream.next_data() {
        if data == "[DONE]" {
            break;
        }
        let chunk: Value = serde_json::from_str(&data).expect("JSON");
        if let Some(error) = chunk.get("error") {
            streamed.error = Some(error.clone());
            break;
        }
        let choice = &chunk["choices"][0];
        if let Some(text) = choice["delta"]["content"].as_str() {
            streamed.text.push_str(text);
            at_text(&streamed.text);
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            streamed.finish_reason = Some(reason.to_owned());
            streamed.timings = chunk["timings"].clone();
        }
        if chunk["usage"].is_object() {
            streamed.usage = chunk["usage"].clone();
        }
    }
    streamed
}

fn metric(daemon: &Daemon, name_and_labels: &str) -> f64 {
    let page = daemon.get("/metrics").body;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name_and_labels))
        .unwrap_or_else(|| panic!("no {name_and_labels} in {page}"));
    line.trim().parse().expect("a number")
}

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
    let fault = fault("call = \"run\"\nafter-tokens = 4\nonce = \"spent\"\nkind = \"segv\"");
    for family in FAMILIES_RUN {
        let daemon = start(family, &scenario(&fault));
        let streamed = read(&daemon, json!({"max_tokens": 10}));
        let ten: String = (0..10).map(word).collect();
        assert_eq!(streamed.text, ten, "{family}: {streamed:?}");
        assert_eq!(
            streamed.finish_reason.as_deref(),
            Some("length"),
            "{family}"
        );
        assert_eq!(streamed.usage["completion_tokens"], 10, "{family}");
        assert_eq!(streamed.timings["resumptions"], 1, "{family}");

        // Held back when the worker dies: the stop string begins before and ends after.
        let daemon = start(family, &scenario(&fault));
        let stop = format!("{}{}", word(3).trim_start(), word(4));
        let streamed = read(&daemon, json!({"stop": [stop]}));
        let three: String = (0..3).map(word).collect();
        assert_eq!(streamed.text, three, "{family}: {streamed:?}");
        assert_eq!(streamed.finish_reason.as_deref(), Some("stop"), "{family}");

        // And released when it turns out not to be one.
        let daemon = start(family, &scenario(&fault));
        let stop = format!("{}never", word(3));
        let streamed = read(&daemon, json!({"stop": [stop]}));
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
    let fault = fault("call = \"run\"\nafter-tokens = 4\nonce = \"spent\"\nkind = \"segv\"");
    let by_request = start("1_3_1", &scenario(&fault));
    let streamed = read(&by_request, json!({"resume": false}));
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
        .scenario("m", &scenario(&fault))
        .start();
    let streamed = read(&by_setting, json!({}));
    assert_eq!(
        streamed.error.expect("an error")["code"],
        "answer_interrupted"
    );
    let whole = read(&by_setting, json!({"resume": true}));
    assert_eq!(whole.text, answer_text(), "{whole:?}");
}

#[test]
fn an_answer_with_a_token_that_is_not_printed_is_not_continued_by_its_text() {
    let fault = format!(
        "{}{}",
        fault("call = \"run\"\nafter-tokens = 3\nkind = \"special-token\"\nid = 7"),
        fault("call = \"run\"\nafter-tokens = 6\nonce = \"spent\"\nkind = \"segv\""),
    );
    for family in FAMILIES_RUN {
        let daemon = start(family, &scenario(&fault));
        let streamed = read(&daemon, json!({}));
        let error = streamed.error.expect("an error");
        assert_eq!(error["code"], "answer_interrupted", "{family}: {error}");
        assert!(
            error["message"].as_str().unwrap().contains("special token"),
            "{error}"
        );
        let refused = "rkllmd_resumes_refused_total{model=\"m\",reason=\"special-token\"}";
        assert_eq!(metric(&daemon, refused), 1.0);
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
fn a_request_that_kills_two_workers_is_refused_and_nobody_else_is() {
    let mut text = scenario(&fault(
        "call = \"run\"\nwhen-prompt-contains = \"poison\"\nafter-tokens = 2\nkind = \"segv\"",
    ));
    text.insert_str(0, "load-delay-ms = 50\n");
    let daemon = start("1_3_1", &text);
    std::thread::scope(|scope| {
        let poison = scope.spawn(|| daemon.post(CHAT, &chat("m", "poison", json!({}))));
        let others: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| daemon.post(CHAT, &chat("m", "x", json!({})))))
            .collect();
        let refused = poison.join().expect("an answer");
        assert_eq!(refused.status, 422, "{}", refused.body);
        assert_eq!(refused.error_code(), "poison_request");
        for other in others {
            let answer = other.join().expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(answer.content(), answer_text());
        }
    });
    assert_eq!(
        metric(&daemon, "rkllmd_runs_resumed_total{model=\"m\"}"),
        1.0
    );
}

#[test]
fn kills_from_outside_are_nobody_s_poison() {
    let daemon = start("1_3_1", &scenario(""));
    let mut killed = 0;
    let streamed = read_with(&daemon, json!({}), |text| {
        if killed < 3 && text.len() > 60 * (killed + 1) {
            signal(daemon.worker_pid(), Signal::KILL);
            killed += 1;
        }
    });
    assert_eq!(streamed.text, answer_text(), "{streamed:?}");
    assert_eq!(streamed.timings["resumptions"], 3, "{streamed:?}");
}

#[test]
fn a_stopped_worker_is_replaced() {
    for family in FAMILIES_RUN {
        let daemon = start(family, &scenario(""));
        let mut stopped = None;
        let streamed = read_with(&daemon, json!({}), |text| {
            if stopped.is_none() && text.len() > 60 {
                let pid = daemon.worker_pid();
                signal(pid, Signal::STOP);
                stopped = Some(pid);
            }
        });
        assert_eq!(streamed.text, answer_text(), "{family}: {streamed:?}");
        let heartbeat = "rkllmd_deadlines_passed_total{deadline=\"heartbeat\"}";
        assert_eq!(metric(&daemon, heartbeat), 1.0, "{family}");
        let pid = stopped.expect("stopped");
        eventually("the end of the stopped worker", || {
            (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        });
    }
}

#[test]
fn a_worker_that_dies_idle_is_replaced_before_anybody_asks() {
    let daemon = start("1_3_1", &scenario(""));
    assert_eq!(read(&daemon, json!({})).text, answer_text());
    let first = daemon.worker_pid();
    signal(first, Signal::SEGV);
    eventually("another worker", || {
        (daemon.phase("m") == "ready" && daemon.worker_pid() != first).then_some(())
    });
    let line = daemon.log.wait_for("worker ended");
    assert!(
        line.contains("sigsegv") && line.contains("uptime_ms"),
        "{line}"
    );
}

#[test]
fn a_crash_loop_is_a_state_and_not_a_spin() {
    let daemon = Setup::new()
        .settings("recovery.backoff-first = \"30s\"")
        .scenario(
            "m",
            &format!(
                "tokens = [\"x\"]\n{}",
                fault("call = \"run\"\nkind = \"segv\"")
            ),
        )
        .start();
    let refused = daemon.post(CHAT, &chat("m", "x", json!({})));
    assert_eq!(refused.error_code(), "poison_request", "{}", refused.body);
    daemon.wait_for_phase("m", "failed");
    let ready = daemon.get("/v1/ready");
    assert_eq!(ready.status, 503, "{}", ready.body);
    let model = daemon_support::find_model(&ready.json(), "m").clone();
    assert!(
        model["reason"].as_str().unwrap().contains("SIGSEGV"),
        "{model}"
    );
    let next_try = model["retry_after"].as_u64().expect("seconds");
    assert!((1..=36).contains(&next_try), "{model}");
    assert_eq!(
        daemon_support::children(daemon.pid()).len(),
        0,
        "nothing is started meanwhile"
    );
}

#[test]
fn a_total_deadline_ends_a_living_request() {
    let daemon = start("1_3_1", &scenario(""));
    // The deadline counts from the request on, loading included.
    assert_eq!(read(&daemon, json!({})).text, answer_text());
    let streamed = read(&daemon, json!({"total_deadline_ms": 60}));
    let error = streamed.error.expect("an error");
    assert_eq!(error["code"], "deadline_exceeded", "{error}");
    assert!(
        error["message"].as_str().unwrap().contains("`total`"),
        "{error}"
    );
    assert_eq!(
        metric(&daemon, "rkllmd_deadlines_passed_total{deadline=\"total\"}"),
        1.0
    );
    assert_eq!(
        read(&daemon, json!({})).text,
        answer_text(),
        "the worker is free again"
    );
}

#[test]
fn a_total_deadline_counts_in_the_queue_too() {
    let scenario = "repeat = { token = \"w \", times = 4000 }\ntoken-delay-us = 2000\n";
    let daemon = start("1_3_1", scenario);
    let first = chat("m", "x", json!({"stream": true}));
    let mut stream = daemon.stream(CHAT, &first);
    assert!(stream.next_content().is_some(), "the worker is busy");
    let second = daemon.post(CHAT, &chat("m", "x", json!({"total_deadline_ms": 50})));
    assert_eq!(second.error_code(), "deadline_exceeded", "{}", second.body);
}

#[test]
fn a_total_deadline_is_not_held_up_by_who_came_earlier_and_may_wait() {
    let scenario = "repeat = { token = \"w \", times = 4000 }\ntoken-delay-us = 20000\n";
    let daemon = start("1_3_1", scenario);
    let mut running = daemon.stream(CHAT, &chat("m", "x", json!({"stream": true})));
    assert!(running.next_content().is_some(), "the worker is busy");
    let waiting = daemon.stream(CHAT, &chat("m", "x", json!({"stream": true})));
    eventually("the first waiter", || {
        (metric(&daemon, "rkllmd_queue_length{model=\"m\"}") == 1.0).then_some(())
    });
    let short = daemon.post(CHAT, &chat("m", "x", json!({"total_deadline_ms": 50})));
    assert_eq!(short.error_code(), "deadline_exceeded", "{}", short.body);
    // The running answer takes 80 s; it is still being made.
    assert!(running.next_content().is_some());
    assert_eq!(metric(&daemon, "rkllmd_queue_length{model=\"m\"}"), 1.0);
    drop(waiting);
}

/// Ten minutes of prefill, which no abort interrupts.
const LONG_PREFILL: &str = "tokens = [\"x\"]\nprefill-delay-ms = 600000\n";
const PATIENT: &str = "deadlines.prefill-base = \"1h\"\ndeadlines.abort-to-finish = \"1h\"";

#[test]
fn a_total_deadline_is_told_although_the_library_does_not_listen() {
    let daemon = Setup::new()
        .settings(PATIENT)
        .scenario("m", LONG_PREFILL)
        .start();
    let late = daemon.post(CHAT, &chat("m", "x", json!({"total_deadline_ms": 300})));
    assert_eq!(late.error_code(), "deadline_exceeded", "{}", late.body);
}

#[test]
fn a_shutdown_is_told_although_the_library_does_not_listen() {
    let daemon = Setup::new()
        .settings(PATIENT)
        .settings("deadlines.drain = \"3s\"\nhttp.header-delay = \"100ms\"")
        .scenario("m", LONG_PREFILL)
        .start();
    let stream = daemon.stream(CHAT, &chat("m", "x", json!({"stream": true})));
    daemon.signal(Signal::TERM);
    let events = stream.collect();
    let (_, last) = events.last().expect("events");
    assert!(last.contains("shutting_down"), "{last}");
    assert!(daemon.wait().success());
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

#[test]
fn bytes_that_are_no_text_are_not_continued_by_their_text() {
    let scenario = format!(
        "tokens = [\"one \", {{ bytes = [255] }}, \"two \", \"three\"]\ncontinue-answers = true\n\
         token-delay-us = 2000\n{}",
        fault("call = \"run\"\nafter-tokens = 3\nonce = \"spent\"\nkind = \"segv\"")
    );
    let daemon = start("1_3_1", &scenario);
    let streamed = read(&daemon, json!({}));
    let error = streamed.error.expect("an error");
    assert_eq!(error["code"], "answer_interrupted", "{error}");
    assert!(
        error["message"].as_str().unwrap().contains("UTF-8"),
        "{error}"
    );
    assert_eq!(read(&daemon, json!({})).text, "one \u{fffd}two three");
}

/// Makes one token of each word, as the fake runtime counts them.
const TOKENIZER: &str = r#"{
    "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
    "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
    "model": {"type": "WordLevel", "vocab": {"[unknown]": 0}, "unk_token": "[unknown]"}
}"#;

#[test]
fn tokens_that_are_not_printed_are_handed_over_where_the_tokenizer_is_known_to_agree() {
    for family in FAMILIES_RUN {
        let scenario = "tokens = [\"one \", {text = \"\", id = 7}, \"two \", \"three \", \"four\"]\n\
            continue-answers = true\ntoken-delay-us = 2000\nreport-params = true\n\
            [[fault]]\ncall = \"run\"\noccasion = 2\nafter-tokens = 3\nonce = \"spent\"\nkind = \"segv\"\n";
        let daemon = Setup::with_family(family)
            .scenario("m", scenario)
            .model_file("m", "tokenizer.json", TOKENIZER)
            .start();
        // The first run shows that the runtime makes the same tokens as the tokenizer.
        let calm = read(&daemon, json!({}));
        assert_eq!(calm.text, "one two three four", "{family}");
        let resumed = read(&daemon, json!({}));
        assert_eq!(resumed.text, calm.text, "{family}: {resumed:?}");
        assert_eq!(resumed.timings["resumptions"], 1, "{family}: {resumed:?}");
        for count in ["prompt_tokens", "completion_tokens"] {
            assert_eq!(
                resumed.usage[count], calm.usage[count],
                "{family} {count}: {resumed:?}"
            );
        }
        let line = daemon.log.wait_for("resuming an answer");
        assert!(line.contains("by_tokens=true"), "{line}");
    }
}
