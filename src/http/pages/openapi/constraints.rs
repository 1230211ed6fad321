//! What the types' attributes cannot say about the document: which values of a parameter are taken,
//! what a request must not hold together, and what every path may answer. A merge patch (RFC 7396) on
//! the document that the types make, so each entry stands where the document has it.

use serde_json::{Value, json};

/// No NUL: runtimes take C strings, in which it would end the text.
const TEXT: &str = r"^[^\u0000]*$";
const SOME_TEXT: &str = r"^[^\u0000]+$";

/// Makes the document say all that is known.
pub(super) fn complete(document: &mut Value) {
    merge(document, parameters());
    merge(document, json_rpc());
    merge(document, schemas_of_functions());
    // An empty array is one of ids and one of pieces.
    any_of(document);
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else {
        return;
    };
    for (path, item) in paths {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            let responses = &mut operation["responses"];
            for (status, description) in refusals(method) {
                if responses[status].is_null() {
                    responses[status] = json!({"description": description});
                }
            }
            add_shapes(path, responses);
        }
    }
}

/// What any request may be answered by a method's paths.
fn refusals(method: &str) -> Vec<(&'static str, &'static str)> {
    let mut refusals = vec![
        ("400", "The request is malformed, or its Host header is"),
        ("403", "A foreign Host or Origin on a loopback listener"),
        ("414", "The request's target is too long"),
        ("431", "The request's header is too large"),
        ("505", "Another version of HTTP is spoken"),
    ];
    if matches!(method, "post" | "delete") {
        refusals.extend([
            ("408", "The body did not arrive in time"),
            ("413", "The body is too large"),
            (
                "415",
                "The body's content coding is not known; see Accept-Encoding",
            ),
            ("429", "Too much is asked for at once; see Retry-After"),
            ("503", "The daemon is short of memory, or shutting down"),
        ]);
    }
    refusals
}

/// The body of every error, and of a stream's events.
fn add_shapes(path: &str, responses: &mut Value) {
    let shape = match path {
        "/rpc" | "/rpc/ws" => "#/components/schemas/JsonRpcRefusal",
        path if path.starts_with("/api/") => "#/components/schemas/OllamaError",
        _ => "#/components/schemas/ErrorBody",
    };
    for (status, response) in responses.as_object_mut().into_iter().flatten() {
        let is_error = status.starts_with(['4', '5']);
        let has_own =
            path == "/v1/ready" && status == "503" || path == "/metrics" && status == "500";
        if is_error && !has_own {
            response["content"] = json!({"application/json": {"schema": {"$ref": shape}}});
        }
        if let Some(events) = response.pointer_mut("/content/text~1event-stream") {
            *events = json!({"schema": {
                "type": "object",
                "description": "An event, whose data is JSON in one line.",
                "required": ["data"],
                "properties": {"data": {"type": "string"}},
            }});
        }
    }
}

/// A value may be of several of the kinds it is one of.
fn any_of(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(any_of),
        Value::Object(fields) => {
            if let Some(kinds) = fields.remove("oneOf") {
                fields.insert("anyOf".to_owned(), kinds);
            }
            fields.values_mut().for_each(any_of);
        }
        _ => {}
    }
}

/// As RFC 7396 has it.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        match value {
            Value::Null => {
                target
                    .as_object_mut()
                    .and_then(|target| target.remove(&key));
            }
            value => merge(&mut target[&key], value),
        }
    }
}

fn parameters() -> Value {
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
            },
            // Two names of one value.
            "not": {"required": ["repeat_penalty", "repetition_penalty"]},
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
                "logprobs": {"enum": [false, null]},
                "top_logprobs": {"enum": [0, null]},
                "response_format": {
                    "required": ["type"],
                    "properties": {
                        "type": {"enum": ["text", "json_object", "json_schema"]},
                        "json_schema": {
                            "type": "object",
                            "required": ["schema"],
                            "properties": {
                                "name": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"},
                                "schema": {"type": ["object", "boolean"]},
                                "strict": {"type": ["boolean", "null"]},
                            },
                        },
                    },
                },
                "modalities": {"enum": [["text"], null]},
                "audio": {"type": "null"},
                "web_search_options": {"type": "null"},
            },
            // The older form and the newer one, and names of one value.
            "allOf": [
                {"not": {"required": ["tools", "functions"]}},
                {"not": {"required": ["thinking_budget_tokens", "reasoning_budget_tokens"]}},
                {"not": {"required": ["thinking_budget_tokens", "thinking_token_budget"]}},
                {"not": {"required": ["reasoning_budget_tokens", "thinking_token_budget"]}},
            ],
        },
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
        "TextParameters": {
            "properties": {
                "prompt": {
                    "oneOf": null,
                    "anyOf": [some_text, {"type": "array", "minItems": 1, "maxItems": 1, "items": some_text}],
                },
                "echo": {"enum": [false, null]},
                "suffix": {"enum": ["", null]},
                "best_of": {"enum": [1, null]},
                "logprobs": {"type": ["boolean", "null"], "format": null, "enum": [false, null]},
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
                "logprobs": {"enum": [false, null]},
                "top_logprobs": {"enum": [0, null]},
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
                "suffix": {"enum": ["", null]},
                "template": {"enum": ["", null]},
                "context": none,
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
        "TokenizeRequest": {"properties": {"parse_special": {"enum": [true, null]}}},
        "DetokenizeRequest": {"properties": {"tokens": {"items": {"maximum": u32::MAX}}}},
    }}})
}

/// The schema of a function is any object without a NUL, however deep.
fn schemas_of_functions() -> Value {
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

/// Any body gets an answer that says what is wrong with it, so the document excludes none.
fn json_rpc() -> Value {
    let object = json!({"type": "object", "required": ["jsonrpc"]});
    let answer = json!({"anyOf": [object, {"type": "array", "minItems": 1, "items": object}]});
    json!({
        "paths": {"/rpc": {"post": {
            "requestBody": {
                "required": false,
                "description": "A call of JSON-RPC 2.0 (an object), or a batch of them (an array). \
                    What is neither is answered with JSON-RPC's own error, and 200.",
                "content": {"application/json": {
                    "schema": {"type": null, "description": "A call, or an array of them."},
                    "example": {"jsonrpc": "2.0", "id": 1, "method": "rpc.discover"},
                }},
            },
            "responses": {"200": {"content": {
                "application/json": {"schema": {"type": null, "anyOf": answer["anyOf"]}},
                "text/event-stream": {},
            }}},
        }}},
        "components": {"schemas": {"JsonRpcRefusal": {
            "type": "object",
            "description": "An error of the request as a whole, in JSON-RPC's shape.",
            "required": ["jsonrpc", "error", "id"],
            "properties": {
                "jsonrpc": {"type": "string", "enum": ["2.0"], "description": "Always 2.0."},
                "error": {
                    "type": "object",
                    "description": "What is wrong.",
                    "required": ["code", "message", "data"],
                    "properties": {
                        "code": {"type": "integer", "description": "JSON-RPC's number."},
                        "message": {"type": "string", "description": "The reason."},
                        "data": {"type": "object", "description": "Its `code` is a name."},
                    },
                },
                "id": {"type": "null", "description": "It answers no call."},
            },
        }}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_adds_replaces_and_removes() {
        let mut document = json!({"a": {"b": 1, "c": [1, 2]}, "d": 3});
        merge(
            &mut document,
            json!({"a": {"b": null, "c": [3], "e": {"f": 4}}}),
        );
        assert_eq!(document, json!({"a": {"c": [3], "e": {"f": 4}}, "d": 3}));
    }

    /// A patch of what is not there would say nothing.
    #[test]
    fn every_patched_parameter_is_in_the_document() {
        let document = super::super::of_the_types();
        let patch = parameters();
        let schemas = patch["components"]["schemas"].as_object().expect("schemas");
        for (name, schema) in schemas {
            let there = &document["components"]["schemas"][name];
            assert!(there.is_object(), "{name} is not there");
            // Made of others, whose properties it narrows.
            if there.get("allOf").is_some() {
                continue;
            }
            let properties = schema["properties"].as_object().expect("properties");
            for property in properties.keys() {
                assert!(
                    there["properties"][property].is_object(),
                    "{name}.{property} is not there"
                );
            }
        }
    }
}
