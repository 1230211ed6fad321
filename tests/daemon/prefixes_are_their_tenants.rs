//! What a key has asked no other tenant's key finds out, and goes with the key.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use crate::daemon_support::{Daemon, Setup, eventually, keys};
use crate::doors::{Door, bearer};
use crate::prefixes_support::{
    COMPLETIONS, NEW_WORDS, SCENARIO, WORDS, ask, beginning, folder, names, setup, told,
};
use serde_json::{Value, json};

fn post(daemon: &Daemon, key: &str, prompt: &str) -> Value {
    let door = Door::Tcp(daemon.address);
    let answer = door.ask(
        "POST",
        COMPLETIONS,
        &bearer(Some(key)),
        &ask(prompt).to_string(),
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// Tokens that were evaluated, and what usage says was cached.
fn seen(answer: &Value) -> (u64, u64) {
    let cached = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
    (told(answer).1, cached.as_u64().unwrap_or(0))
}

#[test]
fn another_tenants_prompt_is_cleared_and_its_file_is_not_read() {
    let setup = setup(1, "");
    let add = |arguments: &str| keys(setup.folder(), &format!("add {arguments}"));
    let [one, too, other, house, hold] = [
        "one --tenant upstairs",
        "too --tenant upstairs",
        "other --tenant downstairs",
        "house",
        "hold",
    ]
    .map(add);
    let daemon = setup.start();
    let prompt = beginning("a");
    let whole = WORDS as u64;
    assert_eq!(seen(&post(&daemon, &one, &prompt)), (whole, 0));
    assert_eq!(
        seen(&post(&daemon, &other, &prompt)),
        (whole, 0),
        "another tenant's"
    );
    // What the slot has lost lies on disk for its tenant.
    for (key, whose) in [
        (&too, "upstairs"),
        (&other, "downstairs"),
        (&one, "upstairs"),
    ] {
        let (evaluated, cached) = seen(&post(&daemon, key, &prompt));
        assert!(evaluated <= NEW_WORDS && cached > 0, "{whose}: {evaluated}");
    }
    assert_eq!(
        seen(&post(&daemon, &house, &prompt)),
        (whole, 0),
        "the household's"
    );
    assert!(
        seen(&post(&daemon, &hold, &prompt)).0 <= NEW_WORDS,
        "keys share by default"
    );
}

#[test]
fn what_came_from_a_key_goes_with_it() {
    let setup = setup(1, "");
    let add = |arguments: &str| keys(setup.folder(), &format!("add {arguments}"));
    let [gone, stays] = ["gone", "stays"].map(add);
    let daemon = setup.start();
    post(&daemon, &gone, &beginning("a"));
    post(&daemon, &stays, &beginning("b"));
    post(&daemon, &stays, &beginning("c"));
    let files = || names(&folder(&daemon), ".cache");
    eventually("files of both keys", || (files().len() >= 2).then_some(()));
    let before = files();
    let mode = |name: &str| {
        let file = fs::metadata(folder(&daemon).join(name)).expect("the file");
        file.permissions().mode() & 0o777
    };
    assert!(before.iter().all(|name| mode(name) == 0o600));
    keys(daemon.folder(), "revoke gone");
    eventually("the end of the key's files", || {
        (!files().contains(&before[0])).then_some(())
    });
    assert!(
        before[1..].iter().all(|name| files().contains(name)),
        "the other's stay"
    );
}

/// And nothing that follows it is.
#[test]
fn a_system_message_that_the_model_names_is_every_tenants() {
    let rules: String = (0..WORDS).map(|n| format!("rule{n} ")).collect();
    let rules = rules.trim().to_owned();
    let setup = Setup::new().scenario("m", SCENARIO).model_file(
        "m",
        "model.toml",
        &format!("template = \"chatml\"\n[prefixes]\nshared = [\"{rules}\"]\n"),
    );
    let add = |arguments: &str| keys(setup.folder(), &format!("add {arguments}"));
    let [one, other] = ["one --tenant upstairs", "other --tenant downstairs"].map(add);
    let daemon = setup.start();
    let door = Door::Tcp(daemon.address);
    let chat = |key: &str, system: &str, asked: &str| {
        let body = json!({"model": "m", "max_tokens": 3, "messages": [
            {"role": "system", "content": system}, {"role": "user", "content": asked},
        ]});
        let path = "/v1/chat/completions";
        let answer = door.ask("POST", path, &bearer(Some(key)), &body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.body);
        let timings = answer.json()["timings"]["prompt_n"].as_u64();
        timings.expect("the runtime told it")
    };
    // Tells how long a prefill takes.
    assert!(chat(&one, "other", &beginning("a")) >= WORDS as u64);
    let evaluated = chat(&one, &rules, "first");
    assert!(evaluated <= NEW_WORDS, "the rest: {evaluated}");
    let files = || names(&folder(&daemon), ".cache");
    assert!(!files().is_empty());
    let long = beginning("secret");
    for (key, asked) in [(&other, "second"), (&one, &*long)] {
        let words = asked.split_whitespace().count() as u64;
        let evaluated = chat(key, &rules, asked);
        assert!(evaluated <= NEW_WORDS + words, "{evaluated} of {words}");
    }
    // It is asked for again by the other tenant, whose it is not.
    let evaluated = chat(&other, &rules, &long);
    assert!(
        (WORDS as u64..=WORDS as u64 + NEW_WORDS).contains(&evaluated),
        "{evaluated}"
    );
}

/// The library takes what was loaded into the cells of any run that begins like it.
#[test]
fn what_was_loaded_for_a_run_that_was_given_up_is_no_other_tenants() {
    let hangs = "[[fault]]\ncall = \"run\"\nkind = \"wait\"\ntext = \"go\"\n\
        when-prompt-contains = \"give up\"\n";
    let setup = setup(1, hangs);
    let add = |arguments: &str| keys(setup.folder(), &format!("add {arguments}"));
    let [one, other, admin] = [
        "one --tenant upstairs",
        "other --tenant downstairs",
        "boss --role admin",
    ]
    .map(add);
    let daemon = setup.start();
    let prompt = beginning("a");
    post(&daemon, &one, &prompt);
    post(&daemon, &one, &beginning("b"));
    let door = Door::Tcp(daemon.address);
    let loads = || {
        let page = door.ask("GET", "/metrics", &bearer(Some(&admin)), "").body;
        page.contains("rkllmd_prefix_loads_total{model=\"m\"} 1")
    };
    let mut stream = TcpStream::connect(daemon.address).expect("a connection");
    let body = ask(&format!("{prompt}one two three give up")).to_string();
    let head = format!(
        "POST {COMPLETIONS} HTTP/1.1\r\nhost: localhost\r\n{}content-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        bearer(Some(&one)),
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("a request");
    eventually("a load", || loads().then_some(()));
    drop(stream);
    fs::write(daemon.folder().join("models/m/go"), "").expect("a file");
    assert_eq!(seen(&post(&daemon, &other, &prompt)), (WORDS as u64, 0));
}
