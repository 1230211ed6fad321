//! Which values of the parameters of requests are taken, and which of them not together.

use serde_json::{Value, json};

use super::merge;

/// No NUL: runtimes take C strings, in which it would end the text.
pub(super) const TEXT: &str = r"^[^\u0000]*$";
pub(super) const SOME_TEXT: &str = r"^[^\u0000]+$";

/// Null is as if a parameter were absent.
fn not_both(one: &str, other: &str) -> Value {
    let given = json!({"not": {"type": "null"}});
    json!({"not": {"required": [one, other], "properties": {one: given, other: given}}})
}

pub(super) fn values() -> Value {
    let some_text = json!({"type": "string", "minLength": 1, "pattern": SOME_TEXT});
    let texts = json!({"type": "array", "minItems": 1, "items": some_text});
    let token = json!({"type": "integer", "minimum": 0, "maximum": i32::MAX});
    let tokens = json!({"type": "array", "minItems": 1, "items": token});
    let none = json!({"maxItems": 0});
    let choice = json!({"enum": ["none", "auto", null]});
    let text = json!({"pattern": TEXT});
    let given = json!({"not": {"type": "null"}});
    let no_calls = json!({"tool_calls": none, "function_call": {"type": "null"}});
    let of_role = |roles: Value, more: Value| {
        let mut properties = no_calls.clone();
        merge(
            &mut properties,
            json!({"role": {"enum": roles}, "content": given}),
        );
        merge(&mut properties, more);
        properties
    };
    let stop = json!({"type": "string", "maxLength": 256});
    let not_zero = json!({"description": "A chat has a token at least.", "not": {"enum": [0]}});
    let parts = json!({"type": "array", "items": {"$ref": "#/components/schemas/ContentPart"}});
    let part = json!({
        "type": ["string", "integer"], "minLength": 1, "pattern": SOME_TEXT,
        "minimum": 0, "maximum": i32::MAX,
    });
    let prompts = json!({"oneOf": null, "anyOf": [
        some_text,
        {"type": "array", "minItems": 1, "maxItems": 64, "items": some_text},
        // Nothing but texts are several prompts.
        {"type": "array", "minItems": 1, "contains": {"type": "integer"}, "items": part},
        {"type": "array", "minItems": 1, "maxItems": 64, "items": tokens},
    ]});
    json!({"components": {"schemas": {
        "SharedParameters": {
            "properties": {
                "model": {"minLength": 1},
                "stop": {
                    "oneOf": null,
                    "anyOf": [stop, {"type": "array", "maxItems": 64, "items": stop}, {"type": "null"}],
                },
                "seed": {"format": null, "maximum": u64::MAX},
                "logit_bias": {
                    "propertyNames": {"pattern": "^(0|[1-9][0-9]{0,8})$"},
                    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
                },
                "total_deadline_ms": {"maximum": i64::MAX},
                "max_tokens": {"maximum": i64::MAX},
                "n": {"maximum": 8},
                "min_tokens": {"maximum": i64::MAX},
                "stop_token_ids": {"maxItems": 64, "items": {"minimum": 0, "maximum": 1 << 30}},
            },
            // Two names of one value.
            "not": {"required": ["repeat_penalty", "repetition_penalty"]},
            "dependentSchemas": {"max_tokens": {"properties": {"min_tokens": {"enum": [0, null]}}}},
        },
        "ChatParameters": {
            "properties": {
                "max_completion_tokens": {"maximum": i64::MAX},
                "tool_choice": choice,
                "function_call": choice,
                "reasoning_effort": {
                    "enum": ["none", "minimal", "low", "medium", "high", "xhigh", "max", null],
                },
                "reasoning_format": {"enum": ["none", "deepseek", "auto", null]},
                "modalities": {"enum": [["text"], null]},
                "audio": {"type": "null"},
                "web_search_options": {"type": "null"},
            },
            // The older form and the newer one, and names of one value.
            "allOf": [
                not_both("tools", "functions"),
                not_both("thinking_budget_tokens", "reasoning_budget_tokens"),
                not_both("thinking_budget_tokens", "thinking_token_budget"),
                not_both("reasoning_budget_tokens", "thinking_token_budget"),
            ],
            "dependentSchemas": {
                "max_completion_tokens": {"properties": {"min_tokens": {"enum": [0, null]}}},
            },
        },
        "FormatParameters": {
            "properties": {
                "response_format": {
                    "required": ["type"],
                    "properties": {"type": {"enum": ["text", "json_object", "json_schema"]}},
                    // A schema beside another type is not looked at.
                    "anyOf": [
                        {"properties": {"type": {"enum": ["text", "json_object"]}}},
                        {"properties": {
                            "type": {"enum": ["json_schema"]},
                            "json_schema": {
                                "type": "object",
                                "required": ["schema"],
                                "properties": {
                                    "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"},
                                    "schema": {"type": ["object", "boolean"]},
                                    "strict": {"type": ["boolean", "null"]},
                                },
                            },
                        }},
                    ],
                },
                "json_schema": {"type": ["object", "boolean", "null"]},
                "guided_json": {"type": ["object", "boolean", "null"]},
            },
        },
        "StructuredOutputs": {"properties": {
            "json": {"type": ["object", "boolean", "null"]},
            "structural_tag": {"type": "null"},
            "whitespace_pattern": {"type": "null"},
        }},
        "ToolParameter": {"properties": {"type": {"enum": ["function", null]}}},
        "FunctionParameter": {"properties": {
            "name": {"minLength": 1, "pattern": SOME_TEXT},
            "description": text,
        }},
        "MessageCall": {"properties": {
            "id": {"minLength": 1, "pattern": SOME_TEXT},
            "type": {"enum": ["function", null]},
        }},
        "CalledFunction": {"properties": {
            "name": {"minLength": 1, "pattern": SOME_TEXT},
            "arguments": text,
        }},
        "ChatCompletionRequest": {
            "properties": {"max_tokens": not_zero, "max_completion_tokens": not_zero},
            "not": {"required": ["max_tokens", "max_completion_tokens"]},
        },
        "LlamaCompletionRequest": {"properties": {
            "n": {"description": "One answer: this path gives no more.", "enum": [1, null]},
        }},
        "TextParameters": {
            "properties": {
                "prompt": {
                    "oneOf": null,
                    "anyOf": [
                        some_text,
                        {"type": "array", "minItems": 1, "maxItems": 64, "items": some_text},
                        tokens,
                        {"type": "array", "minItems": 1, "maxItems": 64, "items": tokens},
                    ],
                },
                "suffix": text,
                "best_of": {"enum": [1, null]},
                "logprobs": {
                    "type": ["integer", "boolean", "null"],
                    "format": null,
                    "enum": [0, 1, 2, 3, 4, 5, false, null],
                },
            },
        },
        "Message": {
            "properties": {
                "role": {
                    "enum": ["system", "developer", "user", "assistant", "tool", "function"],
                },
                "content": {
                    "oneOf": null,
                    "anyOf": [{"type": "string", "pattern": TEXT}, parts, {"type": "null"}],
                },
                "name": text,
                "tool_call_id": text,
                "reasoning_content": text,
                "reasoning": text,
                "thinking": text,
            },
            "anyOf": [
                {"properties": {"role": {"enum": ["assistant"]}}},
                {
                    "required": ["content"],
                    "properties": of_role(json!(["system", "developer", "user"]), json!({})),
                },
                {
                    "required": ["content", "tool_call_id"],
                    "properties": of_role(json!(["tool"]), json!({"tool_call_id": some_text})),
                },
                {
                    "required": ["content", "name"],
                    "properties": of_role(json!(["function"]), json!({"name": some_text})),
                },
            ],
        },
        "ContentPart": {
            "properties": {"type": {"enum": ["text"]}, "text": {"pattern": TEXT}},
        },
        "EmbeddingParameters": {
            "properties": {
                "model": {"minLength": 1},
                "input": {
                    "oneOf": null,
                    "anyOf": [
                        some_text,
                        texts,
                        tokens,
                        {"type": "array", "minItems": 1, "items": tokens},
                    ],
                },
                "encoding_format": {"enum": ["float", "base64", null]},
                "dimensions": {"maximum": i64::MAX},
            },
        },
        "OllamaParameters": {
            "properties": {
                "model": {"minLength": 1},
            },
        },
        "ModelOptions": {
            "properties": {
                // Their limit is one of bytes.
                "stop": {
                    "oneOf": null,
                    "anyOf": [
                        {"type": ["string", "null"]},
                        {"type": "array", "maxItems": 64, "items": {"type": "string"}},
                    ],
                },
                "seed": {"format": null},
            },
        },
        "OllamaTextParameters": {
            "properties": {
                "prompt": text,
                "system": text,
                // A prompt alone.
                "raw": {"enum": [false, null]},
                "suffix": text,
                // That it is one no pattern says.
                "template": text,
                "context": {"items": {"minimum": 0, "maximum": i32::MAX}},
                "images": none,
            },
        },
        "OllamaMessage": {
            "properties": {
                "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
                "content": text,
                "thinking": text,
                "tool_name": text,
                "tool_call_id": text,
                "images": none,
            },
            "anyOf": [
                {"properties": {"role": {"enum": ["assistant"]}}},
                {"properties": {"tool_calls": none}},
            ],
        },
        "OllamaCall": {"properties": {"id": text}},
        "OllamaFunction": {"properties": {"name": {"pattern": SOME_TEXT}}},
        "EmbedParameters": {"properties": {"model": {"minLength": 1}}},
        "EmbedInput": {
            "properties": {
                "input": {"oneOf": null, "anyOf": [some_text, texts]},
                "dimensions": {"maximum": i64::MAX},
            },
        },
        "EmbeddingPrompt": {"properties": {"prompt": {"pattern": SOME_TEXT}}},
        "CompletionParameters": {"properties": {"prompt": prompts}},
        "RunParameters": {"properties": {
            "n_predict": {"maximum": i64::MAX},
            "post_sampling_probs": {"enum": [false, null]},
        }},
        "InfillParameters": {"properties": {
            "input_prefix": text,
            "input_suffix": text,
            "prompt": text,
        }},
        "ExtraFile": {"properties": {"filename": text, "text": text}},
        "RerankRequest": {"properties": {
            "query": {"pattern": SOME_TEXT},
            "top_n": {"maximum": i64::MAX},
        }},
        "TokenizeRequest": {"properties": {"parse_special": {"enum": [true, null]}}},
        "DetokenizeRequest": {"properties": {"tokens": {"items": {"maximum": u32::MAX}}}},
    }}})
}

/// The schema of a function is any object without a NUL, however deep.
pub(super) fn schemas_of_functions() -> Value {
    let value = json!({"$ref": "#/components/schemas/ValueWithoutNul"});
    json!({"components": {"schemas": {
        "ValueWithoutNul": {
            "description": "Any value whose texts hold no NUL.",
            "anyOf": [
                {"type": ["null", "boolean", "number"]},
                {"type": "string", "pattern": TEXT},
                {"type": "array", "items": value},
                {
                    "type": "object",
                    "propertyNames": {"pattern": TEXT},
                    "additionalProperties": value,
                },
            ],
        },
        "FunctionParameter": {"properties": {"parameters": {
            "propertyNames": {"pattern": TEXT},
            "additionalProperties": value,
        }}},
    }}})
}
