//! Objects that name their properties are closed in the grammar, where nothing else adds to them: the
//! engine writes none of the named ones twice, but keeps no account of others, and an object with a key
//! twice is read differently by everyone. An answer of a closed object is one of the open one.

use serde_json::{Map, Value};

use super::keywords::{Holds, kept};

/// Keywords that put schemas together.
const COMBINES: [&str; 4] = ["$ref", "allOf", "anyOf", "oneOf"];
/// Keywords that say something of an object.
const OF_OBJECTS: [&str; 7] = [
    "additionalProperties",
    "maxProperties",
    "minProperties",
    "patternProperties",
    "properties",
    "required",
    "type",
];

/// `closes_empty`: also objects within others that name no property, which else may have any.
pub fn close(schema: &mut Value, closes_empty: bool) {
    if !is_put_together(schema) {
        close_within(schema, true, true, closes_empty);
    }
}

/// Parts of it may be about one and the same object.
fn is_put_together(schema: &Value) -> bool {
    let Value::Object(keywords) = schema else {
        return false;
    };
    let says_more = |name: &str| keywords.keys().any(|other| other != name && is_rule(other));
    keywords.contains_key("allOf")
        || (keywords.contains_key("$ref") && says_more("$ref"))
        || schemas(keywords).any(is_put_together)
}

fn is_rule(keyword: &str) -> bool {
    !["$defs", "definitions", "$id", "$anchor", "$schema"].contains(&keyword)
}

fn schemas(keywords: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    keywords.iter().flat_map(|(keyword, value)| {
        let inner: Vec<&Value> = match (kept(keyword), value) {
            (Some(Holds::Value) | None, _) => Vec::new(),
            (Some(Holds::Named | Holds::NamedOrNames), Value::Object(schemas)) => {
                schemas.values().collect()
            }
            (Some(_), Value::Array(schemas)) => schemas.iter().collect(),
            (Some(_), schema) => vec![schema],
        };
        inner
    })
}

/// `is_whole`: nothing around it says more of the same instance. `is_root`: nothing is around it.
fn close_within(schema: &mut Value, is_whole: bool, is_root: bool, closes_empty: bool) {
    let Value::Object(keywords) = schema else {
        return;
    };
    let says_of_objects = keywords
        .keys()
        .any(|keyword| OF_OBJECTS.contains(&keyword.as_str()));
    let combines = keywords
        .keys()
        .any(|keyword| COMBINES.contains(&keyword.as_str()));
    let names = keywords.get("properties").and_then(Value::as_object);
    let names_some = is_root || closes_empty || names.is_some_and(|names| !names.is_empty());
    if is_whole && !combines && names_some && can_be_closed(keywords) {
        keywords.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    for (keyword, value) in keywords.iter_mut() {
        let is_whole = match keyword.as_str() {
            "anyOf" | "oneOf" => is_whole && !says_of_objects,
            _ => true,
        };
        match (kept(keyword), value) {
            (Some(Holds::Value) | None, _) => {}
            (Some(Holds::Named | Holds::NamedOrNames), Value::Object(schemas)) => {
                for schema in schemas.values_mut() {
                    close_within(schema, is_whole, false, closes_empty);
                }
            }
            (Some(_), Value::Array(schemas)) => {
                for schema in schemas {
                    close_within(schema, is_whole, false, closes_empty);
                }
            }
            (Some(_), schema) => close_within(schema, is_whole, false, closes_empty),
        }
    }
}

fn can_be_closed(keywords: &Map<String, Value>) -> bool {
    let Some(Value::Object(properties)) = keywords.get("properties") else {
        return false;
    };
    let is_open = !["additionalProperties", "patternProperties"]
        .iter()
        .any(|keyword| keywords.contains_key(*keyword));
    let required = keywords.get("required").and_then(Value::as_array);
    let is_named = |name: &Value| {
        let name = name.as_str();
        name.is_some_and(|name| properties.contains_key(name))
    };
    let least = keywords.get("minProperties").and_then(Value::as_u64);
    is_open
        && required.is_none_or(|required| required.iter().all(is_named))
        && least.is_none_or(|least| least <= properties.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn closed(schema: &Value) -> Value {
        let mut closed = schema.clone();
        close(&mut closed, false);
        closed
    }

    #[test]
    fn objects_that_name_all_they_have_are_closed() {
        let open = json!({"properties": {"a": {"properties": {"b": true}}}, "required": ["a"]});
        let expected = json!({
            "properties": {"a": {"properties": {"b": true}, "additionalProperties": false}},
            "required": ["a"],
            "additionalProperties": false,
        });
        assert_eq!(closed(&open), expected);
        let none = json!({"properties": {}});
        assert_eq!(closed(&none)["additionalProperties"], json!(false));
        let choice = json!({"anyOf": [{"properties": {"a": true}}, {"type": "null"}]});
        assert_eq!(
            closed(&choice)["anyOf"][0]["additionalProperties"],
            json!(false)
        );
    }

    #[test]
    fn objects_that_others_add_to_stay_open() {
        for open in [
            json!({"properties": {"a": true}, "additionalProperties": {"type": "string"}}),
            json!({"properties": {"a": true}, "patternProperties": {"^x": true}}),
            json!({"properties": {"a": true}, "required": ["b"]}),
            json!({"properties": {"a": true}, "minProperties": 2}),
            json!({"type": "object"}),
            json!({"additionalProperties": {"type": "object", "properties": {}}}),
            json!({"allOf": [{"properties": {"a": true}}, {"properties": {"b": true}}]}),
            json!({"$ref": "#/$defs/a", "properties": {"b": true},
                "$defs": {"a": {"properties": {"c": true}}}}),
            json!({"properties": {"a": true}, "anyOf": [{"properties": {"b": true}}]}),
        ] {
            assert_eq!(closed(&open), open);
        }
        let mut empty = json!({"items": {"properties": {}}});
        close(&mut empty, true);
        assert_eq!(empty["items"]["additionalProperties"], json!(false));
    }
}
