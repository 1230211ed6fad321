//! Answers of the real model that are to be JSON of a schema are, whatever the model would say, judged by
//! a validator that is not the engine that keeps them.

use crate::daemon_support::{Answer, Daemon, Setup, chat, kill};
use crate::json_judge::fault;
use crate::schema_support::{generated, schemas_of_tools};
use serde_json::{Value, json};

pub const MODEL: &str = "smollm2";

fn object(properties: Value) -> Value {
    let names = properties.as_object().expect("properties").keys();
    let names: Vec<_> = names.cloned().collect();
    json!({"type": "object", "properties": properties, "required": names})
}

/// Schemas as tools and programs have them; texts and lists are bounded, as budgets are. Three have answers of any
/// length: a time's fraction, a list by references, and an object with other names.
pub fn schemas() -> Vec<Value> {
    let text = |most: u32| json!({"type": "string", "maxLength": most});
    let list = |items: Value, most: u32| json!({"type": "array", "items": items, "maxItems": most});
    vec![
        json!({"type": "boolean"}),
        json!({"type": "integer", "minimum": -5, "maximum": 500}),
        json!({"enum": ["red", "green", "blue", null, 7]}),
        json!({"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}),
        json!({"type": "string", "format": "uuid"}),
        json!({"type": "string", "format": "ipv4"}),
        object(json!({"name": text(20), "age": {"type": "integer", "minimum": 0, "maximum": 150}})),
        object(json!({"tags": list(text(8), 3)})),
        object(
            json!({"on": {"type": "boolean"}, "level": {"type": "number", "minimum": 0, "maximum": 1}}),
        ),
        object(json!({"unit": {"enum": ["celsius", "fahrenheit"]}, "city": text(16)})),
        object(json!({"when": {"type": "string", "format": "date"}})),
        object(json!({"at": {"type": "string", "format": "time"}})),
        object(
            json!({"point": object(json!({"x": {"type": "integer", "minimum": 0, "maximum": 99},
            "y": {"type": "integer", "minimum": 0, "maximum": 99}}))}),
        ),
        json!({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9},
            "minItems": 2, "maxItems": 5}),
        json!({"type": "array", "prefixItems": [text(6), {"type": "boolean"}], "items": false,
            "minItems": 2}),
        json!({"anyOf": [{"type": "null"}, object(json!({"id": {"const": 3}}))]}),
        json!({"oneOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "boolean"}]}),
        json!({"$ref": "#/$defs/leaf", "$defs": {"leaf": object(json!({"v": {"type": "boolean"}}))}}),
        json!({"$ref": "#/definitions/t", "definitions": {"t": {"type": "object",
            "properties": {"v": {"type": "integer", "minimum": 0, "maximum": 9},
                "next": {"anyOf": [{"$ref": "#/definitions/t"}, {"type": "null"}]}},
            "required": ["v", "next"]}}}),
        json!({"type": "object", "properties": {"a": text(5), "b": text(5)}, "required": ["b"],
            "additionalProperties": false}),
        json!({"type": ["string", "null"], "maxLength": 12}),
        object(json!({"é": text(6), "quote\"d": {"type": "boolean"}})),
        object(
            json!({"steps": list(object(json!({"do": text(10), "n": {"type": "integer",
            "minimum": 1, "maximum": 9}})), 2)}),
        ),
        json!({"allOf": [object(json!({"p": {"type": "boolean"}})),
            object(json!({"q": {"enum": ["x", "y"]}}))]}),
        json!({"type": "object", "required": ["pet"],
            "properties": {"pet": {"discriminator": {"propertyName": "kind"},
                "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}},
            "$defs": {
                "Cat": object(json!({"kind": {"const": "cat"}, "lives": {"type": "integer",
                    "minimum": 0, "maximum": 9}})),
                "Dog": object(json!({"kind": {"const": "dog"}, "good": {"type": "boolean"}}))}}),
        json!({"type": "string", "enum": ["low", "medium", "high", "none of these"]}),
        json!({"const": "done"}),
        json!({"type": "string", "pattern": "^#[0-9a-f]{6}$"}),
        json!({"type": "array", "items": {"enum": ["north", "south"]}, "minItems": 1, "maxItems": 3}),
        object(json!({"ok": {"type": "boolean"}, "code": {"enum": [200, 404, 500]}})),
    ]
}

fn request(prompt: &str, more: Value) -> Value {
    chat(MODEL, prompt, more)
}

fn format_of(schema: &Value, strict: bool) -> Value {
    json!({"type": "json_schema",
        "json_schema": {"name": "answer", "strict": strict, "schema": schema}})
}

fn content(answer: &Answer) -> (String, String) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let choice = &answer.json()["choices"][0];
    let text = choice["message"]["content"].as_str().expect("content");
    let finish = choice["finish_reason"].as_str().expect("a reason");
    (text.to_owned(), finish.to_owned())
}

/// How many of the answers at a high temperature are whole, all of which have to be right; of every
/// fourth, the same without the format.
pub fn keep(daemon: &Daemon, schemas: &[Value]) -> usize {
    let (mut whole, mut free) = (0, 0);
    for (index, schema) in schemas.iter().enumerate() {
        let prompt = format!("Invent an example, number {index}.");
        let more = |format: Option<Value>| json!({"temperature": 1.5, "seed": index, "max_tokens": 160, "response_format": format});
        let asked = request(&prompt, more(Some(format_of(schema, true))));
        let (text, finish) = content(&daemon.post("/v1/chat/completions", &asked));
        println!("{finish}: {text}");
        if finish == "stop" {
            whole += 1;
            assert_eq!(
                fault(schema, &text),
                None,
                "{text}\nis no answer of {schema}"
            );
        } else {
            assert_eq!(finish, "length");
        }
        if index % 4 == 0 {
            free += usize::from(free_is_right(daemon, request(&prompt, more(None)), schema));
        }
    }
    let (all, tried) = (schemas.len(), schemas.len().div_ceil(4));
    println!("{whole} of {all} are whole; without the format {free} of {tried} are right");
    whole
}

/// Whether an answer without a format is one of the schema. What is no JSON already stays none: it is not waited for.
fn free_is_right(daemon: &Daemon, mut asked: Value, schema: &Value) -> bool {
    asked["stream"] = json!(true);
    let mut stream = daemon.stream("/v1/chat/completions", &asked);
    assert_eq!(stream.status, 200);
    let mut text = String::new();
    loop {
        let data = stream.next_data().expect("its end is told");
        if data == "[DONE]" {
            return fault(schema, &text).is_none();
        }
        let chunk: Value = serde_json::from_str(&data).expect("a chunk is JSON");
        assert!(chunk.get("error").is_none(), "{chunk}");
        let piece = chunk["choices"][0]["delta"]["content"].as_str();
        text += piece.unwrap_or_default();
        if serde_json::from_str::<Value>(&text).is_err_and(|error| !error.is_eof()) {
            return false;
        }
    }
}

/// Of ten answers nine at least are whole.
fn keep_and_end(daemon: &Daemon, schemas: &[Value]) {
    let (whole, all) = (keep(daemon, schemas), schemas.len());
    assert!(whole * 10 >= all * 9, "{whole} of {all}");
}

#[test]
fn the_real_model_keeps_to_schemas_that_it_would_not_keep_to() {
    keep_and_end(&Setup::new().demo_model(MODEL).start(), &schemas());
}

/// It keeps to formats that it is not told of, too; a prompt that tells of one takes longer than the answer.
fn told_of_no_format() -> Daemon {
    let setup = Setup::new().demo_model(MODEL);
    setup.settings("constraints.show-format = false").start()
}

#[test]
fn the_real_model_keeps_to_schemas_of_real_functions() {
    keep_and_end(&told_of_no_format(), &schemas_of_tools(24));
}

#[test]
fn the_real_model_keeps_to_schemas_that_are_made_at_random() {
    let mut random = fastrand::Rng::with_seed(13);
    let schemas = Vec::from_iter((0..24).map(|_| generated::schema(&mut random, 120)));
    keep_and_end(&told_of_no_format(), &schemas);
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

/// Opens a thought, unless it is told not to.
pub const THINKS: &str = r#"{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% else %}<think>
{% endif %}{% endif %}"#;

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

/// How many tokens its thought has, which is cut behind twelve.
pub fn thinks_and_keeps_to_a_format(daemon: &Daemon) -> Option<u64> {
    let schema = object(json!({"ok": {"type": "boolean"}}));
    let more = json!({"temperature": 0, "max_tokens": 60, "thinking_budget_tokens": 12,
        "response_format": format_of(&schema, true)});
    let answer = daemon.post("/v1/chat/completions", &request("Is the sea wet?", more));
    let (text, finish) = content(&answer);
    assert_eq!(
        (fault(&schema, &text), finish.as_str()),
        (None, "stop"),
        "{text}"
    );
    let thought = &answer.json()["choices"][0]["message"]["reasoning_content"];
    let thought = thought.as_str().expect("a thought");
    assert!(thought.contains(' ') && !thought.contains('{'), "{thought}");
    answer.json()["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64()
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
