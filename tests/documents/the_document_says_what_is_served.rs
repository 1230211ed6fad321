//! `/openapi.json` against the daemon that serves it: schemathesis makes requests of it, valid and
//! invalid ones, and looks whether each answer is one that the document tells of.
//!
//! `SCHEMATHESIS_EXAMPLES` is the number of requests that are made up for each operation.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::daemon_support::{Daemon, Setup, cache_folder, eventually, keys, python_package};
use serde_json::{Value, json};

/// Pinned, so that a new release changes nothing by itself.
const PACKAGE: &str = "schemathesis==4.32.5";
const SEED: &str = "7";
/// It keeps each request that it has made: what is no garbage is looked through for garbage a hundred times less often
/// than Python would.
const PROGRAM: &str = "import gc; gc.set_threshold(70_000); \
    from schemathesis.cli import schemathesis; gc.freeze(); schemathesis()";

/// A word is a token.
const TOKENIZER: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
    "normalizer":null,"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
    "model":{"type":"WordLevel","vocab":{"[UNK]":0,"a":1,"b":2,"c":3},"unk_token":"[UNK]"}}"#;

/// Its requests ask for no upgrade, which is refused; all else of it is looked at.
const WEBSOCKET: &str = "/rpc/ws";
/// Likewise, of a path that has another method too.
const OTHER_WEBSOCKET: &str = "responses_on_a_websocket";
/// They take more than the document can say: lists of texts and tokens in one, and blocks of kinds that are
/// not known, which are told and left out.
const TOLERANT: [&str; 6] = [
    "/completion",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/responses",
    "/v1/responses/input_tokens",
    "/v1/responses/compact",
];
/// Their streams do not end.
const ENDLESS: [&str; 2] = ["/models/sse", "/v1/admin/events"];
/// Nothing that is asked of them is offered, or the model does not do it.
const NOT_OFFERED: [&str; 8] = [
    "/v1/models",
    "/v1/rerank",
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
    "/api/delete",
    "/api/blobs/{digest}",
];

/// A daemon with a healthy model that asks for keys, what it says it serves, and an administrator's key.
fn start() -> (Daemon, Value, String) {
    let daemon = Setup::new()
        .scenario("m", "tokens = [\"one \", \"two\"]\neos-token-id = 2\n")
        .model_file("m", "tokenizer.json", TOKENIZER)
        // No request of a test leaves this machine.
        .settings("hub.offline = true")
        .start();
    let mut document = daemon.get("/openapi.json").json();
    // The generator gives up on what no chat is where chats have one more field. This is a switch like `ignore_eos`.
    let fields =
        document["components"]["schemas"]["SharedParameters"]["properties"].as_object_mut();
    let removed = fields.and_then(|fields| fields.remove("deterministic"));
    assert!(removed.is_some());
    let of_socket = &document["paths"]["/v1/responses"]["get"]["operationId"];
    assert_eq!(of_socket, OTHER_WEBSOCKET);
    let key = keys(daemon.folder(), "add tester --role admin");
    eventually("keys being asked for", || {
        (daemon.get("/v1/models").status == 401).then_some(())
    });
    (daemon, document, key)
}

fn check(daemon: &Daemon, document: &Value, key: &str) {
    let refusing = NOT_OFFERED.into_iter().chain([WEBSOCKET]);
    let with = |option| refusing.clone().flat_map(move |path| [option, path]);
    let tolerant = |option| TOLERANT.into_iter().flat_map(move |path| [option, path]);
    let endless = ENDLESS
        .into_iter()
        .flat_map(|path| ["--exclude-path", path]);
    let others = with("--exclude-path").chain(endless);
    let others = others.chain(tolerant("--exclude-path"));
    let others: Vec<&str> = others.collect();
    run(daemon, document, key, &others);
    let but = ["--exclude-checks", "negative_data_rejection"];
    let these: Vec<&str> = tolerant("--include-path").chain(but).collect();
    run(daemon, document, key, &these);
    let but = ["--exclude-checks", "positive_data_acceptance"];
    let these: Vec<&str> = with("--include-path").chain(but).collect();
    run(daemon, document, key, &these);
}

fn run(daemon: &Daemon, document: &Value, key: &str, arguments: &[&str]) {
    let examples = std::env::var("SCHEMATHESIS_EXAMPLES").unwrap_or_else(|_| "12".to_owned());
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("openapi.json");
    fs::write(&copy, document.to_string()).expect("a copy of the document");
    keep_constants(folder.path());
    let output = Command::new("python3")
        .args(["-c", PROGRAM])
        .arg("run")
        .arg(&copy)
        .arg("--url")
        .arg(format!("http://{}", daemon.address))
        .args(["--checks", "all", "--phases", "examples,coverage,fuzzing"])
        .args(["--seed", SEED, "--max-examples", &examples])
        // They judge how fast the generator is on this machine, and nothing of the daemon.
        .args(["--suppress-health-check", "all"])
        .args([
            "--request-timeout",
            "30",
            "--continue-on-failure",
            "--no-color",
        ])
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .args(["--exclude-operation-id", OTHER_WEBSOCKET])
        .args(arguments)
        .current_dir(folder.path())
        .env("PYTHONPATH", python_package(PACKAGE))
        .output()
        .expect("python3");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
}

/// The generator reads all of its own source for constants to try, and again in each new folder. What it finds is
/// kept by what it was found in, and of one release is the same each time.
fn keep_constants(folder: &Path) {
    let kept = cache_folder().join(format!("{PACKAGE}-constants"));
    fs::create_dir_all(&kept).expect("the cache folder");
    let storage = folder.join(".hypothesis");
    fs::create_dir(&storage).expect("the generator's folder");
    symlink(kept, storage.join("constants")).expect("a link");
}

/// What the model's own sizes leave: the document is the same for every model.
fn of_this_installation(document: &mut Value) {
    // Its model fills no gaps.
    let paths = document["paths"].as_object_mut();
    paths.and_then(|paths| paths.remove("/infill"));
    let schemas = &mut document["components"]["schemas"];
    // The first of the fake library's numbers is 0, and there is no embedding of that alone.
    let dimensions = &mut schemas["EmbeddingParameters"]["properties"]["dimensions"];
    (dimensions["minimum"], dimensions["maximum"]) = (2.into(), 8.into());
    schemas["DetokenizeRequest"]["properties"]["tokens"]["items"]["maximum"] = 3.into();
    // A key has few of them at a time, and only those that are kept.
    schemas["CreateParameters"]["properties"]["background"]["enum"] = json!([false, null]);
    // No answer of the fake library can be kept to a format.
    let formats = &mut schemas["FormatParameters"]["properties"];
    let format = formats["response_format"].take();
    *formats = json!({"response_format": format});
    // What else is in it says nothing of a text.
    formats["response_format"]["properties"] = json!({"type": {"enum": ["text"]}});
    // Nor can it tell how likely tokens were, and its model has no tokens but texts.
    for name in ["ChatParameters", "OllamaParameters"] {
        let parameters = &mut schemas[name]["properties"];
        parameters["logprobs"]["enum"] = json!([false, null]);
        parameters["top_logprobs"]["enum"] = json!([0, null]);
    }
    let texts = &mut schemas["TextParameters"]["properties"];
    texts["logprobs"]["enum"] = json!([false, null]);
    texts["suffix"]["enum"] = json!(["", null]);
    let text = &mut schemas["OllamaTextParameters"]["properties"];
    text["suffix"]["enum"] = json!(["", null]);
    text["context"]["items"]["maximum"] = 3.into();
    schemas["RunParameters"]["properties"]["n_probs"]["enum"] = json!([0, null]);
    for name in ["TextParameters", "CompletionParameters"] {
        let forms = schemas[name]["properties"]["prompt"]["anyOf"].as_array_mut();
        forms.expect("forms").truncate(2);
    }
    let stops = &mut schemas["SharedParameters"]["properties"]["stop_token_ids"];
    stops["items"]["maximum"] = 3.into();
    let ollama = schemas["OllamaParameters"]["properties"].as_object_mut();
    ollama.and_then(|properties| properties.remove("format"));
    for (name, format) in [
        ("ConversationParameters", "output_format"),
        ("OutputConfig", "format"),
    ] {
        let properties = schemas[name]["properties"].as_object_mut();
        properties.and_then(|properties| properties.remove(format));
    }
    // Nor can it tell how likely tokens were, and no response is there to go on from, or to name items of.
    let context = &mut schemas["ContextParameters"];
    let object = context.as_object_mut().expect("a schema");
    let forms = object.remove("anyOf").expect("with an input or without");
    let required = [&forms[0]["required"], &forms[1]["required"]];
    assert_eq!(
        required,
        [&json!(["input"]), &json!(["previous_response_id"])]
    );
    context["required"] = json!(["model", "input"]);
    let context = &mut context["properties"];
    context["previous_response_id"] = json!({"type": "null"});
    let inputs = context["input"]["anyOf"].as_array_mut().expect("forms");
    assert_eq!(inputs.pop(), Some(json!({"type": "null"})));
    let items = context["input"]["anyOf"][1]["items"]["anyOf"].as_array_mut();
    let items = items.expect("kinds of items");
    let kinds = items.len();
    items.retain(|kind| kind["$ref"] != "#/components/schemas/InputReference");
    assert_eq!(items.len(), kinds - 1);
    let format = &mut schemas["TextParameter"]["properties"]["format"];
    *format = json!({"type": ["object", "null"], "properties": {"type": {"enum": ["text"]}}, "required": ["type"]});
    let create = &mut schemas["CreateParameters"]["properties"];
    create["top_logprobs"]["enum"] = json!([0, null]);
    create["include"]["items"] = json!({"enum": ["reasoning.encrypted_content"]});
    // Nor is it known how the model thinks.
    schemas["OllamaParameters"]["properties"]["think"] = json!({"enum": [false, null]});
    let dimensions = &mut schemas["EmbedInput"]["properties"]["dimensions"];
    (dimensions["minimum"], dimensions["maximum"]) = (2.into(), 8.into());
}

/// Whether it is one of these schemas, or has one in it.
fn has(value: &Value, wanted: &[&str], schemas: &Value, seen: &mut BTreeSet<String>) -> bool {
    let name = value["$ref"].as_str().and_then(|it| it.rsplit('/').next());
    if let Some(name) = name {
        let is_wanted = wanted.contains(&name);
        return is_wanted
            || (seen.insert(name.to_owned()) && has(&schemas[name], wanted, schemas, seen));
    }
    match value {
        Value::Object(fields) => fields.values().any(|it| has(it, wanted, schemas, seen)),
        Value::Array(items) => items.iter().any(|it| has(it, wanted, schemas, seen)),
        _ => false,
    }
}

/// Leaves the paths of operations whose bodies have one of these schemas in them, whole: what is allowed there is told
/// of all that a path has.
fn leave_those_with(document: &mut Value, wanted: &[&str]) {
    let schemas = document["components"]["schemas"].clone();
    let paths = document["paths"].as_object_mut().expect("paths");
    let all = paths.len();
    paths.retain(|_, path| {
        let operations = path.as_object_mut().expect("operations");
        operations.values().any(|operation| {
            let body = &operation["requestBody"];
            has(body, wanted, &schemas, &mut BTreeSet::new())
        })
    });
    assert!((10..all).contains(&paths.len()), "{:?}", paths.keys());
}

#[test]
fn readers_of_the_document_get_what_it_says() {
    let (daemon, mut document, key) = start();
    of_this_installation(&mut document);
    check(&daemon, &document, &key);
}

#[test]
fn what_reaches_the_model_is_answered_as_the_document_says() {
    let (daemon, mut document, key) = start();
    of_this_installation(&mut document);
    // It is to be there at the end, and nobody is to unload it.
    let paths = document["paths"].as_object_mut();
    paths.and_then(|paths| paths.remove("/models/unload"));
    let schemas = &mut document["components"]["schemas"];
    let ollama = schemas["OllamaParameters"]["properties"].as_object_mut();
    ollama.and_then(|properties| properties.remove("keep_alive"));
    let naming = [
        "SharedParameters",
        "ConversationParameters",
        "ContextParameters",
        "EmbeddingParameters",
        "OllamaParameters",
        "EmbedParameters",
        "ModelToLoad",
        "RerankRequest",
    ];
    for name in naming {
        schemas[name]["properties"]["model"] = json!({"type": "string", "enum": ["m"]});
    }
    let may_name = ["TokenizeRequest", "DetokenizeRequest"];
    for name in may_name {
        schemas[name]["properties"]["model"] = json!({"enum": ["m", "", null]});
    }
    // One millisecond is too short for any answer.
    let deadline = &mut schemas["SharedParameters"]["properties"]["total_deadline_ms"];
    deadline["minimum"] = 60_000.into();
    // Of the others nothing has changed.
    leave_those_with(&mut document, &[&naming[..], &may_name].concat());
    check(&daemon, &document, &key);
    assert_eq!(daemon.phase("m"), "ready", "the model has answered");
}
