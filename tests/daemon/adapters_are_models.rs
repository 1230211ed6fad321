//! A model with an adapter is a model of its own for every client: the library gets the adapter that the id
//! names, in every dialect and family, also where another worker goes on; and an adapter that is missing or
//! wrong costs its own id and nothing else.

use std::fs;

use crate::daemon_support::{Answer, Daemon, FAMILIES_RUN, Setup, chat, completion, keys};
use crate::doors::{Door, bearer};
use crate::prefixes_support::{NEW_WORDS, SCENARIO, WORDS, beginning, told};
use crate::sixty_words::{CHAT, answer_text, dies_once_read, scenario, word};
use serde_json::{Value, json};

const MANIFEST: &str = "template = \"chatml\"\naliases = [\"short\"]\n\
    [[adapters]]\nname = \"tone\"\nfile = \"tone.rkllm\"\nscale = 0.5\n\
    [[adapters]]\nname = \"json\"\nfile = \"json.rkllm\"\n";

/// A model `m` with the adapters `tone` and `json`.
fn setup(family: &str, scenario: &str) -> Setup {
    let setup = Setup::with_family(family).model_file("m", "model.rkllm", scenario);
    with_adapters(setup, "m")
}

fn with_adapters(setup: Setup, id: &str) -> Setup {
    let setup = setup.model_file(id, "model.toml", MANIFEST);
    let folder = setup.models().join(id).join("adapters");
    fs::create_dir_all(&folder).expect("the folder of adapters");
    for name in ["tone", "json"] {
        fs::write(folder.join(format!("{name}.rkllm")), name).expect("an adapter");
    }
    setup
}

/// A request for a model, and where its answer has the text.
type Asked = (&'static str, fn(&str) -> Value, &'static str);

const DIALECTS: [Asked; 7] = [
    (
        "/v1/chat/completions",
        |model| chat(model, "x", json!({})),
        "/choices/0/message/content",
    ),
    (
        "/v1/completions",
        |model| completion(model, "x", json!({"max_tokens": 5})),
        "/choices/0/text",
    ),
    (
        "/v1/responses",
        |model| json!({"model": model, "input": "x"}),
        "/output/0/content/0/text",
    ),
    (
        "/v1/messages",
        |model| {
            let messages = [json!({"role": "user", "content": "x"})];
            json!({"model": model, "max_tokens": 5, "messages": messages})
        },
        "/content/0/text",
    ),
    (
        "/api/chat",
        |model| {
            let messages = [json!({"role": "user", "content": "x"})];
            json!({"model": model, "stream": false, "messages": messages})
        },
        "/message/content",
    ),
    (
        "/api/generate",
        |model| json!({"model": model, "stream": false, "prompt": "x"}),
        "/response",
    ),
    (
        "/completion",
        |model| json!({"model": model, "prompt": "x", "n_predict": 5}),
        "/content",
    ),
];

/// The adapter that the library was given, as it says in its answer.
fn lora(answer: &Answer, place: &str) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = answer.json();
    let text = body.pointer(place).and_then(Value::as_str);
    let text = text.unwrap_or_else(|| panic!("no text at {place} in {body}"));
    let arrived: Value = serde_json::from_str(text).expect("parameters are JSON");
    arrived["run"]["lora"].clone()
}

#[test]
fn the_library_gets_the_adapter_that_the_id_names_in_every_dialect() {
    let daemon = setup("1_3_1", "tokens = [\"{params}\"]\n").start();
    let mut worker = None;
    for (path, body, place) in DIALECTS {
        for (model, adapter) in [
            ("m", Value::Null),
            ("m:tone", "tone".into()),
            ("M:JSON", "json".into()),
            ("m:latest", Value::Null),
            ("m:tone:latest", "tone".into()),
            ("short:json", "json".into()),
        ] {
            let answer = daemon.post(path, &body(model));
            assert_eq!(lora(&answer, place), adapter, "{path} {model}");
            let pid = daemon.worker_pid();
            assert_eq!(*worker.get_or_insert(pid), pid, "one worker serves all");
        }
        for absent in ["m:other", "m:tone:json", "short:other:latest"] {
            let answer = daemon.post(path, &body(absent));
            assert_eq!(answer.status, 404, "{path} {absent}: {}", answer.body);
        }
    }
}

#[test]
fn the_library_gets_the_adapter_of_every_family() {
    for family in FAMILIES_RUN {
        let daemon = setup(family, "tokens = [\"{params}\"]\n").start();
        let (path, body, place) = DIALECTS[0];
        for (model, adapter) in [
            ("m:tone", "tone".into()),
            ("m", Value::Null),
            ("m:json", "json".into()),
        ] {
            let answer = daemon.post(path, &body(model));
            assert_eq!(lora(&answer, place), adapter, "{family} {model}");
            assert_eq!(answer.json()["model"], model, "{family}");
        }
    }
}

#[test]
fn models_with_adapters_are_listed_beside_them() {
    let daemon = setup("1_3_1", "tokens = [\"x\"]\n").start();
    let listed = daemon.get("/v1/models").json();
    let ids: Vec<&str> = listed["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|model| model["id"].as_str())
        .collect();
    assert_eq!(ids, ["m", "m:tone", "m:json"]);
    let tags = daemon.get("/api/tags").json();
    let names: Vec<&str> = tags["models"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|model| model["name"].as_str())
        .collect();
    assert_eq!(names, ["m:latest", "m:tone", "m:json"]);
    let digests: Vec<&Value> = (0..3).map(|nth| &tags["models"][nth]["digest"]).collect();
    assert!(digests[0] != digests[1] && digests[1] != digests[2]);
    assert_eq!(tags["models"][1]["details"]["parent_model"], "m:latest");
    for id in ["m:tone", "short:tone", "m:tone:latest"] {
        let one = daemon.get(&format!("/v1/models/{id}")).json();
        assert_eq!(one["id"], "m:tone", "{id}");
        let shown = daemon.post("/api/show", &json!({"model": id}));
        assert_eq!(shown.status, 200, "{id}: {}", shown.body);
    }
}

#[test]
fn a_model_may_be_made_of_one_with_an_adapter() {
    let daemon = setup("1_3_1", "tokens = [\"{params}\"]\n").start();
    let copied = daemon.post(
        "/api/copy",
        &json!({"source": "m:tone", "destination": "mine"}),
    );
    assert_eq!(copied.status, 200, "{}", copied.body);
    let (path, body, place) = DIALECTS[0];
    assert_eq!(lora(&daemon.post(path, &body("mine")), place), "tone");
    let taken = json!({"source": "m", "destination": "m:json"});
    assert_eq!(daemon.post("/api/copy", &taken).status, 400);
}

/// Its client loads adapters into it by itself.
#[test]
fn a_handle_is_of_a_model_as_it_is() {
    let daemon = setup("1_3_1", "tokens = [\"x\"]\n").start();
    let asked = json!({"jsonrpc": "2.0", "id": 1, "method": "rkllm.init", "params": ["m:tone"]});
    let told = daemon.post("/rpc", &asked).json();
    assert_eq!(told["error"]["code"], -32003, "{told}");
    let message = told["error"]["message"].as_str().expect("a message");
    assert!(message.contains("rkllm.load_lora"), "{told}");
}

/// A right to a model is none to it with an adapter, nor the other way round.
#[test]
fn a_key_may_use_what_it_names() {
    let setup = setup("1_3_1", "tokens = [\"x\"]\n");
    let plain = keys(setup.folder(), "add plain --model m");
    let tone = keys(setup.folder(), "add tone --model m:tone");
    let daemon = setup.start();
    let door = Door::Tcp(daemon.address);
    let ask = |key: &str, model: &str| {
        let body = chat(model, "x", json!({})).to_string();
        door.ask("POST", CHAT, &bearer(Some(key)), &body).status
    };
    for (key, model, status) in [
        (&plain, "m", 200),
        (&plain, "m:latest", 200),
        (&plain, "m:tone", 403),
        (&tone, "m:tone", 200),
        (&tone, "m:tone:latest", 200),
        (&tone, "m", 403),
        (&tone, "m:json", 403),
    ] {
        assert_eq!(ask(key, model), status, "{model}");
    }
}

/// The second worker, whose prompt has what was answered, says what it was given. The first one dies once some of
/// its answer was read.
#[test]
fn a_dead_workers_answer_goes_on_with_its_adapter() {
    for family in FAMILIES_RUN {
        let goes_on = format!("{}{}", word(0), word(1));
        let answer =
            format!("[[answer]]\nwhen-prompt-contains = {goes_on:?}\ntokens = [\"{{params}}\"]\n");
        let daemon = setup(family, &scenario(&(answer + &dies_once_read(20)))).start();
        let body = chat("m:tone", "x", json!({"stream": true}));
        let mut stream = daemon.stream(CHAT, &body);
        let mut text = String::new();
        let read = daemon.folder().join("models/m/read");
        while let Some(piece) = stream.next_content() {
            text += &piece;
            if text.starts_with(&goes_on) && !read.exists() {
                fs::write(&read, "").expect("the file that lets it die");
            }
        }
        let place = text.find('{').unwrap_or_else(|| panic!("{family}: {text}"));
        let (begun, told) = text.split_at(place);
        assert!(answer_text().starts_with(begun), "{family}: {text}");
        let told: Value = serde_json::from_str(told).expect("parameters are JSON");
        assert_eq!(told["run"]["lora"], "tone", "{family}: {told}");
        assert_eq!(told["loras"][0]["name"], "tone", "{family}: {told}");
        assert_eq!(told["loras"][0]["scale"], 0.5, "{family}: {told}");
    }
}

/// No library has to know that cells are another adapter's.
#[test]
fn what_an_adapter_has_evaluated_is_evaluated_again_without_it() {
    let daemon = setup("1_3_1", SCENARIO)
        .settings("prefixes.limit-bytes = 0")
        .start();
    let ask = |model: &str, prompt: &str| {
        let body = completion(model, prompt, json!({"max_tokens": 3}));
        told(&daemon.post("/v1/completions", &body).json()).1
    };
    let prompt = beginning("a");
    assert!(ask("m", &prompt) >= WORDS as u64);
    assert!(ask("m", &prompt) <= NEW_WORDS, "it is there");
    for model in ["m:tone", "m:json", "m"] {
        assert!(ask(model, &prompt) >= WORDS as u64, "{model}");
        assert!(ask(model, &prompt) <= NEW_WORDS, "{model}: it is there");
    }
}

/// What is kept on disk is read with its own adapter.
#[test]
fn conversations_of_two_adapters_that_take_turns_evaluate_what_is_new() {
    let daemon = setup("1_3_1", SCENARIO).start();
    let mut prompts = ["m:tone", "m:json"].map(|model| (model, beginning("a")));
    for round in 0..4 {
        for (model, prompt) in &mut prompts {
            let body = completion(model, prompt, json!({"max_tokens": 3}));
            let (text, evaluated) = told(&daemon.post("/v1/completions", &body).json());
            *prompt += &format!("{text}and then ");
            match round {
                0 => assert!(evaluated >= WORDS as u64, "{model}: {evaluated}"),
                _ => assert!(evaluated <= NEW_WORDS, "{model}: {evaluated} in {round}"),
            }
        }
    }
}

fn is_unusable(daemon: &Daemon, model: &str) {
    for (path, body, _) in DIALECTS {
        let answer = daemon.post(path, &body(model));
        assert_eq!(answer.status, 503, "{path}: {}", answer.body);
        assert!(answer.body.contains("adapter"), "{path}: {}", answer.body);
    }
    let answer = daemon.post(CHAT, &chat(model, "x", json!({})));
    assert_eq!(answer.error_code(), "model_unavailable", "{}", answer.body);
    for serving in ["m", "m:json"] {
        let answer = daemon.post(CHAT, &chat(serving, "x", json!({})));
        assert_eq!(
            (answer.status, &*answer.content()),
            (200, "fine"),
            "{serving}"
        );
    }
    let running = daemon.get("/api/ps").json();
    let names: Vec<&str> = running["models"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|model| model["name"].as_str())
        .collect();
    assert_eq!(names, ["m:latest", "m:json"]);
}

#[test]
fn an_adapter_that_is_missing_costs_its_own_id() {
    let setup = setup("1_3_1", "tokens = [\"fine\"]\n");
    fs::remove_file(setup.models().join("m/adapters/tone.rkllm")).expect("it was there");
    is_unusable(&setup.start(), "m:tone");
}

#[test]
fn an_adapter_that_leads_out_of_its_folder_costs_its_own_id() {
    let setup = setup("1_3_1", "tokens = [\"fine\"]\n");
    let file = setup.models().join("m/adapters/tone.rkllm");
    fs::remove_file(&file).expect("it was there");
    std::os::unix::fs::symlink("/etc/passwd", &file).expect("a link");
    is_unusable(&setup.start(), "m:tone");
}

/// Whichever way the library has of not loading it: the first call is the one for `tone`.
#[test]
fn an_adapter_that_the_library_does_not_load_costs_its_own_id() {
    for kind in ["fail", "segv", "abort", "exit"] {
        // A worker that died is tried again without it: then the first call is that for `json`.
        let once = match kind {
            "fail" => "",
            _ => "once = \"spent\"\n",
        };
        let fault =
            format!("[[fault]]\ncall = \"load_lora\"\noccasion = 1\n{once}kind = \"{kind}\"\n");
        let daemon = setup("1_3_1", &format!("tokens = [\"fine\"]\n{fault}")).start();
        is_unusable(&daemon, "m:tone");
    }
}

/// Each is left out once.
#[test]
fn a_library_that_dies_of_every_adapter_serves_the_model() {
    let fault = "[[fault]]\ncall = \"load_lora\"\nkind = \"segv\"\n";
    let daemon = setup("1_3_1", &format!("tokens = [\"fine\"]\n{fault}")).start();
    for (model, status) in [("m", 200), ("m:tone", 503), ("m:json", 503), ("m", 200)] {
        let answer = daemon.post(CHAT, &chat(model, "x", json!({})));
        assert_eq!(answer.status, status, "{model}: {}", answer.body);
    }
}

/// The first handle has its adapters then.
#[test]
fn a_second_handle_that_is_not_opened_is_no_adapters_fault() {
    let fault = "[[fault]]\ncall = \"init\"\noccasion = 2\nkind = \"exit\"\n";
    let daemon = setup("1_3_1", &format!("tokens = [\"fine\"]\n{fault}"))
        .settings("models.parallel = 2")
        .start();
    let answer = daemon.post(CHAT, &chat("m:tone", "x", json!({})));
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.error_code(), "model_unavailable", "{}", answer.body);
    daemon.log.wait_for("model cannot be loaded");
    let lines = daemon.log.lines();
    let blamed = lines
        .iter()
        .find(|line| line.contains("without an adapter"));
    assert_eq!(blamed, None);
}

#[test]
fn a_request_that_is_not_served_costs_no_slot_what_it_holds() {
    let fault = "[[fault]]\ncall = \"load_lora\"\noccasion = 1\nkind = \"fail\"\n";
    let daemon = setup("1_3_1", &format!("{SCENARIO}{fault}"))
        .settings("prefixes.limit-bytes = 0")
        .start();
    let prompt = beginning("a");
    let ask = |model: &str| {
        let body = completion(model, &prompt, json!({"max_tokens": 3}));
        daemon.post("/v1/completions", &body)
    };
    assert!(told(&ask("m").json()).1 >= WORDS as u64);
    assert_eq!(ask("m:tone").status, 503);
    assert!(told(&ask("m").json()).1 <= NEW_WORDS, "it is there");
}
