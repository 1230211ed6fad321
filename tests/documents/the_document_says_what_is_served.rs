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

const ALL_PHASES: &str = "examples,coverage,fuzzing";
/// Requests at random, of which each has several fields.
const AT_RANDOM: &str = "examples,fuzzing";
/// Requests that are made of one value of one field each.
const FIELD_BY_FIELD: &str = "coverage";

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

/// Bodies that name a model have one of these in them.
const NAMING: [&str; 8] = [
    "SharedParameters",
    "ConversationParameters",
    "ContextParameters",
    "EmbeddingParameters",
    "OllamaParameters",
    "EmbedParameters",
    "ModelToLoad",
    "RerankRequest",
];
/// These need not.
const MAY_NAME: [&str; 2] = ["TokenizeRequest", "DetokenizeRequest"];
/// What is another where the model is to be reached, and to be there at the end.
const DIFFERING: [&str; 3] = ["model", "keep_alive", "total_deadline_ms"];

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

/// Each of these paths behind the option that names it.
fn each(option: &'static str, paths: &[&'static str]) -> Vec<&'static str> {
    paths.iter().flat_map(|&path| [option, path]).collect()
}

fn check(daemon: &Daemon, document: &Value, key: &str, phases: &str) {
    let is_there = |path: &&str| document["paths"].get(*path).is_some();
    let refusing = NOT_OFFERED.into_iter().chain([WEBSOCKET]);
    let refusing: Vec<&str> = refusing.filter(is_there).collect();
    let tolerant: Vec<&str> = TOLERANT.into_iter().filter(is_there).collect();
    let others = [&refusing[..], &tolerant, &ENDLESS].concat();
    let others = each("--exclude-path", &others);
    run(daemon, document, key, phases, &others);
    for (paths, left_out) in [
        (tolerant, "negative_data_rejection"),
        (refusing, "positive_data_acceptance"),
    ] {
        if !paths.is_empty() {
            let mut these = each("--include-path", &paths);
            these.extend(["--exclude-checks", left_out]);
            run(daemon, document, key, phases, &these);
        }
    }
}

fn run(daemon: &Daemon, document: &Value, key: &str, phases: &str, arguments: &[&str]) {
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
        .args(["--checks", "all", "--phases", phases])
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

/// Leaves the paths of operations whose bodies name a model, whole: what is allowed there is told of all that a path
/// has. The model is to be there at the end, and no request is to unload it.
fn leave_what_reaches_the_model(document: &mut Value) {
    let schemas = document["components"]["schemas"].clone();
    let wanted = [&NAMING[..], &MAY_NAME].concat();
    let paths = document["paths"].as_object_mut().expect("paths");
    paths.remove("/models/unload");
    let all = paths.len();
    paths.retain(|_, path| {
        let operations = path.as_object_mut().expect("operations");
        operations.values().any(|operation| {
            let body = &operation["requestBody"];
            has(body, &wanted, &schemas, &mut BTreeSet::new())
        })
    });
    assert!((10..all).contains(&paths.len()), "{:?}", paths.keys());
}

/// Leaves of requests' parameters those that have other values here than where the model is reached, and those without
/// which no request is one.
fn leave_what_differs(document: &mut Value) {
    let schemas = document["components"]["schemas"].as_object_mut();
    let parameters = schemas.expect("schemas").iter_mut();
    let parameters = parameters.filter(|(name, _)| name.ends_with("Parameters"));
    let mut parameters: Vec<&mut Value> = parameters.map(|(_, schema)| schema).collect();
    let required = parameters.iter().flat_map(|it| it["required"].as_array());
    let required = required.flatten().filter_map(Value::as_str);
    let left: BTreeSet<String> = required.chain(DIFFERING).map(str::to_owned).collect();
    let mut removed = 0;
    for schema in &mut parameters {
        let Some(schema) = schema.as_object_mut() else {
            continue;
        };
        // Of fields that are not there it says nothing which of them go together.
        schema.remove("not");
        schema.remove("dependentSchemas");
        if let Some(Value::Array(all)) = schema.get_mut("allOf") {
            all.retain(|one| one.get("not").is_none());
        }
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            let before = properties.len();
            properties.retain(|name, _| left.contains(name));
            removed += before - properties.len();
        }
    }
    assert!(removed > 50, "{removed} of the parameters are left out");
}

/// The paths that reach the model have their fields tried one by one in the other test, with a model that is there:
/// here those alone that are not the same there.
#[test]
fn readers_of_the_document_get_what_it_says() {
    let (daemon, mut document, key) = start();
    of_this_installation(&mut document);
    let mut reaching = document.clone();
    leave_what_reaches_the_model(&mut reaching);
    let paths = document["paths"].as_object_mut().expect("paths");
    paths.retain(|path, _| reaching["paths"].get(path).is_none());
    check(&daemon, &document, &key, ALL_PHASES);
    check(&daemon, &reaching, &key, AT_RANDOM);
    leave_what_differs(&mut reaching);
    check(&daemon, &reaching, &key, FIELD_BY_FIELD);
}

#[test]
fn what_reaches_the_model_is_answered_as_the_document_says() {
    let (daemon, mut document, key) = start();
    of_this_installation(&mut document);
    leave_what_reaches_the_model(&mut document);
    let schemas = &mut document["components"]["schemas"];
    let ollama = schemas["OllamaParameters"]["properties"].as_object_mut();
    ollama.and_then(|properties| properties.remove("keep_alive"));
    for name in NAMING {
        schemas[name]["properties"]["model"] = json!({"type": "string", "enum": ["m"]});
    }
    for name in MAY_NAME {
        schemas[name]["properties"]["model"] = json!({"enum": ["m", "", null]});
    }
    // One millisecond is too short for any answer.
    let deadline = &mut schemas["SharedParameters"]["properties"]["total_deadline_ms"];
    deadline["minimum"] = 60_000.into();
    check(&daemon, &document, &key, ALL_PHASES);
    assert_eq!(daemon.phase("m"), "ready", "the model has answered");
}
