//! What a schema does not allow, as far as it can be said.

use serde_json::{Map, Value, json};

use super::both;

const TYPES: [&str; 6] = ["array", "boolean", "null", "number", "object", "string"];
/// Of a schema that is negated, and of what comes of it.
const MOST_VALUES: usize = 512;
/// Schemas of which one is to hold.
const MOST_EXCLUSIVE: usize = 8;

/// A schema of which nothing is what `schema` allows; `None`: none that says anything is known.
pub fn negated(schema: &Value) -> Option<Value> {
    if size(schema) > MOST_VALUES {
        return None;
    }
    let keywords = match schema {
        Value::Bool(allows) => return Some(Value::Bool(!allows)),
        Value::Object(keywords) => keywords,
        _ => return None,
    };
    if keywords
        .keys()
        .all(|keyword| keyword.starts_with('$') && keyword != "$ref")
    {
        return Some(Value::Bool(false));
    }
    let mut options = Vec::new();
    for (keyword, value) in keywords {
        options.extend(without(keyword, value, keywords));
    }
    options.retain(|option| *option != Value::Bool(false));
    let negated = match options.len() {
        0 => return None,
        _ if options.contains(&Value::Bool(true)) => Value::Bool(true),
        1 => options.swap_remove(0),
        _ => json!({ "anyOf": options }),
    };
    (size(&negated) <= MOST_VALUES).then_some(negated)
}

/// What one keyword does not allow.
fn without(keyword: &str, value: &Value, beside: &Map<String, Value>) -> Vec<Value> {
    let next = |by: i64| value.as_i64().and_then(|value| value.checked_add(by));
    let of = |kind: &str, keyword: &str, value: Value| json!({"type": kind, keyword: value});
    let more = |kind: &str, keyword: &str| match next(1) {
        Some(least) => vec![of(kind, keyword, json!(least))],
        None => Vec::new(),
    };
    let fewer = |kind: &str, keyword: &str| match next(-1) {
        Some(most) if most >= 0 => vec![of(kind, keyword, json!(most))],
        _ => Vec::new(),
    };
    match keyword {
        "type" => other_types(&types(value)).into_iter().collect(),
        "const" => other_values(std::slice::from_ref(value)),
        "enum" => value
            .as_array()
            .map_or(Vec::new(), |values| other_values(values)),
        "minimum" => vec![of("number", "exclusiveMaximum", value.clone())],
        "maximum" => vec![of("number", "exclusiveMinimum", value.clone())],
        "exclusiveMinimum" => vec![of("number", "maximum", value.clone())],
        "exclusiveMaximum" => vec![of("number", "minimum", value.clone())],
        "minLength" => fewer("string", "maxLength"),
        "maxLength" => more("string", "minLength"),
        "minItems" => fewer("array", "maxItems"),
        "maxItems" => more("array", "minItems"),
        "minProperties" => fewer("object", "maxProperties"),
        "maxProperties" => more("object", "minProperties"),
        "required" => {
            let names = value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            names
                .map(|name| json!({"type": "object", "properties": {name: false}}))
                .collect()
        }
        "properties" => {
            let properties = value.as_object().into_iter().flatten();
            properties
                .filter_map(|(name, property)| Some((name, negated(property)?)))
                .filter(|(_, others)| *others != Value::Bool(false))
                .map(|(name, others)| {
                    json!({"type": "object", "required": [name],
                        "properties": {name.as_str(): others}})
                })
                .collect()
        }
        "items" if !beside.contains_key("prefixItems") => match negated(value) {
            Some(Value::Bool(false)) | None => Vec::new(),
            Some(others) => vec![json!({"type": "array", "prefixItems": [others], "minItems": 1})],
        },
        "allOf" => {
            let all = value.as_array().into_iter().flatten();
            all.filter_map(negated).collect()
        }
        "anyOf" | "oneOf" => {
            // More than one of `oneOf` is not looked for.
            let all = value.as_array().into_iter().flatten();
            let none: Option<Vec<Value>> = all.map(negated).collect();
            let none = none.map(|none| none.into_iter().fold(Value::Bool(true), both));
            none.into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn types(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        kind => kind.as_str().into_iter().collect(),
    }
}

fn other_types(types: &[&str]) -> Option<Value> {
    let is_number = |kind: &&str| *kind == "number" && types.contains(&"integer");
    let others = TYPES
        .iter()
        .filter(|kind| !types.contains(kind) && !is_number(kind));
    let others: Vec<&&str> = others.collect();
    (!others.is_empty()).then(|| json!({ "type": others }))
}

/// Values of other types, and of the same ones what is longer or beyond.
fn other_values(values: &[Value]) -> Vec<Value> {
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let mut found = Vec::new();
    let kinds: Vec<&str> = values.iter().map(kind).collect();
    found.extend(other_types(&kinds));
    let lengths = values
        .iter()
        .filter_map(Value::as_str)
        .map(|text| text.chars().count());
    if let (Some(least), Some(most)) = (lengths.clone().min(), lengths.max()) {
        found.push(json!({"type": "string", "minLength": most + 1}));
        if least > 0 {
            found.push(json!({"type": "string", "maxLength": least - 1}));
        }
    }
    let numbers = || values.iter().filter(|value| value.is_number());
    let size = |value: &&Value| value.as_f64().unwrap_or_default();
    let least = numbers().min_by(|one, other| size(one).total_cmp(&size(other)));
    let most = numbers().max_by(|one, other| size(one).total_cmp(&size(other)));
    if let (Some(least), Some(most)) = (least, most) {
        found.push(json!({"type": "number", "exclusiveMaximum": least}));
        found.push(json!({"type": "number", "exclusiveMinimum": most}));
    }
    for value in [true, false] {
        if values.contains(&Value::Bool(!value)) && !values.contains(&Value::Bool(value)) {
            found.push(json!({ "const": value }));
        }
    }
    found
}

/// `schema` with each `oneOf` said by `anyOf`, of which each part leaves out the others. `None`: there is
/// none, or it cannot be.
pub fn exclusive(schema: &Value) -> Option<Value> {
    let mut said = schema.clone();
    let mut is_there = false;
    exclude(&mut said, &mut is_there)?;
    is_there.then_some(said)
}

fn exclude(schema: &mut Value, is_there: &mut bool) -> Option<()> {
    let keywords = match schema {
        Value::Array(values) => {
            return values
                .iter_mut()
                .try_for_each(|value| exclude(value, is_there));
        }
        Value::Object(keywords) => keywords,
        _ => return Some(()),
    };
    for (keyword, value) in keywords.iter_mut() {
        if !matches!(keyword.as_str(), "const" | "enum" | "required") {
            exclude(value, is_there)?;
        }
    }
    // A property may have this name.
    let Some(Value::Array(parts)) = keywords.get("oneOf").cloned() else {
        return Some(());
    };
    if parts.len() > MOST_EXCLUSIVE {
        return None;
    }
    *is_there = true;
    let others: Option<Vec<Value>> = parts.iter().map(negated).collect();
    let others = others?;
    let alone = parts.iter().enumerate().map(|(place, part)| {
        let others = others.iter().enumerate();
        let others = others.filter(|(other, _)| *other != place);
        others.fold(part.clone(), |part, (_, other)| both(part, other.clone()))
    });
    let alone: Vec<Value> = alone.filter(|part| *part != Value::Bool(false)).collect();
    keywords.remove("oneOf");
    let all = keywords.entry("allOf").or_insert_with(|| json!([]));
    all.as_array_mut()?.push(json!({ "anyOf": alone }));
    Some(())
}

fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(values) => values.iter().map(size).sum(),
        Value::Object(members) => members.values().map(size).sum(),
        _ => 0,
    }
}
