//! The JSON-Schema-Test-Suite: an instance that is invalid can never be said by an answer that is kept to
//! its schema. Instances are written as grammars write them: without white space, properties in the
//! schema's order.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::constraint_support::{LIMITS, byte_parsers, can_say, fetched};
use rkllmd::constraint::{Wanted, compile};
use serde_json::{Map, Value};

/// At least this part of the schemas can be kept, in percent.
const LEAST_KEPT: usize = 77;
/// What is valid and cannot be said, a line each: the file, the schema, the instance and why.
const NOT_SAID: &str = include_str!("../data/valid_json_not_said.txt");

/// The instance with properties in the order of the schema, as far as it is plain which one that is.
fn ordered(schema: &Value, root: &Value, instance: &Value) -> Value {
    let of = |key: &str| schema.get(key).unwrap_or(&Value::Null);
    if let Some(place) = of("$ref").as_str().and_then(|to| to.strip_prefix('#'))
        && let Some(target) = root.pointer(place).filter(|target| *target != schema)
    {
        return ordered(target, root, instance);
    }
    match instance {
        Value::Object(members) => {
            let properties = of("properties").as_object();
            let named = properties.into_iter().flat_map(Map::keys);
            let mut written = Map::new();
            for name in named.chain(members.keys()) {
                if let Some(value) = members.get(name).filter(|_| !written.contains_key(name)) {
                    let schema = properties.and_then(|properties| properties.get(name));
                    let schema = schema.unwrap_or(of("additionalProperties"));
                    written.insert(name.clone(), ordered(schema, root, value));
                }
            }
            Value::Object(written)
        }
        Value::Array(items) => {
            let prefix = of("prefixItems").as_array();
            let items = items.iter().enumerate().map(|(at, item)| {
                let schema = prefix.and_then(|prefix| prefix.get(at));
                ordered(schema.unwrap_or(of("items")), root, item)
            });
            Value::Array(items.collect())
        }
        other => other.clone(),
    }
}

#[test]
fn no_answer_is_one_that_its_schema_forbids() {
    let parsers = byte_parsers();
    let known: BTreeSet<&str> = NOT_SAID
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.rsplit_once(" | ").map_or(line, |(case, _reason)| case))
        .collect();
    let (mut schemas, mut kept) = (0, 0);
    let (mut wrong, mut not_said) = (Vec::new(), BTreeSet::new());
    let mut files: Vec<PathBuf> = fs::read_dir(fetched("fetch-schema-tests"))
        .expect("the suite")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    for file in files {
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let groups: Value =
            serde_json::from_slice(&fs::read(&file).expect("a file")).expect("JSON");
        for group in groups.as_array().expect("groups") {
            schemas += 1;
            let schema = &group["schema"];
            let wanted = Wanted::JsonSchema {
                schema: schema.to_string(),
                strict: true,
            };
            let compiled = match compile(&wanted, &LIMITS) {
                Ok(compiled) => compiled,
                Err(reason) => {
                    println!("not kept: {name} | {}: {reason}", group["description"]);
                    continue;
                }
            };
            kept += 1;
            for case in group["tests"].as_array().expect("tests") {
                let text = ordered(schema, schema, &case["data"]).to_string();
                let said = can_say(&compiled, &parsers, &text);
                let words = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let line = format!(
                    "{name} | {} | {}",
                    words(&group["description"]),
                    words(&case["description"])
                );
                match (said, case["valid"] == true) {
                    (true, false) => wrong.push(format!("{line}: {text} of {schema}")),
                    (false, true) => drop(not_said.insert(line)),
                    _ => {}
                }
            }
        }
    }
    println!("{kept} of {schemas} schemas are kept");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let is_new = |line: &&String| !known.contains(line.as_str());
    let new: Vec<_> = not_said.iter().filter(is_new).cloned().collect();
    assert!(
        new.is_empty(),
        "valid, and not said any more:\n{}",
        new.join("\n")
    );
    let gone: Vec<_> = known
        .iter()
        .filter(|line| !not_said.contains(**line))
        .collect();
    assert!(
        gone.is_empty(),
        "said by now, so to be taken from the list: {gone:#?}"
    );
    assert!(kept * 100 >= schemas * LEAST_KEPT, "{kept} of {schemas}");
}
