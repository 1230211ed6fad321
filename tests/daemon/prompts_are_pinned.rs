//! What `model.toml` pins of prompts is evaluated once for a file of the model, before anybody asks for it: every
//! key's requests that begin so evaluate what follows, and no conversation takes its place.

use std::time::{Duration, Instant};

use crate::daemon_support::{Daemon, FAMILIES_RUN, Setup, eventually, is_gone, keys, request};
use crate::doors::{Door, bearer};
use crate::prefixes_support::{
    NEW_WORDS, SCENARIO, WORDS, ask, beginning, folder, metric, names, turn,
};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

fn rules() -> String {
    let rules: String = (0..WORDS).map(|n| format!("rule{n} ")).collect();
    rules.trim().to_owned()
}

fn tools() -> Value {
    json!([{"type": "function", "function": {
        "name": "weather",
        "description": "Tells the weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    }}])
}

/// With a model that pins what chats begin with.
fn pinning(setup: Setup) -> Setup {
    let manifest = format!(
        "template = \"chatml\"\n[[prefixes.pinned]]\nname = \"rules\"\nsystem = \"{}\"\ntools = '{}'\n",
        rules(),
        tools()
    );
    setup
        .scenario("m", SCENARIO)
        .model_file("m", "model.toml", &manifest)
}

/// Likewise, and loaded before anybody asks.
fn preloaded(setup: Setup) -> Setup {
    pinning(setup).settings("models.preload = [\"m\"]")
}

fn body(asked: &str) -> Value {
    json!({"model": "m", "max_tokens": 3, "tools": tools(), "messages": [
        {"role": "system", "content": rules()}, {"role": "user", "content": asked},
    ]})
}

fn evaluated(answer: &Value) -> u64 {
    let evaluated = answer["timings"]["prompt_n"].as_u64();
    evaluated.unwrap_or_else(|| panic!("the runtime told nothing: {answer}"))
}

/// Returns the tokens of its prompt that were evaluated.
fn chat(daemon: &Daemon, asked: &str) -> u64 {
    let answer = daemon.post(CHAT, &body(asked));
    assert_eq!(answer.status, 200, "{}", answer.body);
    evaluated(&answer.json())
}

fn wait_for(daemon: &Daemon, name: &str, value: u64) {
    eventually(&format!("{name} being {value}"), || {
        (metric(daemon, name) == value).then_some(())
    });
}

/// The records of prefixes, each of which is written behind its file.
fn records(daemon: &Daemon) -> Vec<String> {
    let mut records = names(&folder(daemon), ".json");
    records.retain(|name| name != "written.json");
    records
}

#[test]
fn a_pinned_prompt_is_evaluated_once_for_a_file_of_its_model() {
    for family in FAMILIES_RUN {
        let before = Setup::with_family(family).scenario("m", SCENARIO).start();
        assert!(chat(&before, "first") >= WORDS as u64, "{family}");
        drop(before);

        let setup = preloaded(Setup::with_family(family));
        let daemon = setup.start_again();
        wait_for(&daemon, "rkllmd_prefix_saves_total", 1);
        for asked in ["first", "second"] {
            let evaluated = chat(&daemon, asked);
            assert!(evaluated <= NEW_WORDS, "{family}: {evaluated} of {asked}");
        }
        drop(daemon);

        // It comes with the model, and is not evaluated again.
        let daemon = setup.start_again();
        wait_for(&daemon, "rkllmd_prefix_loads_total", 1);
        let evaluated = chat(&daemon, "third");
        assert!(evaluated <= NEW_WORDS, "{family}: {evaluated}");
        assert_eq!(metric(&daemon, "rkllmd_prefix_saves_total"), 0, "{family}");
        assert_eq!(metric(&daemon, "rkllmd_prefix_loads_total"), 1, "{family}");
        assert_eq!(metric(&daemon, "rkllmd_prefix_failures_total"), 0);
        let kept = records(&daemon);
        assert_eq!(kept.len(), 1, "{family}");
        drop(daemon);

        // Cells of another file would be wrong.
        let setup = setup.model_file("m", "model.rkllm", &format!("{SCENARIO}# another\n"));
        let daemon = setup.start_again();
        wait_for(&daemon, "rkllmd_prefix_saves_total", 1);
        assert_eq!(metric(&daemon, "rkllmd_prefix_loads_total"), 0, "{family}");
        assert!(chat(&daemon, "fourth") <= NEW_WORDS, "{family}");
        eventually("the end of what was evaluated with the other file", || {
            (records(&daemon).len() == 1).then_some(())
        });
    }
}

#[test]
fn every_tenant_has_what_is_pinned_and_nothing_else_of_another() {
    let setup = preloaded(Setup::new());
    let add = |arguments: &str| keys(setup.folder(), &format!("add {arguments}"));
    let [one, other] = ["one --tenant upstairs", "other --tenant downstairs"].map(add);
    let daemon = setup.start_again();
    daemon.log.wait_for("prefixes of conversations are kept");
    eventually("the prompt's record", || {
        (records(&daemon).len() == 1).then_some(())
    });
    let door = Door::Tcp(daemon.address);
    let ask = |key: &str, asked: &str| {
        let answer = door.ask("POST", CHAT, &bearer(Some(key)), &body(asked).to_string());
        assert_eq!(answer.status, 200, "{}", answer.body);
        evaluated(&answer.json())
    };
    let secret = beginning("secret");
    let words = WORDS as u64;
    for key in [&one, &other] {
        // Each of them evaluates what it asks, also where another tenant has asked the same.
        let evaluated = ask(key, &secret);
        let own = words..=words + NEW_WORDS;
        assert!(own.contains(&evaluated), "{evaluated}");
    }
}

#[test]
fn no_conversation_takes_the_place_of_what_is_pinned() {
    const LIMIT: u64 = 20_000;
    let setup = preloaded(Setup::new()).settings(&format!("prefixes.limit-bytes = {LIMIT}"));
    let daemon = setup.start_again();
    wait_for(&daemon, "rkllmd_prefix_saves_total", 1);
    // It is counted once it is saved, and recorded behind that.
    let pinned = eventually("a record", || records(&daemon).pop());
    let mut conversations: Vec<String> = (0..8).map(|n| beginning(&format!("c{n}x"))).collect();
    for _ in 0..2 {
        for conversation in &mut conversations {
            turn(&daemon, conversation);
        }
    }
    assert!(
        metric(&daemon, "rkllmd_prefix_saves_total") > 8,
        "they are kept too"
    );
    assert!(metric(&daemon, "rkllmd_prefix_bytes") <= LIMIT);
    assert!(records(&daemon).contains(&pinned));
    assert!(chat(&daemon, "first") <= NEW_WORDS);
}

/// A prompt that is larger than all that may be kept is written once, and never again.
#[test]
fn what_has_no_room_is_not_kept() {
    let setup = preloaded(Setup::new()).settings("prefixes.limit-bytes = 1000");
    let daemon = setup.start_again();
    wait_for(&daemon, "rkllmd_prefix_saves_total", 1);
    chat(&daemon, "first");
    turn(&daemon, &mut beginning("a"));
    chat(&daemon, "second");
    assert_eq!(records(&daemon), Vec::<String>::new());
    assert_eq!(metric(&daemon, "rkllmd_prefix_bytes"), 0);
    assert_eq!(metric(&daemon, "rkllmd_prefix_saves_total"), 1);
}

/// Another one that goes well does not hide it.
#[test]
fn a_library_that_ends_worker_after_worker_by_a_pinned_prompt_is_left_alone() {
    let scenario = format!(
        "{SCENARIO}[[fault]]\ncall = \"run\"\nwhen-prompt-contains = \"venom\"\nkind = \"segv\"\n"
    );
    let manifest = format!(
        "template = \"chatml\"\nparallel = 2\n\
         [[prefixes.pinned]]\nname = \"deadly\"\nsystem = \"venom\"\n\
         [[prefixes.pinned]]\nname = \"rules\"\nsystem = \"{}\"\ntools = '{}'\n",
        rules(),
        tools()
    );
    let daemon = Setup::new()
        .scenario("m", &scenario)
        .model_file("m", "model.toml", &manifest)
        .settings("models.preload = [\"m\"]")
        .start();
    daemon.log.wait_for("is left alone until a reload");
    // By the second worker, and the one that is there.
    wait_for(&daemon, "rkllmd_prefix_loads_total", 2);
    daemon.wait_for_phase("m", "ready");
    assert!(chat(&daemon, "first") <= NEW_WORDS);
    assert_eq!(metric(&daemon, "rkllmd_worker_exits_total"), 2);
}

/// Evaluating what it pins is no use of it, and would take a minute here.
#[test]
fn a_model_goes_although_its_prompt_is_being_pinned() {
    const SOURCE: &str = "[source]\nendpoint = \"https://hub.lan\"\nrepository = \"owner/name\"\n\
        commit = \"0123456789abcdef0123456789abcdef01234567\"\nfile = \"model.rkllm\"\n\
        licence = \"apache-2.0\"\n";
    let scenario =
        format!("prefill-us-per-byte = 12000\nabort-interrupts-prefill = true\n{SCENARIO}");
    let manifest = format!(
        "template = \"chatml\"\n[[prefixes.pinned]]\nname = \"rules\"\nsystem = \"{}\"\n{SOURCE}",
        rules()
    );
    let daemon = Setup::new()
        .scenario("m", &scenario)
        .model_file("m", "model.toml", &manifest)
        .settings("models.preload = [\"m\"]")
        .start();
    let worker = daemon.worker_pid();
    // No request is there, so what uses it is the pinning, once its load is over.
    daemon.wait_for_phase("m", "running");
    let begun = Instant::now();
    let body = json!({"model": "m"});
    eventually("the model's end", || {
        let deleted = request(daemon.address, "DELETE", "/api/delete", Some(&body));
        (deleted.status == 200).then_some(())
    });
    assert!(begun.elapsed() < Duration::from_secs(30), "it was ended");
    assert!(is_gone(worker), "its worker has ended");
    assert!(!daemon.folder().join("models/m").exists());
    assert_eq!(metric(&daemon, "rkllmd_prefix_saves_total"), 0);
    let gone = daemon.post(CHAT, &json!({"model": "m", "messages": []}));
    assert_eq!(gone.status, 404, "{}", gone.body);
}

/// The first request loads the model, and comes behind what that pins, whatever it begins with itself.
#[test]
fn the_first_request_finds_what_is_pinned_in_its_slot() {
    for family in FAMILIES_RUN {
        let setup = pinning(Setup::with_family(family));
        let daemon = setup.start_again();
        let answer = daemon.post("/v1/completions", &ask("short"));
        assert_eq!(answer.status, 200, "{family}: {}", answer.body);
        assert_eq!(metric(&daemon, "rkllmd_prefix_saves_total"), 1, "{family}");
        assert_eq!(records(&daemon).len(), 1, "{family}");
        drop(daemon);

        let daemon = setup.start_again();
        let first = chat(&daemon, "first");
        assert!(first <= NEW_WORDS, "{family}: {first}");
        assert_eq!(metric(&daemon, "rkllmd_prefix_loads_total"), 1, "{family}");
        assert_eq!(metric(&daemon, "rkllmd_prefix_saves_total"), 0, "{family}");
    }
}

#[test]
fn requests_go_first_where_the_setting_says_so() {
    let setup = pinning(Setup::new()).settings("prefixes.pinned-first = \"0s\"");
    let daemon = setup.start_again();
    let answer = daemon.post("/v1/completions", &ask("short"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    // It is there once nothing uses the model.
    wait_for(&daemon, "rkllmd_prefix_saves_total", 1);
    eventually("its record", || (records(&daemon).len() == 1).then_some(()));
    drop(daemon);
    let daemon = setup.start_again();
    let first = chat(&daemon, "first");
    assert!(first >= WORDS as u64, "{first}");
}

/// With a model whose pinned prompt of 4,000 bytes takes 80 s, which requests wait 1 s for.
fn slow(scenario: &str) -> Setup {
    let manifest = format!(
        "template = \"chatml\"\n[[prefixes.pinned]]\nname = \"long\"\nsystem = \"{}\"\n",
        "word ".repeat(800).trim()
    );
    Setup::new()
        .scenario(
            "m",
            &format!("prefill-us-per-byte = 20000\n{scenario}{SCENARIO}"),
        )
        .model_file("m", "model.toml", &manifest)
        .settings("prefixes.pinned-first = \"1s\"")
}

/// What takes longer than a request may wait is cut short, and costs neither the worker nor the model its
/// prefixes.
#[test]
fn a_request_waits_for_what_is_pinned_no_longer_than_the_setting_says() {
    let setup = slow("abort-interrupts-prefill = true\n");
    let daemon = setup.start_again();
    let asked = Instant::now();
    let answer = daemon.post("/v1/completions", &ask("short"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let waited = asked.elapsed();
    assert!(waited < Duration::from_secs(40), "{waited:?}");
    daemon
        .log
        .wait_for("requests go before prompts that their model pins");
    assert_eq!(metric(&daemon, "rkllmd_worker_exits_total"), 0);
    assert_eq!(metric(&daemon, "rkllmd_prefix_failures_total"), 0);
    assert_eq!(records(&daemon), Vec::<String>::new());
}

/// A library that does not end a prefill costs its worker, once: the request that has waited goes first on the next.
#[test]
fn a_request_waits_once_for_what_cannot_be_cut_short() {
    let setup = slow("").settings("deadlines.abort-to-finish = \"1s\"");
    let daemon = setup.start_again();
    let answer = daemon.post("/v1/completions", &ask("short"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(metric(&daemon, "rkllmd_worker_exits_total"), 1);
    assert_eq!(records(&daemon), Vec::<String>::new());
}
