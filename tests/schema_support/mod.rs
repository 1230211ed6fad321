//! Schemas of real functions, and such as are made at random.

pub mod generated;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value, json};

/// The parameters of `count` real functions, spread over all of them, with bounded texts and lists.
pub fn schemas_of_tools(count: usize) -> Vec<Value> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/fetch-tool-schemas");
    let output = Command::new(script).output().expect("the script runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let mut all: Vec<Value> = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).expect("a file");
        for line in text.lines() {
            let case: Value = serde_json::from_str(line).expect("JSON");
            for function in case["function"].as_array().expect("functions") {
                let schema = bounded(&function["parameters"]);
                all.extend(schema.filter(|schema| !all.contains(schema)));
            }
        }
    }
    assert!(all.len() >= count, "{}", all.len());
    let step = all.len() / count;
    all.into_iter().step_by(step).take(count).collect()
}

/// The same in JSON Schema's words. `None`: it has objects of any keys, or of more than fits.
fn bounded(parameters: &Value) -> Option<Value> {
    let of = |keyword: &str| parameters.get(keyword);
    let kind = of("type").and_then(Value::as_str)?;
    if let Some(values) = of("enum") {
        return Some(json!({ "enum": values }));
    }
    Some(match kind {
        "dict" => {
            let properties = of("properties")?.as_object()?;
            if properties.is_empty() || properties.len() > 4 {
                return None;
            }
            let properties: Option<Map<String, Value>> = properties
                .iter()
                .map(|(name, property)| Some((name.clone(), bounded(property)?)))
                .collect();
            let required = of("required").cloned().unwrap_or_else(|| json!([]));
            json!({"type": "object", "properties": properties?, "required": required})
        }
        "array" | "tuple" => {
            json!({"type": "array", "items": bounded(of("items")?)?, "maxItems": 3})
        }
        "string" => json!({"type": "string", "maxLength": 16}),
        "integer" => json!({"type": "integer", "minimum": -100_000, "maximum": 100_000}),
        "float" => json!({"type": "number", "minimum": -1000, "maximum": 1000}),
        "boolean" => json!({"type": "boolean"}),
        _ => return None,
    })
}
