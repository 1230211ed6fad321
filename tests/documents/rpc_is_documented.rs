//! docs/json-rpc.md lists what the daemon's own description lists, no more and no less.

use std::fmt::Write as _;

use crate::daemon_support::Setup;
use crate::rpc_support::{Client, Transport, document};
use serde_json::{Value, json};

fn discovered() -> Value {
    let daemon = Setup::new().start();
    let mut client = Client::connect(Transport::Http, daemon.address, "".as_ref());
    client.call("rpc.discover", json!({})).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().replace(['\n', '|'], " ")
}

/// A type in a few words; named types are linked.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return format!("[{name}](#{})", name.to_lowercase());
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(options) = schema[choice].as_array() {
            let options: Vec<String> = options.iter().map(kind).filter(|k| k != "null").collect();
            return options.join(" or ");
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values
            .iter()
            .map(|value| match value.as_str() {
                Some(text) => format!("`{text}`"),
                None => format!("`{value}`"),
            })
            .collect();
        return values.join(", ");
    }
    match &schema["type"] {
        Value::String(name) if name == "array" => format!("array of {}", kind(&schema["items"])),
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            let mut plain = schema.clone();
            let names: Vec<&Value> = names.iter().filter(|name| *name != "null").collect();
            plain["type"] = names[0].clone();
            kind(&plain)
        }
        _ => "any".to_owned(),
    }
}

/// A property's own words, or those of the type it may have.
fn words(schema: &Value) -> String {
    let own = text(&schema["description"]);
    let of_options = || {
        let options = schema["oneOf"].as_array()?;
        options
            .iter()
            .map(|option| text(&option["description"]))
            .find(|words| !words.is_empty())
    };
    if own.is_empty() {
        of_options().unwrap_or_default()
    } else {
        own
    }
}

fn fields(schema: &Value) -> String {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut table = String::from("| Field | Type | |\n|---|---|---|\n");
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let always = if required.contains(&name.as_str()) {
            ""
        } else {
            "optional; "
        };
        let row = format!("{always}{}", words(property));
        let row = row.trim_end_matches("; ").trim();
        let _ = writeln!(table, "| `{name}` | {} | {row} |", kind(property));
    }
    table
}

#[test]
fn methods_are_documented() {
    let document = discovered();
    let mut found = String::new();
    for method in document["methods"].as_array().unwrap() {
        let name = text(&method["name"]);
        let _ = writeln!(found, "### {name}\n\n{}\n", text(&method["summary"]));
        let params = method["params"].as_array().unwrap();
        if params.is_empty() {
            found.push_str("No parameters.\n");
        } else {
            found.push_str("| Parameter, in order | Type | |\n|---|---|---|\n");
        }
        for param in params {
            let required = if param["required"] == true {
                ""
            } else {
                "optional; "
            };
            let description = format!("{required}{}", words(&param["schema"]));
            let description = description.trim_end_matches("; ");
            let _ = writeln!(
                found,
                "| `{}` | {} | {description} |",
                text(&param["name"]),
                kind(&param["schema"])
            );
        }
        let result = &method["result"]["schema"];
        if result["properties"].is_object() {
            let _ = writeln!(found, "\nResult:\n\n{}", fields(result));
        } else {
            let _ = writeln!(found, "\nResult: {}.\n", kind(result));
        }
        let errors: Vec<String> = method["errors"]
            .as_array()
            .unwrap()
            .iter()
            .skip(4)
            .map(|error| {
                format!(
                    "`{}`",
                    error["$ref"].as_str().unwrap().rsplit('/').next().unwrap()
                )
            })
            .collect();
        if !errors.is_empty() {
            let _ = writeln!(found, "Errors of its own: {}.\n", errors.join(", "));
        }
    }
    document::check("docs/json-rpc.md", "methods", &found);
}

#[test]
fn types_are_documented() {
    let document = discovered();
    let mut found = String::new();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let _ = writeln!(found, "### {name}\n");
        let words = text(&schema["description"]);
        if !words.is_empty() {
            let _ = writeln!(found, "{words}\n");
        }
        if schema["properties"].is_object() {
            let _ = writeln!(found, "{}", fields(schema));
        } else {
            let _ = writeln!(found, "{}.\n", kind(schema));
        }
    }
    document::check("docs/json-rpc.md", "types", &found);
}

#[test]
fn errors_are_documented() {
    let document = discovered();
    let mut found = String::from("| `code` | `data.code` | When |\n|---|---|---|\n");
    for (name, error) in document["components"]["errors"].as_object().unwrap() {
        let _ = writeln!(
            found,
            "| {} | `{name}` | {} |",
            error["code"],
            text(&error["message"])
        );
    }
    document::check("docs/json-rpc.md", "errors", &found);
}

/// The keywords of JSON Schema (draft 7) that the description uses, beside `$ref`.
const KEYWORDS: [&str; 18] = [
    "type",
    "description",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "oneOf",
    "anyOf",
    "allOf",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "default",
    "examples",
    "const",
    "title",
];

/// Checks a schema and those in it.
fn check_schema(document: &Value, schema: &Value, place: &str) {
    let Some(members) = schema.as_object() else {
        assert!(schema.is_boolean(), "{place}: {schema}");
        return;
    };
    for (name, value) in members {
        let place = format!("{place}/{name}");
        match name.as_str() {
            "$ref" => {
                let target = value.as_str().and_then(|target| target.strip_prefix('#'));
                let target =
                    target.unwrap_or_else(|| panic!("{place} leads to the network: {value}"));
                assert!(
                    document.pointer(target).is_some(),
                    "{place} leads nowhere: {target}"
                );
            }
            "properties" => {
                for (property, schema) in value.as_object().unwrap() {
                    check_schema(document, schema, &format!("{place}/{property}"));
                }
            }
            "items" | "additionalProperties" => check_schema(document, value, &place),
            "oneOf" | "anyOf" | "allOf" => {
                for schema in value.as_array().unwrap() {
                    check_schema(document, schema, &place);
                }
            }
            _ => assert!(
                KEYWORDS.contains(&name.as_str()),
                "{place} is unknown to JSON Schema"
            ),
        }
    }
}

/// Validators and generators read the description without the network, however strict they are.
#[test]
fn the_description_stands_by_itself() {
    let document = discovered();
    let mut schemas = 0;
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        check_schema(&document, schema, name);
        schemas += 1;
    }
    for method in document["methods"].as_array().unwrap() {
        let name = method["name"].as_str().unwrap();
        for param in method["params"].as_array().unwrap() {
            check_schema(&document, &param["schema"], name);
            schemas += 1;
        }
        check_schema(&document, &method["result"]["schema"], name);
        for error in method["errors"].as_array().unwrap() {
            let target = error["$ref"].as_str().unwrap().strip_prefix('#').unwrap();
            assert!(document.pointer(target).is_some(), "{target}");
        }
    }
    assert!(schemas > 40, "{schemas}");
    assert!(!document.to_string().contains("://"));
}
