//! What a real model is asked that keeps to formats, and how its answers are judged.

use crate::daemon_support::{Answer, Daemon, chat};
use crate::json_judge::fault;
use serde_json::{Value, json};

pub const MODEL: &str = "smollm2";

pub fn object(properties: Value) -> Value {
    let names: Vec<_> = properties
        .as_object()
        .expect("properties")
        .keys()
        .cloned()
        .collect();
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

pub fn request(prompt: &str, more: Value) -> Value {
    chat(MODEL, prompt, more)
}

pub fn format_of(schema: &Value, strict: bool) -> Value {
    json!({"type": "json_schema",
        "json_schema": {"name": "answer", "strict": strict, "schema": schema}})
}

pub fn content(answer: &Answer) -> (String, String) {
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

/// Opens a thought, unless it is told not to.
pub const THINKS: &str = r#"{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% else %}<think>
{% endif %}{% endif %}"#;

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
