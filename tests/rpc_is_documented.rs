//! docs/json-rpc.md lists what the daemon's own description lists, no more and no less.

mod daemon_support;
mod rpc_support;

use std::fmt::Write as _;

use daemon_support::Setup;
use rpc_support::{Client, Transport, document};
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
        return if reference.starts_with('#') {
            format!("[{name}](#{})", name.to_lowercase())
        } else {
            "an OpenRPC document".to_owned()
        };
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(options) = schema[choice].as_array() {
            let options: Vec<String> = options.iter().map(kind).filter(|k| k != "null").collect();
            return options.join(" or ");
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().map(|v| format!("`{}`", text(v))).collect();
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
    document::check("methods", &found);
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
    document::check("types", &found);
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
    document::check("errors", &found);
}
