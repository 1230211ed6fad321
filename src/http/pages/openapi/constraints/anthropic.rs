//! The same of Anthropic's paths.

use serde_json::{Value, json};

use super::parameters::{SOME_TEXT, TEXT};

/// Kinds of blocks that are looked at.
const KNOWN: [&str; 6] = [
    "text",
    "image",
    "document",
    "tool_use",
    "tool_result",
    "thinking",
];

/// A string, or blocks of these schemas and of kinds that are not known.
fn content(blocks: &[&str]) -> Value {
    let named = blocks
        .iter()
        .map(|name| json!({"$ref": format!("#/components/schemas/{name}")}));
    let other = json!({
        "type": "object",
        "description": "A block of another kind, which is left out and told in `x-rkllmd-not-applied`.",
        "required": ["type"],
        "properties": {"type": {
            "type": "string",
            "description": "Its kind.",
            "not": {"enum": KNOWN},
        }},
    });
    let items: Vec<Value> = named.chain([other]).collect();
    json!([
        {"type": "string", "pattern": TEXT},
        {"type": "array", "items": {"anyOf": items}},
    ])
}

fn content_or_null(blocks: &[&str]) -> Value {
    let mut forms = content(blocks);
    if let Some(forms) = forms.as_array_mut() {
        forms.push(json!({"type": "null"}));
    }
    json!({"oneOf": null, "anyOf": forms})
}

pub(super) fn parameters() -> Value {
    let some_text = json!({"minLength": 1, "pattern": SOME_TEXT});
    let text = json!({"pattern": TEXT});
    let value = json!({"$ref": "#/components/schemas/ValueWithoutNul"});
    let object = json!({"propertyNames": {"pattern": TEXT}, "additionalProperties": value});
    let of_role = |role: &str, blocks: &[&str]| json!({"properties": {"role": {"enum": [role]}, "content": {"anyOf": content(blocks)}}});
    let format = json!({
        "required": ["type", "schema"],
        "properties": {
            "type": {"type": "string", "enum": ["json_schema"]},
            "schema": {"type": ["object", "boolean"]},
        },
    });
    json!({"components": {"schemas": {
        "ConversationParameters": {"properties": {
            "model": {"minLength": 1},
            "system": content_or_null(&["TextBlock"]),
            "output_format": format,
        }},
        "MessagesParameters": {"properties": {
            "max_tokens": {"maximum": i64::MAX},
            "stop_sequences": {"maxItems": 64, "items": {"maxLength": 256}},
        }},
        "MessageParam": {
            "required": ["role", "content"],
            "properties": {
                "role": {"enum": ["user", "assistant", "system"]},
                "content": {"oneOf": null},
            },
            "anyOf": [
                of_role("user", &["TextBlock", "ToolResultBlock"]),
                of_role("assistant", &["TextBlock", "ToolUseBlock", "ThinkingBlock"]),
                of_role("system", &["TextBlock"]),
            ],
        },
        "TextBlock": {"properties": {"type": {"enum": ["text"]}, "text": text}},
        "ToolUseBlock": {"properties": {
            "type": {"enum": ["tool_use"]},
            "id": some_text,
            "name": some_text,
            "input": object,
        }},
        "ToolResultBlock": {"properties": {
            "type": {"enum": ["tool_result"]},
            "tool_use_id": some_text,
            "content": content_or_null(&["TextBlock"]),
        }},
        "ThinkingBlock": {"properties": {"type": {"enum": ["thinking"]}, "thinking": text}},
        "AnthropicTool": {
            "properties": {
                "name": text,
                "description": text,
                "input_schema": object,
            },
            "anyOf": [
                {
                    "required": ["name"],
                    "properties": {
                        "type": {"enum": ["custom", null]},
                        "name": {"type": "string", "minLength": 1},
                    },
                },
                {
                    "required": ["type"],
                    "properties": {"type": {"type": "string", "not": {"enum": ["custom"]}}},
                },
            ],
        },
        "AnthropicToolChoice": {"properties": {"type": {"enum": ["auto", "none"]}}},
        "ThinkingParameter": {"properties": {"budget_tokens": {"maximum": i64::MAX}}},
        "OutputConfig": {"properties": {"format": format}},
    }}})
}
