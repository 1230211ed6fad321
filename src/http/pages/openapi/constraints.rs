//! What the types' attributes cannot say about the document: which values of a parameter are taken,
//! what a request must not hold together, and what every path may answer. A merge patch (RFC 7396) on
//! the document that the types make, so each entry stands where the document has it.

mod anthropic;
mod parameters;
mod responses;

use serde_json::{Value, json};

/// Makes the document say all that is known.
pub(super) fn complete(document: &mut Value) {
    merge(document, parameters::values());
    merge(document, anthropic::parameters());
    merge(document, responses::parameters());
    merge(document, answers_of_several_prompts());
    merge(document, json_rpc());
    merge(document, parameters::schemas_of_functions());
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
        path if path.starts_with("/v1/messages") => "#/components/schemas/AnthropicError",
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

/// Of several prompts the answer is a list.
fn answers_of_several_prompts() -> Value {
    let text = json!({"$ref": "#/components/schemas/ContinuedText"});
    let schema = json!({"$ref": null, "anyOf": [text, {"type": "array", "items": text}]});
    json!({"paths": {"/completion": {"post": {"responses": {"200": {"content": {
        "application/json": {"schema": schema},
    }}}}}}})
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
        let patches = [
            parameters::values(),
            anthropic::parameters(),
            responses::parameters(),
        ];
        let schemas = patches.iter().flat_map(|patch| {
            let schemas = patch["components"]["schemas"].as_object();
            schemas.expect("schemas")
        });
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
