//! The slots of a worker have one life: its death, and what one of them does to it or is told, is no other
//! one's fault.

use std::fs;
use std::thread;

use crate::cgroup_support::Freezer;
use crate::daemon_support::{Daemon, Setup, chat, eventually, signal};
use crate::slots_support::{
    CHAT, answer, file, gauge, read, read_together, start, streamed, words,
};
use rustix::process::Signal;
use serde_json::json;

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
