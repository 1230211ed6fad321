//! Answers of the real model that are to be JSON of a schema are, whatever the model would say, judged by
//! a validator that is not the engine that keeps them.

use crate::daemon_support::{Daemon, Setup, chat, kill};
use crate::formats_support::{
    MODEL, THINKS, content, format_of, keep, object, request, schemas, thinks_and_keeps_to_a_format,
};
use crate::json_judge::fault;
use crate::schema_support::{generated, schemas_of_tools};
use serde_json::{Value, json};

/// Of ten answers nine at least are whole.
fn keep_and_end(daemon: &Daemon, schemas: &[Value]) {
    let (whole, all) = (keep(daemon, schemas), schemas.len());
    assert!(whole * 10 >= all * 9, "{whole} of {all}");
}

#[test]
fn the_real_model_keeps_to_schemas_that_it_would_not_keep_to() {
    let daemon = Setup::new().demo_model(MODEL).start();
    keep_and_end(&daemon, &schemas());
}

#[test]
fn the_real_model_keeps_to_schemas_of_real_functions() {
    let daemon = Setup::new().demo_model(MODEL).start();
    keep_and_end(&daemon, &schemas_of_tools(24));
}

#[test]
fn the_real_model_keeps_to_schemas_that_are_made_at_random() {
    let daemon = Setup::new().demo_model(MODEL).start();
    let mut random = fastrand::Rng::with_seed(13);
    let schemas = Vec::from_iter((0..24).map(|_| generated::schema(&mut random, 120)));
    keep_and_end(&daemon, &schemas);
}

#[test]
fn an_answer_that_its_last_token_completes_has_stopped() {
    let daemon = Setup::new().demo_model(MODEL).start();
    let more = |tokens: u32| json!({"temperature": 0, "max_tokens": tokens, "guided_choice": ["{}{}{}{}", "[][][]"]});
    let ask = |tokens: u32| {
        let asked = request("Say something.", more(tokens));
        let answer = daemon.post("/v1/chat/completions", &asked);
        let used = answer.json()["usage"]["completion_tokens"]
            .as_u64()
            .expect("tokens");
        let (text, finish) = content(&answer);
        (text, finish, used as u32)
    };
    let (whole, finish, used) = ask(50);
    assert_eq!(finish, "stop", "{whole}");
    assert_eq!(ask(used), (whole, "stop".to_owned(), used));
    assert_eq!(ask(used - 1).1, "length");
}

#[test]
fn an_answer_of_which_nothing_can_be_drawn_fails() {
    let daemon = Setup::new().demo_model(MODEL).start();
    // The one token that may come, by the id that it is told with.
    let told = json!({"model": MODEL, "prompt": "Go.", "n_predict": 4, "n_probs": 1,
        "guided_choice": ["{"]});
    let told = daemon.post("/completion", &told).json();
    let id = &told["completion_probabilities"][0]["id"];
    let id = id.as_u64().unwrap_or_else(|| panic!("a token: {told}"));
    let more = json!({"temperature": 0, "max_tokens": 20, "guided_choice": ["{"],
        "logit_bias": {id.to_string(): -100}});
    let failed = daemon.post("/v1/chat/completions", &request("Go.", more));
    let error = failed.json()["error"].clone();
    assert_eq!(
        (failed.status, error["code"].as_str()),
        (422, Some("format_not_kept")),
        "{error}"
    );
}

#[test]
fn a_stream_is_kept_like_a_whole_answer() {
    let daemon = Setup::new().demo_model(MODEL).start();
    let schema = object(json!({"name": {"type": "string", "maxLength": 30},
        "kind": {"enum": ["cat", "dog"]}}));
    let more =
        json!({"temperature": 0, "max_tokens": 80, "response_format": format_of(&schema, true)});
    let asked = request("Describe a pet.", more);
    let (text, finish) = content(&daemon.post("/v1/chat/completions", &asked));
    assert_eq!(
        (fault(&schema, &text), finish.as_str()),
        (None, "stop"),
        "{text}"
    );
    let mut streamed = asked.clone();
    streamed["stream"] = json!(true);
    let events = daemon.stream("/v1/chat/completions", &streamed).collect();
    let chunks = events
        .iter()
        .filter_map(|(_, data)| serde_json::from_str::<Value>(data).ok());
    let pieces = chunks.filter_map(|chunk| {
        let piece = chunk["choices"][0]["delta"]["content"].as_str()?;
        Some(piece.to_owned())
    });
    assert_eq!(pieces.collect::<String>(), text);
    let object = request(
        "Invent something.",
        json!({"temperature": 1, "max_tokens": 60,
        "response_format": {"type": "json_object"}}),
    );
    let (text, finish) = content(&daemon.post("/v1/chat/completions", &object));
    assert!(text.starts_with('{'), "{text}");
    assert!(
        finish == "length" || fault(&json!({"type": "object"}), &text).is_none(),
        "{text}"
    );
}

#[test]
fn an_answer_is_whole_although_its_workers_die() {
    let daemon = Setup::new().demo_model(MODEL).start();
    let schema = json!({"type": "array", "minItems": 12, "maxItems": 12,
        "items": object(json!({"n": {"type": "integer", "minimum": 0, "maximum": 999},
            "on": {"type": "boolean"}}))});
    let more = json!({"temperature": 1.2, "max_tokens": 400, "stream": true,
        "response_format": format_of(&schema, true)});
    for dies_at in [3, 20, 61] {
        let asked = request("List twelve things.", more.clone());
        let mut stream = daemon.stream("/v1/chat/completions", &asked);
        assert_eq!(stream.status, 200);
        let (mut text, mut last, mut pieces) = (String::new(), Value::Null, 0);
        while let Some(data) = stream.next_data().filter(|data| data != "[DONE]") {
            let chunk: Value = serde_json::from_str(&data).expect("a chunk is JSON");
            assert!(chunk.get("error").is_none(), "{chunk}");
            let piece = chunk["choices"][0]["delta"]["content"].as_str();
            if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
                text.push_str(piece);
                pieces += 1;
                if pieces == dies_at {
                    kill(daemon.worker_pid());
                }
            }
            last = chunk;
        }
        assert_eq!(last["choices"][0]["finish_reason"], "stop", "{text}");
        assert_eq!(last["timings"]["resumptions"], 1, "{last}");
        assert_eq!(fault(&schema, &text), None, "{text}");
    }
}

#[test]
fn a_thought_is_free_and_what_follows_is_kept() {
    let daemon = Setup::new()
        .demo_model(MODEL)
        .model_file(MODEL, "chat_template.jinja", THINKS)
        .start();
    let tokens = thinks_and_keeps_to_a_format(&daemon);
    assert!(
        tokens.is_some_and(|tokens| (1..=12).contains(&tokens)),
        "{tokens:?}"
    );
}

#[test]
fn what_cannot_be_kept_is_refused_or_named() {
    let daemon = Setup::new().demo_model(MODEL).start();
    let ask = |format: Value| {
        let more = json!({"temperature": 0, "max_tokens": 40, "response_format": format});
        daemon.post("/v1/chat/completions", &request("Say something.", more))
    };
    let odd = json!({"type": "object", "required": ["a"], "properties": {
        "a": {"type": "string", "maxLength": 4},
        "b/c": {"type": "array", "uniqueItems": true},
        "d": {"type": "string", "pattern": "(?=x)y"},
    }});
    let refused = ask(format_of(&odd, true));
    let error = &refused.json()["error"];
    assert_eq!(refused.status, 400, "{error}");
    assert_eq!(error["code"], "unsupported_schema");
    assert_eq!(error["param"], "response_format.json_schema.schema");
    let message = error["message"].as_str().expect("a message");
    assert!(
        message.contains("/properties/b~1c/uniqueItems"),
        "{message}"
    );
    let named = ask(format_of(&odd, false));
    assert_eq!(named.status, 200, "{}", named.body);
    let header = named.header("x-rkllmd-not-applied").expect("it is named");
    assert_eq!(header, "/properties/b~1c/uniqueItems, /properties/d");
    for (schema, place) in [
        (json!({"x-guidance": {"lenient": true}}), "/x-guidance"),
        (json!({"type": "strong"}), "schema"),
        (json!({"enum": []}), "schema"),
        (json!(["array"]), "schema"),
    ] {
        let refused = ask(format_of(&schema, false));
        let error = &refused.json()["error"];
        assert_eq!(
            (refused.status, &error["code"]),
            (400, &json!("unsupported_schema")),
            "{error}"
        );
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| text.contains(place)),
            "{error}"
        );
    }
}

#[test]
fn a_model_whose_tokens_are_not_known_is_kept_to_no_format() {
    let asked = chat(
        "npu",
        "Go.",
        json!({"response_format": {"type": "json_object"}}),
    );
    let daemon = Setup::new()
        .scenario("npu", "tokens = [\"a\"]\n")
        .demo_model(MODEL)
        .start();
    for (id, keeps) in [("npu", false), (MODEL, true)] {
        let model = daemon.get(&format!("/v1/models/{id}")).json();
        assert_eq!(model["rkllmd"]["keeps_formats"], keeps, "{model}");
    }
    let refused = daemon.post("/v1/chat/completions", &asked);
    let error = refused.json()["error"].clone();
    assert_eq!(
        (refused.status, error["code"].as_str()),
        (400, Some("model_has_no_tokenizer"))
    );
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("tokenizer.json")),
        "{error}"
    );
}
