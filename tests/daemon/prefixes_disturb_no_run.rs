//! Saves and loads beside runs, before runs that no client waits for any more, and behind runs that were cut off.

use std::fs;
use std::net::TcpStream;
use std::thread;

use crate::daemon_support::{Daemon, EventStream, Setup, completion, eventually, send};
use crate::prefixes_support::{
    COMPLETIONS, NEW_WORDS, SCENARIO, WORDS, ask, beginning, folder, metric, saving, told, turn,
};
use serde_json::json;

/// Tokens of a stream that outlasts some turns.
const LONG: usize = 2000;

fn order(daemon: &Daemon, name: &str) {
    fs::write(daemon.folder().join("models/m").join(name), "").expect("a file");
}

fn recorded(daemon: &Daemon, call: &str) -> usize {
    let calls = fs::read_to_string(daemon.folder().join("models/m/calls")).unwrap_or_default();
    calls.lines().filter(|line| line.contains(call)).count()
}

/// An answer of that name beside those of conversations.
fn long_answer(name: &str, times: usize) -> String {
    format!(
        "[[answer]]\nwhen-prompt-contains = \"{name}\"\nrepeat = {{ token = \"on \", times = {times} }}\n"
    )
}

fn whole(mut text: String, mut stream: EventStream) -> String {
    while let Some(piece) = stream.next_content() {
        text += &piece;
    }
    text
}

#[test]
fn a_stream_in_another_slot_is_exact_while_prefixes_are_swapped() {
    let scenario = format!(
        "save-us-per-byte = 20\ntoken-delay-us = 2000\n{SCENARIO}{}",
        long_answer("the stream", LONG)
    );
    let manifest = "template = \"chatml\"\nparallel = 2\n";
    let daemon = Setup::new()
        .scenario("m", &scenario)
        .model_file("m", "model.toml", manifest)
        .start();
    // As much would be lost with its slot as with the other's, so that no turn waits for it.
    let prompt = format!("the stream {}", beginning("s"));
    let body = completion("m", &prompt, json!({"stream": true, "max_tokens": LONG}));
    let mut stream = daemon.stream(COMPLETIONS, &body);
    let mut text = stream.next_content().expect("a token");
    let mut conversations = ["a", "b"].map(beginning);
    for round in 0..3 {
        for conversation in &mut conversations {
            let evaluated = turn(&daemon, conversation);
            assert!(round == 0 || evaluated <= NEW_WORDS, "{evaluated}");
        }
    }
    eventually("all but the stream is over", || {
        (metric(&daemon, "rkllmd_slots_in_use") == 1).then_some(())
    });
    assert!(metric(&daemon, "rkllmd_prefix_saves_total") > 0);
    text = whole(text, stream);
    assert_eq!(text, "on ".repeat(LONG));
}

#[test]
fn a_client_that_leaves_while_a_prefix_is_loaded_costs_nobody_anything() {
    let scenario = format!(
        "record = \"calls\"\n{SCENARIO}[[fault]]\ncall = \"load_prompt_cache\"\nkind = \"wait\"\n\
         text = \"go\"\n"
    );
    let daemon = Setup::new().scenario("m", &scenario).start();
    let [mut a, mut b] = ["a", "b"].map(beginning);
    turn(&daemon, &mut a);
    turn(&daemon, &mut b);
    let mut stream = TcpStream::connect(daemon.address).expect("a connection");
    send(&mut stream, "POST", COMPLETIONS, Some(&ask(&a))).expect("a request");
    eventually("a load", || {
        (recorded(&daemon, "load_prompt_cache") == 1).then_some(())
    });
    drop(stream);
    eventually("a request that has left", || {
        let page = daemon.get("/metrics").body;
        let gone = "rkllmd_requests_total{";
        let mut lines = page.lines().filter(|line| line.starts_with(gone));
        lines.any(|line| line.contains("cancelled")).then_some(())
    });
    thread::scope(|scope| {
        let next = scope.spawn(|| turn(&daemon, &mut b));
        eventually("a turn that waits for the slot", || {
            (metric(&daemon, "rkllmd_queue_length") == 1).then_some(())
        });
        order(&daemon, "go");
        next.join().expect("an answer");
    });
    assert!(
        turn(&daemon, &mut a) <= NEW_WORDS,
        "its file is there as ever"
    );
    assert_eq!(metric(&daemon, "rkllmd_prefix_failures_total"), 0);
    assert_eq!(metric(&daemon, "rkllmd_worker_exits_total"), 0);
}

/// The runtime tells how many tokens a prompt had only where its cache was empty before the first run.
#[test]
fn a_first_run_that_was_cut_off_makes_no_save_evaluate_again() {
    let scenario = SCENARIO.replace(
        "tokens = [\"one \", \"two \", \"three \"]",
        "token-delay-us = 20000\ntokens = [\"one \", \"two \", \"three \"]",
    ) + &long_answer("cut off", 300);
    let daemon = Setup::new().scenario("m", &scenario).start();
    let first = format!("cut off {}", beginning("a"));
    let body = completion("m", &first, json!({"stream": true, "max_tokens": 300}));
    let mut stream = daemon.stream(COMPLETIONS, &body);
    let said = stream.next_content().expect("a token");
    drop(stream);
    eventually("the end of it", || {
        (metric(&daemon, "rkllmd_slots_in_use") == 0).then_some(())
    });
    // What the slot loses is saved before this run.
    let other = daemon.post(COMPLETIONS, &ask(&beginning("b")));
    assert_eq!(told(&other.json()).0, "one two three ");
    assert_eq!(metric(&daemon, "rkllmd_prefix_failures_total"), 0);
    assert_eq!(metric(&daemon, "rkllmd_prefix_saves_total"), 1);
    // And what was loaded is not emptied before the next one.
    let back = completion("m", &(first + &said), json!({"max_tokens": 3}));
    daemon.post(COMPLETIONS, &back);
    assert_eq!(metric(&daemon, "rkllmd_prefix_hits_total"), 1);
}

#[test]
fn a_load_that_fails_leaves_no_cells_behind() {
    let scenario = format!(
        "record = \"calls\"\n{SCENARIO}[[fault]]\ncall = \"load_prompt_cache\"\nkind = \"fail\"\n\
         [[fault]]\ncall = \"clear_kv_cache\"\nkind = \"delay\"\nms = 0\n"
    );
    let daemon = Setup::new().scenario("m", &scenario).start();
    let [mut a, mut b] = ["a", "b"].map(beginning);
    turn(&daemon, &mut a);
    turn(&daemon, &mut b);
    let before = recorded(&daemon, "clear_kv_cache");
    assert!(turn(&daemon, &mut a) >= WORDS as u64);
    assert_eq!(recorded(&daemon, "load_prompt_cache"), 1);
    assert_eq!(recorded(&daemon, "clear_kv_cache"), before + 1);
}

/// A run beside a save ends their worker: that is no strike against the save, and the next one is made alone.
#[test]
fn a_death_in_company_is_no_strike_against_a_save() {
    let faults = format!(
        "{}[[fault]]\ncall = \"run\"\nwhen-prompt-contains = \"venom\"\nafter-tokens = 3\n\
         kind = \"wait\"\ntext = \"die\"\n\
         [[fault]]\ncall = \"run\"\nwhen-prompt-contains = \"venom\"\nafter-tokens = 3\n\
         kind = \"segv\"\nonce = \"died\"\n\
         [[fault]]\ncall = \"run\"\nwhen-prompt-contains = \"c599 one\"\nkind = \"segv\"\nonce = \"own\"\n",
        long_answer("venom", 300)
    );
    let scenario = format!("save-us-per-byte = 300\ncontinue-answers = true\n{SCENARIO}{faults}");
    let manifest = "template = \"chatml\"\nparallel = 2\n";
    let daemon = Setup::new()
        .scenario("m", &scenario)
        .model_file("m", "model.toml", manifest)
        // What was not kept, and why.
        .settings("log.filter = \"info,rkllmd::supervisor::prefixes=debug\"")
        .start();
    let body = completion(
        "m",
        &format!("venom {}", beginning("v")),
        json!({"stream": true, "max_tokens": 300}),
    );
    let mut stream = daemon.stream(COMPLETIONS, &body);
    let text = stream.next_content().expect("a token");
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(beginning);
    turn(&daemon, &mut a);
    thread::scope(|scope| {
        let beside = scope.spawn(|| turn(&daemon, &mut b));
        eventually("a save beside the run", || {
            (!saving(&folder(&daemon)).is_empty()).then_some(())
        });
        order(&daemon, "die");
        beside.join().expect("an answer");
    });
    assert_eq!(whole(text, stream), "on ".repeat(300));
    assert_eq!(metric(&daemon, "rkllmd_prefix_failures_total"), 1);
    // One of its own is the first strike at the most, and prefixes are kept as ever.
    for conversation in [&mut c, &mut b, &mut a] {
        turn(&daemon, conversation);
    }
    for _ in 0..2 {
        for conversation in [&mut a, &mut b, &mut c] {
            turn(&daemon, conversation);
        }
    }
    let evaluated = [&mut a, &mut b, &mut c].map(|it| turn(&daemon, it));
    assert!(evaluated.iter().all(|it| *it <= NEW_WORDS), "{evaluated:?}");
    assert!(daemon.folder().join("models/m/own").exists());
    // It was in a save, or in a turn.
    let failures = metric(&daemon, "rkllmd_prefix_failures_total");
    assert!((1..=2).contains(&failures), "{failures}");
    let said = daemon.log.lines();
    assert!(!said.iter().any(|line| line.contains("not kept any more")));
}
