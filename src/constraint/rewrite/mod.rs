//! Keywords that the engine does not keep, said by those that it does. What is said may be narrower than
//! what was asked, and never wider: an answer is one that the schema allows, though not any of them. So
//! items that are to be contained come first, and what a negation leaves open may be left out. Where a
//! schema is negated, or compared with others, narrower would be wider: there it is said exactly or not
//! at all.

mod apart;
mod evaluated;
mod moved;
mod negation;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::references::found;
use super::texts::literal;

pub use apart::Apart;
pub use evaluated::Root;
pub use moved::Moved;
pub use negation::exclusive;

type Keywords = Map<String, Value>;

/// More items than these are not put first.
const MOST_CONTAINED: u64 = 64;

/// A keyword that cannot be said otherwise, and why.
pub struct Unsaid {
    pub keyword: &'static str,
    pub reason: &'static str,
}

/// How closely a schema is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    MayBeNarrower,
    Exactly,
}

/// Takes out of `read` what the engine does not keep, and says it by what it does. `written` is the same
/// schema as the client wrote it, where no part was rewritten.
pub fn rewrite(
    read: &mut Keywords,
    written: &Keywords,
    root: &Root<'_>,
    care: Care,
) -> Vec<Unsaid> {
    let mut unsaid = Vec::new();
    let mut also = Vec::new();
    drop_what_says_nothing(read);
    if care == Care::Exactly {
        for keyword in NARROWED {
            if read.remove(keyword).is_some() {
                unsaid.push(Unsaid {
                    keyword,
                    reason: "cannot be kept in what is negated, or one of several that exclude each other",
                });
            }
        }
    }
    contained(read, &mut unsaid);
    named(read, root, &mut unsaid);
    dependent(read, &mut also, &mut unsaid);
    conditional(read, &mut also, &mut unsaid);
    if let Some(not) = read.remove("not") {
        match negation::negated(&not) {
            Some(others) => also.push(others),
            None => unsaid.push(Unsaid {
                keyword: "not",
                reason: "its negation cannot be kept",
            }),
        }
    }
    evaluated::items(read, written, root);
    evaluated::properties(read, written, root);
    for more in also {
        let all = read.entry("allOf").or_insert_with(|| json!([]));
        if let Value::Array(all) = all {
            all.push(more);
        }
    }
    unsaid
}

/// Those of which less than all may be said.
const NARROWED: [&str; 5] = [
    "contains",
    "if",
    "not",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Keywords beside those that they need, or with a value that allows everything.
fn drop_what_says_nothing(read: &mut Keywords) {
    for keyword in ["unevaluatedItems", "unevaluatedProperties"] {
        if read.get(keyword) == Some(&Value::Bool(true)) {
            read.remove(keyword);
        }
    }
    if !read.contains_key("then") && !read.contains_key("else") {
        read.remove("if");
    }
    let least = read.get("minContains").and_then(Value::as_u64);
    if least == Some(0) && !read.contains_key("maxContains") {
        read.remove("contains");
    }
}

/// Both of two schemas.
fn both(one: Value, other: Value) -> Value {
    match (one, other) {
        (Value::Bool(false), _) | (_, Value::Bool(false)) => Value::Bool(false),
        (Value::Bool(true), schema) | (schema, Value::Bool(true)) => schema,
        (one, other) => json!({"allOf": [one, other]}),
    }
}

fn count(read: &mut Keywords, keyword: &str) -> Option<u64> {
    read.remove(keyword).and_then(|count| count.as_u64())
}

/// What an array is to contain are its first items.
fn contained(read: &mut Keywords, unsaid: &mut Vec<Unsaid>) {
    let least = count(read, "minContains");
    let most = count(read, "maxContains");
    let Some(contains) = read.remove("contains") else {
        return;
    };
    let least = least.unwrap_or(1);
    if least > MOST_CONTAINED {
        return unsaid.push(Unsaid {
            keyword: "contains",
            reason: "asks for too many items",
        });
    }
    let items = read.get("items").cloned().unwrap_or(Value::Bool(true));
    let mut first = match read.remove("prefixItems") {
        Some(Value::Array(first)) => first,
        _ => Vec::new(),
    };
    let contained = match most {
        // Which others are none of those cannot be said, so there are no others.
        Some(most) => {
            read.insert("items".to_owned(), both(items.clone(), contains.clone()));
            at_most(read, "maxItems", most);
            first.len()
        }
        None => least as usize,
    };
    first.resize(first.len().max(contained), items);
    for item in first.iter_mut().take(contained) {
        *item = both(item.take(), contains.clone());
    }
    if !first.is_empty() {
        read.insert("prefixItems".to_owned(), Value::Array(first));
    }
    at_least(read, "minItems", least);
}

fn at_least(read: &mut Keywords, keyword: &str, least: u64) {
    let now = read.get(keyword).and_then(Value::as_u64).unwrap_or(0);
    read.insert(keyword.to_owned(), json!(now.max(least)));
}

fn at_most(read: &mut Keywords, keyword: &str, most: u64) {
    let now = read.get(keyword).and_then(Value::as_u64);
    read.insert(keyword.to_owned(), json!(now.unwrap_or(most).min(most)));
}

/// Names of properties, by patterns of them.
fn named(read: &mut Keywords, root: &Root<'_>, unsaid: &mut Vec<Unsaid>) {
    let names = match read.remove("propertyNames") {
        None | Some(Value::Bool(true)) => return,
        Some(Value::Bool(false)) => return at_most(read, "maxProperties", 0),
        Some(names) => names,
    };
    // What names are may stand elsewhere.
    let place = names.as_object().filter(|rules| rules.len() == 1);
    let place = place.and_then(|rules| rules.get("$ref")?.as_str());
    let names = place
        .and_then(|place| found(root.0, place))
        .unwrap_or(&names);
    // Every name is a text.
    let is_text = |(rule, value): (&String, &Value)| {
        is_annotation(rule) || (rule == "type" && value == "string")
    };
    if names
        .as_object()
        .is_some_and(|rules| rules.iter().all(is_text))
    {
        return;
    }
    let known = read.get("properties").and_then(Value::as_object);
    let has_patterns = read.contains_key("patternProperties");
    let said = Names::of(names).filter(|said| {
        !has_patterns && (known.is_none_or(Map::is_empty) || !matches!(said, Names::Pattern(_)))
    });
    let Some(said) = said else {
        return unsaid.push(Unsaid {
            keyword: "propertyNames",
            reason: "names can be kept to a pattern, a length or a list only, beside no other patterns",
        });
    };
    if let Some(Value::Object(properties)) = read.get_mut("properties") {
        for (name, property) in properties {
            if !said.allow(name) {
                *property = Value::Bool(false);
            }
        }
    }
    let others = read.insert("additionalProperties".to_owned(), Value::Bool(false));
    let others = others.unwrap_or(Value::Bool(true));
    if others == Value::Bool(false) {
        return;
    }
    if let Names::OneOf(names) = &said {
        // Each name comes once: where all have come, and where one that came has begun, none is left that could.
        // Properties that may be left out are not counted, so where there is a least number of them they are not said.
        let is_counted = read.contains_key("minProperties");
        let properties = read
            .entry("properties")
            .or_insert_with(|| Value::Object(Map::new()));
        match properties {
            _ if names.is_empty() => return,
            Value::Object(properties) if !(is_counted && properties.is_empty()) => {
                for name in names {
                    properties.entry(name).or_insert_with(|| others.clone());
                }
                return;
            }
            _ => {
                let count = names.iter().collect::<BTreeSet<_>>().len();
                at_most(read, "maxProperties", count as u64);
            }
        }
    }
    read.insert(
        "patternProperties".to_owned(),
        json!({said.pattern(): others}),
    );
}

/// What a reference leads to has some.
fn is_annotation(keyword: &str) -> bool {
    ["description", "title"].contains(&keyword)
}

/// What names of properties are kept to.
enum Names {
    Pattern(String),
    Length(u64, Option<u64>),
    OneOf(Vec<String>),
}

impl Names {
    fn of(schema: &Value) -> Option<Self> {
        let keywords = schema.as_object()?;
        let rules = keywords.iter().filter(|(name, value)| match name.as_str() {
            "type" => *value != "string",
            name => !is_annotation(name),
        });
        let rules: Vec<(&str, &Value)> = rules.map(|(name, rule)| (name.as_str(), rule)).collect();
        let length = |value: &Value| value.as_u64();
        Some(match rules.as_slice() {
            [("pattern", pattern)] => Self::Pattern(pattern.as_str()?.to_owned()),
            [("const", name)] => Self::OneOf(vec![name.as_str()?.to_owned()]),
            [("enum", Value::Array(names))] => {
                let names = names
                    .iter()
                    .filter_map(|name| Some(name.as_str()?.to_owned()));
                Self::OneOf(names.collect())
            }
            [("maxLength", most)] => Self::Length(0, Some(length(most)?)),
            [("minLength", least)] => Self::Length(length(least)?, None),
            [("minLength", least), ("maxLength", most)]
            | [("maxLength", most), ("minLength", least)] => {
                Self::Length(length(least)?, Some(length(most)?))
            }
            _ => return None,
        })
    }

    fn allow(&self, name: &str) -> bool {
        match self {
            Self::Pattern(_) => false,
            Self::Length(least, most) => {
                let length = name.chars().count() as u64;
                length >= *least && most.is_none_or(|most| length <= most)
            }
            Self::OneOf(names) => names.iter().any(|allowed| allowed == name),
        }
    }

    fn pattern(&self) -> String {
        match self {
            Self::Pattern(pattern) => pattern.clone(),
            Self::Length(least, None) => format!("^(?s:.){{{least},}}$"),
            Self::Length(least, Some(most)) => format!("^(?s:.){{{least},{most}}}$"),
            Self::OneOf(names) => {
                let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
                format!("^(?:{})$", names.join("|"))
            }
        }
    }
}

/// A property is not there, or what depends on it holds.
fn dependent(read: &mut Keywords, also: &mut Vec<Value>, unsaid: &mut Vec<Unsaid>) {
    for keyword in ["dependentRequired", "dependentSchemas", "dependencies"] {
        let Some(Value::Object(dependent)) = read.remove(keyword) else {
            continue;
        };
        for (name, on) in dependent {
            let on = match on {
                Value::Array(required) if required.is_empty() => continue,
                Value::Array(required) => json!({"required": required}),
                Value::Bool(true) => continue,
                schema @ (Value::Object(_) | Value::Bool(false)) => schema,
                _ => {
                    unsaid.push(Unsaid {
                        keyword,
                        reason: "is of the wrong type",
                    });
                    continue;
                }
            };
            let without = json!({"properties": {name.as_str(): false}});
            let with = both(json!({"required": [name]}), on);
            also.push(match with {
                Value::Bool(_) => without,
                with => json!({"anyOf": [without, with]}),
            });
        }
    }
}

fn conditional(read: &mut Keywords, also: &mut Vec<Value>, unsaid: &mut Vec<Unsaid>) {
    let condition = read.remove("if");
    let (then, other) = (read.remove("then"), read.remove("else"));
    let Some(condition) = condition.filter(|_| then.is_some() || other.is_some()) else {
        return;
    };
    let (then, other) = (
        then.unwrap_or(Value::Bool(true)),
        other.unwrap_or(Value::Bool(true)),
    );
    let Some(otherwise) = negation::negated(&condition) else {
        return unsaid.push(Unsaid {
            keyword: "if",
            reason: "its negation cannot be kept",
        });
    };
    also.push(match (both(condition, then), both(otherwise, other)) {
        (Value::Bool(false), schema) | (schema, Value::Bool(false)) => schema,
        (one, other) => json!({"anyOf": [one, other]}),
    });
}

#[cfg(test)]
mod tests;
