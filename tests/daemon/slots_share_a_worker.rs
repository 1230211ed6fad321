//! A model with several slots: answers are made at the same time in one worker, and a client that goes or
//! does not read disturbs no other.

use std::fs;
use std::net::TcpStream;
use std::thread;

use crate::daemon_support::{Setup, chat, eventually, send};
use crate::slots_support::{
    CHAT, LONG_CONTEXT, answer, gauge, read, read_together, start, streamed, words,
};
use serde_json::json;

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
