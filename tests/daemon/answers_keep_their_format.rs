//! Answers of the real model that are to be JSON of a schema are, whatever the model would say, judged by
//! a validator that is not the engine that keeps them.

use std::collections::HashSet;
use std::fmt;

use crate::daemon_support::{Answer, Setup, chat, kill, word_tokenizer};
use boon::{Compiler, Schemas};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

const MODEL: &str = "smollm2";

/// JSON in which no object has a key twice.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

macro_rules! scalars {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Self, E> { Ok(self) })*
    };
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Unique>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, _)) = map.next_entry::<String, Unique>()? {
            if !keys.insert(key.clone()) {
                return Err(A::Error::custom(format!("`{key}` is there twice")));
            }
        }
        Ok(self)
    }
}

/// Why `answer` is no JSON of `schema`.
fn fault(schema: &Value, answer: &str) -> Option<String> {
    let value: Value = match serde_json::from_str(answer) {
        Ok(value) => value,
        Err(error) => return Some(error.to_string()),
    };
    if let Err(error) = serde_json::from_str::<Unique>(answer) {
        return Some(error.to_string());
    }
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.enable_format_assertions();
    compiler
        .add_resource("schema.json", schema.clone())
        .expect("a schema");
    let index = compiler
        .compile("schema.json", &mut schemas)
        .expect("a schema");
    let judged = schemas.validate(&value, index);
    judged.err().map(|error| format!("{error:#}"))
}

fn object(properties: Value) -> Value {
    let names: Vec<_> = properties
        .as_object()
        .expect("properties")
        .keys()
        .cloned()
        .collect();
    json!({"type": "object", "properties": properties, "required": names})
}

/// Schemas as tools and programs have them; texts and lists are bounded, as budgets are.
fn schemas() -> Vec<Value> {
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

#[test]
fn the_real_model_keeps_to_schemas_that_it_would_not_keep_to() {
    let daemon = Setup::new().demo_model(MODEL).start();
    let (mut whole, mut free) = (0, 0);
    let schemas = schemas();
    for (index, schema) in schemas.iter().enumerate() {
        let prompt = format!("Invent an example, number {index}.");
        let more = |format: Option<Value>| json!({"temperature": 1.5, "max_tokens": 160, "response_format": format});
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
            let (text, _) =
                content(&daemon.post("/v1/chat/completions", &request(&prompt, more(None))));
            free += usize::from(fault(schema, &text).is_none());
        }
    }
    println!(
        "{whole} of {} are whole; free, {free} of {}",
        schemas.len(),
        schemas.len() / 4
    );
    assert!(
        whole * 10 >= schemas.len() * 9,
        "{whole} of {}",
        schemas.len()
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
    const THINKS: &str = r#"{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% else %}<think>
{% endif %}{% endif %}"#;
    let daemon = Setup::new()
        .demo_model(MODEL)
        .model_file(MODEL, "chat_template.jinja", THINKS)
        .start();
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
fn hostile_schemas_cost_their_request_alone() {
    // Shown to the model, some would be too long for its context before they are compiled.
    let daemon = Setup::new()
        .demo_model(MODEL)
        .settings("constraints.show-format = false\n")
        .start();
    let deep = (0..100).fold(json!({"type": "null"}), |inner, _| json!({"items": inner}));
    let many: serde_json::Map<String, Value> = (0..10_000)
        .map(|n| (format!("property{n}"), json!({"type": "integer"})))
        .collect();
    let words: Vec<String> = (0..60_000).map(|n| format!("word number {n}")).collect();
    let cycle = json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}});
    let catastrophe = json!({"type": "string", "pattern": "^((a{1,500}){1,500}){1,500}$"});
    let links = |count: usize| -> Value {
        let mut chain: serde_json::Map<String, Value> = (0..count)
            .map(|n| {
                (
                    format!("a{n}"),
                    json!({"$ref": format!("#/$defs/a{}", n + 1)}),
                )
            })
            .collect();
        chain.insert(format!("a{count}"), json!({"type": "null"}));
        json!({"$ref": "#/$defs/a0", "$defs": chain})
    };
    for schema in [
        links(100),
        links(400),
        links(3000),
        deep,
        json!({"type": "object", "properties": many}),
        json!({"enum": words}),
        cycle,
        catastrophe,
        json!({"type": "array", "minItems": 100_000_000, "items": {"type": "string"}}),
    ] {
        let more =
            json!({"temperature": 1, "max_tokens": 4, "response_format": format_of(&schema, true)});
        let answer = daemon.post("/v1/chat/completions", &request("Go.", more));
        let code = answer.json()["error"]["code"].clone();
        println!("{} {code}", answer.status);
        let fails = [
            "unsupported_schema",
            "schema_too_complex",
            "format_not_kept",
            "request_too_large",
        ];
        let is_refused = fails.iter().any(|fail| code == *fail);
        assert!(answer.status == 200 || is_refused, "{}", answer.body);
    }
    let more = json!({"temperature": 0, "max_tokens": 4});
    content(&daemon.post("/v1/chat/completions", &request("Go.", more)));
}

#[test]
fn a_runtime_that_cannot_be_kept_to_a_format_says_so() {
    let format = json!({"type": "json_object"});
    let asked = |model: &str| chat(model, "Go.", json!({"response_format": format}));
    let daemon = Setup::new()
        .scenario("npu", "tokens = [\"a\"]\n")
        .model_file("npu", "tokenizer.json", &word_tokenizer(&[]))
        .start();
    let refused = daemon.post("/v1/chat/completions", &asked("npu"));
    assert_eq!(
        (refused.status, refused.json()["error"]["code"].as_str()),
        (400, Some("cannot_constrain"))
    );
    let daemon = Setup::new().scenario("npu", "tokens = [\"a\"]\n").start();
    let refused = daemon.post("/v1/chat/completions", &asked("npu"));
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
