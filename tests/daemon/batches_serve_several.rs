//! A model with `batch`: requests that wait and are alike are made in one run of the library, each with an end of
//! its own, and a worker's death is none of theirs.

use std::sync::mpsc::channel;
use std::thread;

use crate::daemon_support::{Daemon, Setup, chat, eventually, signal, word_tokenizer};
use crate::slots_support::{CHAT, LONG_CONTEXT, answer, file, gauge, read, streamed, words};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The deadlines are those that a daemon has: here runs wait for the test.
const RECOVERY: &str = r#"
recovery.backoff-first = "1ms"
recovery.backoff-longest = "10ms"
http.slow-reader-timeout = "2m"
"#;

fn start(batch: u8, scenario: &str) -> Daemon {
    let manifest =
        format!("template = \"chatml\"\nbatch = {batch}\ncontext-length = {LONG_CONTEXT}\n");
    let scenario = format!(
        "max-context-limit = {LONG_CONTEXT}\ncontinue-answers = true\n{scenario}{}\
         [[fault]]\ncall = \"run\"\nkind = \"wait\"\ntext = \"go\"\nafter-tokens = 1\n\
         when-prompt-contains = \"blocker\"\n",
        answer("blocker", 3)
    );
    Setup::new()
        .settings(RECOVERY)
        .scenario("m", &scenario)
        .model_file("m", "model.toml", &manifest)
        .start()
}

/// Does `ask` while an answer is made, and ends that once so many wait.
fn behind_a_blocker<T>(daemon: &Daemon, waiting: usize, ask: impl FnOnce(&dyn Fn()) -> T) -> T {
    let mut blocker = daemon.stream(CHAT, &streamed("blocker"));
    blocker.next_content().expect("a token");
    let release = || {
        eventually("all wait", || {
            let length = gauge(daemon, "rkllmd_queue_length")?;
            (length == waiting.to_string()).then_some(())
        });
        file(daemon, "go");
    };
    let asked = ask(&release);
    let rest: String = std::iter::from_fn(|| blocker.next_content()).collect();
    assert_eq!(rest, words("blocker", 3)[1..].concat());
    asked
}

fn counter(daemon: &Daemon, name: &str) -> String {
    gauge(daemon, name).expect("it was counted")
}

/// An answer that does not go on behind so many tokens before there is a file.
fn held(name: &str, tokens: usize, at: usize, file: &str) -> String {
    format!(
        "{}[[fault]]\ncall = \"run\"\nkind = \"wait\"\ntext = {file:?}\nafter-tokens = {at}\n\
         when-prompt-contains = {name:?}\n",
        answer(name, tokens)
    )
}

#[test]
fn requests_that_wait_are_made_in_one_batch() {
    let scenario = answer("alpha", 4) + &answer("beta", 9);
    let daemon = start(4, &scenario);
    behind_a_blocker(&daemon, 4, |release| {
        thread::scope(|scope| {
            let names = [("alpha", 4), ("beta", 9), ("alpha", 4), ("beta", 9)];
            let answers = names.map(|(name, count)| {
                let daemon = &daemon;
                let body = chat("m", name, json!({}));
                (name, count, scope.spawn(move || daemon.post(CHAT, &body)))
            });
            release();
            for (name, count, answer) in answers {
                let answer = answer.join().expect("an answer");
                assert_eq!(answer.content(), words(name, count).concat());
            }
        });
    });
    assert_eq!(counter(&daemon, "rkllmd_batches_total"), "2");
    assert_eq!(counter(&daemon, "rkllmd_batched_requests_total"), "5");
}

#[test]
fn what_is_drawn_otherwise_is_another_batch() {
    let daemon = start(4, &answer("alpha", 4));
    behind_a_blocker(&daemon, 3, |release| {
        thread::scope(|scope| {
            let answers = [0.5, 0.5, 1.5].map(|temperature| {
                let daemon = &daemon;
                let body = chat("m", "alpha", json!({"temperature": temperature}));
                let answer = scope.spawn(move || daemon.post(CHAT, &body));
                eventually("it waits", || {
                    (gauge(daemon, "rkllmd_queue_length")? != "0").then_some(())
                });
                answer
            });
            release();
            for answer in answers {
                let answer = answer.join().expect("an answer");
                assert_eq!(answer.content(), words("alpha", 4).concat());
            }
        });
    });
    assert_eq!(counter(&daemon, "rkllmd_batched_requests_total"), "4");
    let batches = counter(&daemon, "rkllmd_batches_total");
    // The one in the middle of the others parts them.
    assert!(["3", "4"].contains(&&*batches), "{batches}");
}

#[test]
fn who_goes_away_frees_its_place_and_disturbs_no_other() {
    let daemon = start(2, &(held("alpha", 40, 20, "on") + &answer("beta", 40)));
    let mut pid = 0;
    let text = behind_a_blocker(&daemon, 2, |release| {
        thread::scope(|scope| {
            let going = scope.spawn(|| {
                let mut going = daemon.stream(CHAT, &streamed("beta"));
                going.next_content().expect("a token");
                going
            });
            let staying = scope.spawn(|| read(&daemon, "alpha", |_| {}));
            release();
            drop(going.join().expect("a stream"));
            pid = daemon.worker_pid();
            eventually("one place is free", || {
                (gauge(&daemon, "rkllmd_slots_in_use")? == "1").then_some(())
            });
            file(&daemon, "on");
            staying.join().expect("an answer")
        })
    });
    assert_eq!(text, words("alpha", 40).concat());
    assert_eq!(daemon.worker_pid(), pid);
}

#[test]
fn a_stop_text_ends_its_answer_while_others_go_on() {
    let daemon = start(2, &(held("alpha", 12, 10, "on") + &answer("beta", 12)));
    let text = behind_a_blocker(&daemon, 2, |release| {
        thread::scope(|scope| {
            let staying = scope.spawn(|| read(&daemon, "alpha", |_| {}));
            let body = chat("m", "beta", json!({"stop": "beta4"}));
            let other = &daemon;
            let stopped = scope.spawn(move || other.post(CHAT, &body));
            release();
            let stopped = stopped.join().expect("an answer");
            assert_eq!(stopped.content(), words("beta", 4).concat());
            file(&daemon, "on");
            staying.join().expect("an answer")
        })
    });
    assert_eq!(text, words("alpha", 12).concat());
}

#[test]
fn a_workers_death_interrupts_none_of_a_batch() {
    let names = ["alpha", "beta", "gamma"];
    let answers: Vec<String> = names.iter().map(|name| answer(name, 300)).collect();
    // Only what was begun by a worker that was lost has its words in the prompt.
    let held = "[[fault]]\ncall = \"run\"\nkind = \"wait\"\ntext = \"on\"\nafter-tokens = 0\n\
        when-prompt-contains = \"alpha0\"\n";
    let daemon = start(
        3,
        &format!("token-delay-us = 10000\n{}{held}", answers.concat()),
    );
    let texts = behind_a_blocker(&daemon, 3, |release| {
        thread::scope(|scope| {
            let (begun, told) = channel();
            let texts = names.map(|name| {
                let (daemon, begun) = (&daemon, begun.clone());
                scope.spawn(move || {
                    read(daemon, name, |_| {
                        let _ = begun.send(name);
                    })
                })
            });
            release();
            let mut all: Vec<&str> = names.into();
            while !all.is_empty() {
                let one = told.recv().expect("an answer that begins");
                all.retain(|name| *name != one);
            }
            let first = daemon.worker_pid();
            signal(first, Signal::KILL);
            eventually("all go on together", || {
                let all = gauge(&daemon, "rkllmd_slots_in_use")? == "3";
                (all && daemon.worker_pid() != first).then_some(())
            });
            file(&daemon, "on");
            texts.map(|text| text.join().expect("an answer"))
        })
    });
    for (name, text) in names.iter().zip(texts) {
        assert_eq!(text, words(name, 300).concat(), "{name}");
    }
}

#[test]
fn a_poison_in_a_batch_ends_alone() {
    for (kind, code) in [("segv", "poison_request"), ("error-state", "run_failed")] {
        let poison = format!(
            "[[fault]]\ncall = \"run\"\nkind = {kind:?}\nafter-tokens = 3\n\
             when-prompt-contains = \"poison\"\n"
        );
        // A probe has to come further than what fails.
        let probe = "repeat = { token = \"w \", times = 40 }\n".to_owned();
        let answers = probe + &answer("alpha", 20) + &answer("poison", 20);
        let daemon = start(3, &(answers + &poison));
        behind_a_blocker(&daemon, 3, |release| {
            thread::scope(|scope| {
                let ask = |name: &'static str| {
                    let daemon = &daemon;
                    scope.spawn(move || daemon.post(CHAT, &chat("m", name, json!({}))))
                };
                let (one, poison, other) = (ask("alpha"), ask("poison"), ask("alpha"));
                release();
                for innocent in [one, other] {
                    let innocent = innocent.join().expect("an answer");
                    assert_eq!(innocent.content(), words("alpha", 20).concat(), "{kind}");
                }
                let poison = poison.join().expect("an answer");
                assert_eq!(poison.error_code(), code, "{}", poison.body);
            });
        });
    }
}

#[test]
fn who_does_not_read_holds_up_no_later_batch() {
    // So many events that neither sockets nor the channel before them hold all.
    const TOKEN_BYTES: usize = 2_000;
    const TOKENS: usize = 12_000;
    let long = "x".repeat(TOKEN_BYTES);
    let scenario = format!(
        "[[answer]]\nwhen-prompt-contains = \"alpha\"\n\
         repeat = {{ token = {long:?}, times = {TOKENS} }}\n{}",
        answer("beta", 4)
    );
    let daemon = start(2, &scenario);
    let mut unread = daemon.stream(CHAT, &streamed("alpha"));
    let first = unread.next_content().expect("a token");
    let other = daemon.post(CHAT, &chat("m", "beta", json!({})));
    assert_eq!(other.content(), words("beta", 4).concat());
    let rest: usize = std::iter::from_fn(|| unread.next_content())
        .map(|text| text.len())
        .sum();
    assert_eq!(first.len() + rest, TOKENS * TOKEN_BYTES, "it has lost some");
}

#[test]
fn each_answer_of_a_batch_has_times_of_its_own() {
    const STEP_MS: f64 = 5.0;
    let delay = "token-delay-us = 5000\n".to_owned();
    let daemon = start(2, &(delay + &answer("alpha", 4) + &answer("beta", 12)));
    behind_a_blocker(&daemon, 2, |release| {
        thread::scope(|scope| {
            let answers = [("alpha", 4), ("beta", 12)].map(|(name, count)| {
                let (daemon, body) = (&daemon, chat("m", name, json!({})));
                (count, scope.spawn(move || daemon.post(CHAT, &body)))
            });
            release();
            for (count, answer) in answers {
                let answer = answer.join().expect("an answer").json();
                let timings = &answer["timings"];
                let told = |name: &str| timings[name].as_f64().expect("it was measured");
                let (first, others) = (told("prompt_ms"), told("predicted_ms"));
                // Sleeps are never shorter; the first one is the prompts'.
                assert!(first >= STEP_MS - 0.01, "{timings}");
                let in_all = first + others;
                assert!(in_all >= f64::from(count) * STEP_MS - 0.01, "{timings}");
                let made = told("predicted_per_second") * others / 1000.0;
                assert!((made - f64::from(count - 1)).abs() < 0.1, "{timings}");
                assert!(timings["prompt_n"].is_null(), "{timings}: the library's");
            }
        });
    });
}

#[test]
fn a_lone_answer_evaluates_no_other_prompt() {
    let daemon = Setup::new()
        .demo_model("m")
        .model_file("m", "model.toml", "batch = 4\ncontext-length = 512\n")
        .demo_model_again("alone")
        .model_file("alone", "model.toml", "context-length = 512\n")
        .start();
    let told = |model: &str| {
        let more = json!({"max_tokens": 8, "temperature": 0});
        let answer = daemon.post(CHAT, &chat(model, "Count from one to a hundred.", more));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let timings = answer.json()["timings"].clone();
        assert!(timings["prompt_ms"].as_f64().is_some(), "{timings}");
        let rate = timings["predicted_per_second"].as_f64();
        assert!(rate.is_some_and(|rate| rate > 0.0), "{timings}");
        timings["prompt_n"].as_u64().expect("the library's figure")
    };
    assert_eq!(told("m"), told("alone"));
    // Nothing of the one before is reused, and nothing more is evaluated.
    assert_eq!(told("m"), told("m"));
}

#[test]
fn what_reads_logits_is_refused() {
    let daemon = Setup::new()
        .scenario("m", "tokens = [\"a\", \"b\"]\n")
        .model_file("m", "tokenizer.json", &word_tokenizer(&[]))
        .model_file("m", "model.toml", "template = \"chatml\"\nbatch = 2\n")
        .start();
    let format = json!({"type": "json_schema", "json_schema": {
        "name": "n", "strict": true, "schema": {"type": "object",
        "properties": {"a": {"type": "integer"}}, "required": ["a"],
        "additionalProperties": false}}});
    let refused = |more: Value| daemon.post(CHAT, &chat("m", "x", more));
    let answer = refused(json!({"response_format": format}));
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert_eq!(answer.error_code(), "cannot_constrain");
    let answer = refused(json!({"logprobs": true}));
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert_eq!(answer.error_code(), "cannot_tell_logprobs");
    let answer = daemon.post("/v1/embeddings", &json!({"model": "m", "input": "x"}));
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert_eq!(answer.error_code(), "no_hidden_states");
    let answer = refused(json!({}));
    assert_eq!(answer.content(), "ab");
}

#[test]
fn the_demo_model_makes_several_in_one_batch() {
    let daemon = Setup::new()
        .demo_model("m")
        .model_file("m", "model.toml", "batch = 3\ncontext-length = 512\n")
        .start();
    let ask = || {
        let more = json!({"max_tokens": 24, "temperature": 0});
        daemon.post(CHAT, &chat("m", "Count from one to a hundred.", more))
    };
    let alone = ask().content();
    let answers = thread::scope(|scope| {
        let answers: Vec<_> = (0..9).map(|_| scope.spawn(ask)).collect();
        let answers = answers.into_iter();
        answers
            .map(|answer| answer.join().expect("an answer"))
            .collect::<Vec<_>>()
    });
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.body);
        let made = answer.json()["timings"]["predicted_n"].as_u64();
        assert!(
            made.is_some_and(|made| (1..=24).contains(&made)),
            "{made:?}"
        );
        // Rows of one decode are not computed bit for bit as a row alone.
        let begins_alike = answer.content().split(' ').next() == alone.split(' ').next();
        assert!(begins_alike, "{} and {alone}", answer.content());
    }
    let [batches, requests] = ["rkllmd_batches_total", "rkllmd_batched_requests_total"]
        .map(|name| counter(&daemon, name).parse::<u32>().expect("a number"));
    assert_eq!(requests, 10);
    assert!(batches < requests, "{batches} batches");
}
