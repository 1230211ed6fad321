//! A model with several slots: answers are made at the same time in one worker, a client that goes or
//! does not read disturbs no other, and the worker's death is none of theirs.

use std::fs;
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::thread;

use crate::cgroup_support::Freezer;
use crate::daemon_support::{Daemon, Setup, chat, eventually, send, signal};
use rustix::process::Signal;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const LONG_CONTEXT: u32 = 1 << 20;
const SHORT_DEADLINES: &str = r#"
deadlines.prefill-base = "2s"
deadlines.inter-token = "1s"
deadlines.control-call = "1s"
deadlines.abort-to-finish = "2s"
recovery.backoff-first = "1ms"
recovery.backoff-longest = "10ms"
"#;

fn start(parallel: u8, scenario: &str) -> Daemon {
    // Answers of any length.
    let manifest =
        format!("template = \"chatml\"\nparallel = {parallel}\ncontext-length = {LONG_CONTEXT}\n");
    let scenario = format!("max-context-limit = {LONG_CONTEXT}\n{scenario}");
    Setup::new()
        .settings(SHORT_DEADLINES)
        .scenario("m", &scenario)
        .model_file("m", "model.toml", &manifest)
        .start()
}

fn words(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name}{n} ")).collect()
}

/// An answer for prompts with this name: so many words of that name.
fn answer(name: &str, count: usize) -> String {
    let tokens: Vec<String> = words(name, count)
        .iter()
        .map(|word| format!("{word:?}"))
        .collect();
    format!(
        "[[answer]]\nwhen-prompt-contains = \"{name}\"\ntokens = [{}]\n",
        tokens.join(", ")
    )
}

fn streamed(prompt: &str) -> Value {
    chat("m", prompt, json!({"stream": true}))
}

/// Reads a whole streamed answer. `at_text` sees all text so far, after each piece.
fn read(daemon: &Daemon, prompt: &str, mut at_text: impl FnMut(&str)) -> String {
    let mut stream = daemon.stream(CHAT, &streamed(prompt));
    let mut text = String::new();
    while let Some(piece) = stream.next_content() {
        text.push_str(&piece);
        at_text(&text);
    }
    text
}

#[test]
fn while_one_answer_is_made_others_are() {
    let scenario = format!(
        "{}{}[[fault]]\ncall = \"run\"\nkind = \"wait\"\ntext = \"go\"\nafter-tokens = 2\n\
         when-prompt-contains = \"alpha\"\n",
        answer("alpha", 10),
        answer("beta", 10)
    );
    let daemon = start(2, &scenario);
    let mut first = daemon.stream(CHAT, &streamed("alpha"));
    let begun = first.next_content().expect("a token");
    let pid = daemon.worker_pid();
    for _ in 0..3 {
        let second = daemon.post(CHAT, &chat("m", "beta", json!({})));
        assert_eq!(second.content(), words("beta", 10).concat());
        let embedding = json!({"model": "m", "input": "x"});
        let embedding = daemon.post("/v1/embeddings", &embedding);
        assert_eq!(embedding.status, 200, "{}", embedding.body);
    }
    let model = daemon.folder().join("models/m");
    fs::write(model.join("go"), "").expect("a file");
    let rest = std::iter::from_fn(|| first.next_content());
    let whole: String = std::iter::once(begun).chain(rest).collect();
    assert_eq!(whole, words("alpha", 10).concat());
    assert_eq!(daemon.worker_pid(), pid, "one worker made all of it");
}

#[test]
fn a_client_that_reads_nothing_holds_up_no_other() {
    let flood = "[[answer]]\nwhen-prompt-contains = \"flood\"\n\
        repeat = { token = \"wwwwwwwwwwwwwwww \", times = 10000000 }\n";
    let daemon = start(2, &format!("{}{flood}", answer("beta", 10)));
    let mut unread = TcpStream::connect(daemon.address).expect("a connection");
    send(&mut unread, "POST", CHAT, Some(&streamed("flood"))).expect("a request");
    daemon.wait_for_phase("m", "running");
    for _ in 0..50 {
        let answer = daemon.post(CHAT, &chat("m", "beta", json!({})));
        assert_eq!(answer.content(), words("beta", 10).concat());
    }
    assert_eq!(
        daemon.phase("m"),
        "running",
        "the unread answer is not over"
    );
}

#[test]
fn who_goes_away_frees_a_slot_and_disturbs_no_other() {
    let scenario = format!(
        "token-delay-us = 2000\n{}[[answer]]\nwhen-prompt-contains = \"endless\"\n\
         repeat = {{ token = \"w \", times = 10000000 }}\n",
        answer("beta", 300)
    );
    let daemon = start(2, &scenario);
    let mut going = daemon.stream(CHAT, &streamed("endless"));
    going.next_content().expect("a token");
    let pid = daemon.worker_pid();
    let mut going = Some(going);
    let text = read(&daemon, "beta", |text| {
        if text.len() > 50 {
            drop(going.take());
        }
    });
    assert_eq!(text, words("beta", 300).concat());
    let both = thread::scope(|scope| {
        let texts = [0, 1].map(|_| scope.spawn(|| read(&daemon, "beta", |_| {})));
        texts.map(|text| text.join().expect("an answer"))
    });
    assert_eq!(both, [text.clone(), text]);
    assert_eq!(daemon.worker_pid(), pid);
}

/// Reads an answer for each name at the same time. `then` is done once all have begun.
fn read_together(daemon: &Daemon, names: &[&str], then: impl FnOnce()) -> Vec<String> {
    thread::scope(|scope| {
        let (begun, told) = channel();
        let texts: Vec<_> = names
            .iter()
            .map(|name| {
                let mut begun = Some(begun.clone());
                scope.spawn(move || {
                    read(daemon, name, |text| {
                        if text.len() > 60 {
                            begun.take().map(|begun| begun.send(()));
                        }
                    })
                })
            })
            .collect();
        drop(begun);
        for _ in names {
            told.recv().expect("an answer that begins");
        }
        then();
        let texts = texts.into_iter();
        texts.map(|text| text.join().expect("an answer")).collect()
    })
}

#[test]
fn a_workers_death_interrupts_none_of_its_answers() {
    let scenario = format!(
        "continue-answers = true\ntoken-delay-us = 3000\n{}{}",
        answer("alpha", 200),
        answer("beta", 200)
    );
    let daemon = start(2, &scenario);
    let texts = read_together(&daemon, &["alpha", "beta"], || {
        signal(daemon.worker_pid(), Signal::KILL);
    });
    assert_eq!(texts[0], words("alpha", 200).concat());
    assert_eq!(texts[1], words("beta", 200).concat());
}

#[test]
fn a_run_that_hangs_costs_the_others_a_resumption() {
    let scenario = format!(
        "continue-answers = true\ntoken-delay-us = 5000\n{}{}\
         [[fault]]\ncall = \"run\"\nkind = \"hang\"\nafter-tokens = 100\nonce = \"hung\"\n\
         when-prompt-contains = \"alpha\"\n",
        answer("alpha", 200),
        answer("beta", 2000)
    );
    let daemon = start(2, &scenario);
    let texts = read_together(&daemon, &["alpha", "beta"], || {});
    assert_eq!(texts[0], words("alpha", 200).concat());
    assert_eq!(texts[1], words("beta", 2000).concat());
}

/// Milliseconds that a worker gave a run between two tokens before it was found to hang.
fn granted_ms(daemon: &Daemon) -> u64 {
    let line = daemon.log.wait_for("the `inter-token` deadline of");
    let words = line
        .split("deadline of ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    words.and_then(|ms| ms.parse().ok()).expect("milliseconds")
}

#[test]
fn a_run_that_is_alone_has_no_more_time_in_a_worker_of_eight_slots() {
    let scenario = format!(
        "continue-answers = true\n{}[[fault]]\ncall = \"run\"\nkind = \"hang\"\n\
         after-tokens = 5\nonce = \"hung\"\n",
        answer("alpha", 20),
    );
    let daemon = start(8, &scenario);
    let text = read(&daemon, "alpha", |_| {});
    assert_eq!(text, words("alpha", 20).concat());
    assert_eq!(granted_ms(&daemon), 1000);
}

#[test]
fn of_eight_runs_the_one_that_hangs_is_found_while_seven_move() {
    let names = [
        "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta-", "theta",
    ];
    let answers: Vec<String> = names[1..].iter().map(|name| answer(name, 1800)).collect();
    let scenario = format!(
        "continue-answers = true\ntoken-delay-us = 5000\n{}{}\
         [[fault]]\ncall = \"run\"\nkind = \"hang\"\nafter-tokens = 20\nonce = \"hung\"\n\
         when-prompt-contains = \"alpha\"\n",
        answer("alpha", 40),
        answers.concat(),
    );
    let daemon = start(8, &scenario);
    let texts = read_together(&daemon, &names, || {});
    assert_eq!(texts[0], words("alpha", 40).concat());
    for (name, text) in names.iter().zip(&texts).skip(1) {
        assert_eq!(*text, words(name, 1800).concat(), "{name}");
    }
    let granted = granted_ms(&daemon);
    assert!(
        (7000..=8001).contains(&granted),
        "{granted} ms for one of eight"
    );
}

#[test]
fn a_tainted_worker_ends_what_it_has_begun_and_is_replaced() {
    let scenario = format!(
        "token-delay-us = 5000\n{}{}\
         [[fault]]\ncall = \"get_kv_cache_size\"\nkind = \"hang\"\nonce = \"hung\"\n",
        answer("alpha", 600),
        answer("beta", 600)
    );
    let daemon = start(2, &scenario);
    let mut pid = 0;
    let texts = read_together(&daemon, &["alpha", "beta"], || pid = daemon.worker_pid());
    assert_eq!(texts[0], words("alpha", 600).concat());
    assert_eq!(texts[1], words("beta", 600).concat());
    let third = daemon.post(CHAT, &chat("m", "beta", json!({"max_tokens": 1})));
    assert_eq!(third.content(), "beta0 ");
    eventually("another worker", || {
        (daemon.worker_pid() != pid).then_some(())
    });
    daemon.log.wait_for("deadline passed beside a call");
}

const ROUNDS: usize = 20;
const INNOCENTS: [&str; 7] = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta-"];

#[test]
fn innocents_beside_a_poison_always_finish() {
    let answers: Vec<String> = INNOCENTS.iter().map(|name| answer(name, 30)).collect();
    let scenario = format!(
        "continue-answers = true\nrepeat = {{ token = \"w \", times = 40 }}\n{}\
         [[fault]]\ncall = \"run\"\nkind = \"segv\"\nafter-tokens = 3\n\
         when-prompt-contains = \"poison\"\n",
        answers.concat()
    );
    let daemon = start(8, &scenario);
    for round in 0..ROUNDS {
        thread::scope(|scope| {
            let poison = scope.spawn(|| daemon.post(CHAT, &chat("m", "poison", json!({}))));
            let innocents = INNOCENTS.map(|name| {
                let body = chat("m", name, json!({}));
                let daemon = &daemon;
                (name, scope.spawn(move || daemon.post(CHAT, &body)))
            });
            for (name, innocent) in innocents {
                let innocent = innocent.join().expect("an answer");
                assert_eq!(innocent.status, 200, "{round} {name}: {}", innocent.body);
                assert_eq!(innocent.content(), words(name, 30).concat(), "{round}");
            }
            let poison = poison.join().expect("an answer");
            assert_eq!(poison.error_code(), "poison_request", "{}", poison.body);
        });
    }
}

/// The value of a gauge of the model, if it is there.
fn gauge(daemon: &Daemon, name: &str) -> Option<String> {
    let page = daemon.get("/metrics").body;
    let start = format!("{name}{{model=\"m\"}} ");
    let mut lines = page.lines();
    lines.find_map(|line| line.strip_prefix(&start).map(str::to_owned))
}

#[test]
fn slots_in_use_are_shown() {
    let scenario = format!(
        "{}[[fault]]\ncall = \"run\"\nkind = \"wait\"\ntext = \"go\"\nafter-tokens = 2\n",
        answer("alpha", 10),
    );
    let daemon = start(3, &scenario);
    assert_eq!(gauge(&daemon, "rkllmd_slots"), None, "nothing is loaded");
    let mut streams = [(); 2].map(|()| daemon.stream(CHAT, &streamed("alpha")));
    for stream in &mut streams {
        stream.next_content().expect("a token");
    }
    assert_eq!(gauge(&daemon, "rkllmd_slots").as_deref(), Some("3"));
    assert_eq!(gauge(&daemon, "rkllmd_slots_in_use").as_deref(), Some("2"));
    let model = daemon.get("/v1/models/m").json()["rkllmd"].clone();
    assert_eq!(model["runtime"]["slots"], 3, "{model}");
    let plan = &model["slots"];
    assert_eq!((&plan["parallel"], &plan["slots"]), (&json!(3), &json!(3)));
    assert_eq!(plan["context_tokens"], LONG_CONTEXT);
    fs::write(daemon.folder().join("models/m/go"), "").expect("a file");
    for mut stream in streams {
        while stream.next_content().is_some() {}
    }
    eventually("free slots", || {
        let in_use = gauge(&daemon, "rkllmd_slots_in_use")?;
        (in_use == "0").then_some(())
    });
}

#[test]
fn no_more_slots_are_opened_than_memory_allows() {
    let scenario = answer("alpha", 10);
    // Room for three times the model's file; what the worker really holds is not looked at.
    let settings = format!(
        "memory.worker-soft-limit-bytes = {}\nmemory.worker-hard-limit-bytes = 0\n\
         memory.check-interval = \"1h\"\n",
        scenario.len() * 7 / 2
    );
    let daemon = Setup::new()
        .settings(&settings)
        .scenario("m", &scenario)
        .model_file("m", "model.toml", "template = \"chatml\"\nparallel = 8\n")
        .start();
    let text = daemon.post(CHAT, &chat("m", "alpha", json!({}))).content();
    assert_eq!(text, words("alpha", 10).concat());
    assert_eq!(gauge(&daemon, "rkllmd_slots").as_deref(), Some("3"));
    daemon
        .log
        .wait_for("memory allows fewer slots than are asked for");
}

#[test]
fn a_worker_that_is_stopped_is_missed_once_however_many_slots_it_has() {
    let scenario = "tokens = [\"fine\"]\n[[fault]]\ncall = \"run\"\nkind = \"wait\"\n\
        text = \"go\"\nin-prefill = true\n";
    let settings =
        "deadlines.heartbeat = \"1s\"\ndeadlines.prefill-base = \"1m\"\ndeadlines.kill = \"1m\"";
    let daemon = Setup::new()
        .settings(settings)
        .scenario("m", scenario)
        .model_file("m", "model.toml", "template = \"chatml\"\nparallel = 4\n")
        .start();
    thread::scope(|scope| {
        let answers = [(); 4].map(|()| {
            let daemon = &daemon;
            scope.spawn(move || daemon.post(CHAT, &chat("m", "x", json!({}))))
        });
        eventually("all slots in use", || {
            (gauge(&daemon, "rkllmd_slots_in_use")? == "4").then_some(())
        });
        // Not SIGSTOP: it does not die either before all slots have noticed.
        let freezer = Freezer::new();
        freezer.freeze(daemon.worker_pid());
        eventually("all runs lost", || {
            let lines = daemon.log.lines();
            let lost = lines.iter().filter(|line| line.contains("run lost"));
            (lost.count() == 4).then_some(())
        });
        freezer.thaw();
        fs::write(daemon.folder().join("models/m/go"), "").expect("a file");
        for answer in answers {
            assert_eq!(answer.join().expect("an answer").content(), "fine");
        }
    });
    let page = daemon.get("/metrics").body;
    let missed = "rkllmd_deadlines_passed_total{deadline=\"heartbeat\"} 1\n";
    assert!(page.contains(missed), "{page}");
}

#[test]
fn each_slot_has_the_whole_time_for_being_unloaded() {
    let slow = "tokens = [\"fine\"]\n[[fault]]\ncall = \"destroy\"\nkind = \"delay\"\nms = 800\n";
    let daemon = Setup::new()
        .settings(
            "models.max-loaded = 1\nmodels.minimum-residency = \"0s\"\ndeadlines.unload = \"1s\"",
        )
        .scenario("m", slow)
        .model_file("m", "model.toml", "template = \"chatml\"\nparallel = 6\n")
        .scenario("other", "tokens = [\"other\"]\n")
        .start();
    for (model, text) in [("m", "fine"), ("other", "other")] {
        let answer = daemon.post(CHAT, &chat(model, "x", json!({})));
        assert_eq!(answer.content(), text, "{}", answer.body);
    }
    let page = daemon.get("/metrics").body;
    let passed = "rkllmd_deadlines_passed_total{deadline=\"unload\"} ";
    let passed = page.lines().find_map(|line| line.strip_prefix(passed));
    assert!(passed.is_none_or(|count| count == "0"), "{passed:?}");
    let unloaded = "rkllmd_worker_exits_total{model=\"m\",cause=\"unloaded\"} 1\n";
    assert!(page.contains(unloaded), "{page}");
}

const TOO_LONG: &str = "E rkllm: the length of prompt is greater than max context \
    (prompt: 77 tokens, max context: 64)";

/// A fault of prompts with this text: they are refused with these words once there is a file `beside`.
fn refused(text: &str) -> String {
    let fault = format!("[[fault]]\ncall = \"run\"\nwhen-prompt-contains = {text:?}\n");
    format!(
        "{fault}kind = \"wait\"\ntext = \"beside\"\n\
         {fault}kind = \"print\"\ntext = {TOO_LONG:?}\n{fault}kind = \"fail\"\n"
    )
}

fn file(daemon: &Daemon, name: &str) {
    fs::write(daemon.folder().join("models/m").join(name), "").expect("a file");
}

#[test]
fn a_prompt_that_is_refused_beside_others_is_told_what_it_is_told_alone() {
    let scenario = format!(
        "{}{}[[fault]]\ncall = \"run\"\nkind = \"wait\"\ntext = \"go\"\nafter-tokens = 2\n\
         when-prompt-contains = \"alpha\"\n",
        answer("alpha", 10),
        refused("a long one")
    );
    let daemon = start(2, &scenario);
    let mut beside = daemon.stream(CHAT, &streamed("alpha"));
    let begun = beside.next_content().expect("a token");
    file(&daemon, "beside");
    thread::scope(|scope| {
        let refused = scope.spawn(|| daemon.post(CHAT, &chat("m", "a long one", json!({}))));
        daemon.log.wait_for("asking once more, alone");
        file(&daemon, "go");
        let refused = refused.join().expect("an answer");
        assert_eq!(
            refused.error_code(),
            "context_length_exceeded",
            "{}",
            refused.body
        );
    });
    let rest: String = std::iter::from_fn(|| beside.next_content()).collect();
    assert_eq!(begun + &rest, words("alpha", 10).concat(), "undisturbed");
}

#[test]
fn an_answer_that_is_resumed_at_its_limit_ends_there_also_beside_others() {
    let wait = |text: &str, file: &str, tokens: u32| {
        format!(
            "[[fault]]\ncall = \"run\"\nkind = \"wait\"\ntext = {file:?}\nafter-tokens = {tokens}\n\
             when-prompt-contains = {text:?}\n"
        )
    };
    // Only its second worker gets a prompt with its words in it.
    let scenario = format!(
        "continue-answers = true\n{}{}{}{}{}",
        answer("alpha", 40),
        answer("beta", 40),
        wait("alpha", "never", 20),
        wait("beta", "go", 20),
        refused("alpha19"),
    );
    let daemon = start(2, &scenario);
    let mut streams = ["alpha", "beta"].map(|name| daemon.stream(CHAT, &streamed(name)));
    let mut texts = [String::new(), String::new()];
    for ((stream, text), name) in streams.iter_mut().zip(&mut texts).zip(["alpha", "beta"]) {
        while *text != words(name, 20).concat() {
            text.push_str(&stream.next_content().expect("a token"));
        }
    }
    let first = daemon.worker_pid();
    signal(first, Signal::KILL);
    eventually("both on the next worker", || {
        (gauge(&daemon, "rkllmd_slots_in_use")? == "2" && daemon.worker_pid() != first)
            .then_some(())
    });
    file(&daemon, "beside");
    daemon.log.wait_for("asking once more, alone");
    file(&daemon, "go");
    let [alpha, mut beta] = streams;
    let events = alpha.collect();
    assert!(
        events
            .iter()
            .any(|(_, data)| data.contains("\"finish_reason\":\"length\"")),
        "{events:?}"
    );
    texts[1].extend(std::iter::from_fn(|| beta.next_content()));
    assert_eq!(texts[1], words("beta", 40).concat());
}
