//! The same of the paths of OpenAI's responses.

use serde_json::{Value, json};

use super::parameters::{SOME_TEXT, TEXT};

/// Kinds of items, and of parts, that are looked at.
const ITEMS: [&str; 6] = [
    "message",
    "function_call",
    "function_call_output",
    "reasoning",
    "item_reference",
    "compaction",
];
const PARTS: [&str; 7] = [
    "input_text",
    "output_text",
    "text",
    "refusal",
    "input_image",
    "input_file",
    "input_audio",
];

/// What has another kind, which is left out and told.
fn other(known: &[&str]) -> Value {
    json!({
        "type": "object",
        "description": "Something of another kind, which is left out and told in `x-rkllmd-not-applied`.",
        "required": ["type"],
        "properties": {"type": {
            "type": "string",
            "description": "Its kind.",
            "not": {"enum": known},
        }},
    })
}

fn texts() -> Value {
    let part = json!({"$ref": "#/components/schemas/InputPart"});
    json!({"oneOf": null, "anyOf": [
        {"type": "string", "pattern": TEXT},
        {"type": "array", "items": {"anyOf": [part, other(&PARTS)]}},
    ]})
}

pub(super) fn parameters() -> Value {
    let some_text = json!({"minLength": 1, "pattern": SOME_TEXT});
    let text = json!({"pattern": TEXT});
    let value = json!({"$ref": "#/components/schemas/ValueWithoutNul"});
    let object = json!({"propertyNames": {"pattern": TEXT}, "additionalProperties": value});
    let names = [
        "InputMessage",
        "InputCall",
        "InputResult",
        "InputReasoning",
        "InputReference",
        "InputCompaction",
    ];
    let items: Vec<Value> = names
        .iter()
        .map(|name| json!({"$ref": format!("#/components/schemas/{name}")}))
        .collect();
    let message = items[0].clone();
    let known_and_others: Vec<Value> = items.into_iter().chain([other(&ITEMS)]).collect();
    let format = json!({
        "required": ["type"],
        "properties": {"type": {"enum": ["text", "json_object", "json_schema"]}},
        "anyOf": [
            {"properties": {"type": {"enum": ["text", "json_object"]}}},
            {
                "required": ["schema"],
                "properties": {
                    "type": {"enum": ["json_schema"]},
                    "schema": {"type": ["object", "boolean"]},
                    "strict": {"type": ["boolean", "null"]},
                },
            },
        ],
    });
    json!({"components": {"schemas": {
        "ContextParameters": {
            "required": ["model"],
            // What goes on from a response may say nothing new.
            "anyOf": [
                {
                    "required": ["input"],
                    "properties": {"input": {"type": ["string", "array"]}},
                },
                {
                    "required": ["previous_response_id"],
                    "properties": {"previous_response_id": {"type": "string"}},
                },
            ],
            "properties": {
                "model": {"minLength": 1},
                "instructions": text,
                "input": {"oneOf": null, "anyOf": [
                    {"type": "string", "pattern": TEXT},
                    // One at least is known.
                    {
                        "type": "array",
                        "minItems": 1,
                        "contains": message,
                        "items": {"anyOf": known_and_others},
                    },
                    {"type": "null"},
                ]},
                "tool_choice": {"oneOf": null, "enum": ["auto", "none", null]},
                "truncation": {"enum": ["auto", "disabled", null]},
                "conversation": {"type": "null"},
                "prompt": {"type": "null"},
            },
        },
        "CreateParameters": {"properties": {
            "max_output_tokens": {"maximum": i64::MAX},
        }},
        "InputMessage": {
            "required": ["role", "content"],
            "properties": {
                "type": {"enum": ["message", null]},
                "role": {"enum": ["user", "assistant", "system", "developer"]},
                "content": texts(),
            },
        },
        "InputCall": {"properties": {
            "type": {"enum": ["function_call"]},
            "call_id": some_text,
            "name": some_text,
            "arguments": text,
        }},
        "InputResult": {
            "required": ["type", "call_id", "output"],
            "properties": {
                "type": {"enum": ["function_call_output"]},
                "call_id": some_text,
                "output": texts(),
            },
        },
        "InputReasoning": {"properties": {"type": {"enum": ["reasoning"]}}},
        "InputCompaction": {"properties": {"type": {"enum": ["compaction"]}}},
        "InputReference": {"properties": {
            "type": {"enum": ["item_reference", null]},
            "id": some_text,
        }},
        "InputPart": {
            "properties": {"text": text, "refusal": text},
            "anyOf": [
                {
                    "required": ["type", "text"],
                    "properties": {
                        "type": {"enum": ["input_text", "output_text", "text"]},
                        "text": {"type": "string"},
                    },
                },
                {
                    "required": ["type", "refusal"],
                    "properties": {"type": {"enum": ["refusal"]}, "refusal": {"type": "string"}},
                },
            ],
        },
        "ResponseTool": {
            "properties": {"name": text, "description": text, "parameters": object},
            "anyOf": [
                {
                    "required": ["type", "name"],
                    "properties": {
                        "type": {"enum": ["function"]},
                        "name": {"type": "string", "minLength": 1},
                    },
                },
                {
                    "required": ["type"],
                    "properties": {"type": {"type": "string", "not": {"enum": ["function"]}}},
                },
            ],
        },
        "TextParameter": {"properties": {"format": format}},
        "ReasoningParameter": {"properties": {"effort": {
            "enum": ["none", "minimal", "low", "medium", "high", "xhigh", "max", null],
        }}},
    }}})
}
