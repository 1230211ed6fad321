//! Parts of `oneOf` of which no two allow the same value, such as objects that a property tells apart: of
//! them one holds where any does. The engine sees that where the parts are written in place; here
//! references are followed.

use std::cell::Cell;
use std::collections::BTreeSet;

use serde_json::Value;

use super::Keywords;
use crate::constraint::references::fragment;

/// Keywords that are read and values that are compared, of one schema of a client's.
const MOST_STEPS: usize = 2_000_000;
/// Schemas inside each other that are looked into.
const MOST_DEPTH: usize = 16;

/// A part that says nothing of a property.
static ANYTHING: Value = Value::Bool(true);

/// Sees whether schemas of one document exclude each other.
pub struct Apart<'v> {
    root: &'v Value,
    /// References in one of them lead elsewhere than they would in the whole.
    has_documents_inside: bool,
    steps_left: Cell<usize>,
}

/// Schemas of which each is to hold; `None`: nothing is allowed.
type Rules<'s> = Option<Vec<&'s Keywords>>;

impl<'v> Apart<'v> {
    pub fn of(root: &'v Value) -> Self {
        Self {
            root,
            has_documents_inside: children(root).any(names_a_document),
            steps_left: Cell::new(MOST_STEPS),
        }
    }

    /// Whether no two of `parts` are seen to allow the same value.
    pub fn are(&self, parts: &Value) -> bool {
        let Value::Array(parts) = parts else {
            return false;
        };
        if self.has_documents_inside {
            return false;
        }
        let mut rest = parts.as_slice();
        while let [first, others @ ..] = rest {
            if !others.iter().all(|other| self.exclude(first, other, 0)) {
                return false;
            }
            rest = others;
        }
        true
    }

    fn exclude(&self, one: &Value, other: &Value, depth: usize) -> bool {
        if depth > MOST_DEPTH || !self.takes_steps(1) {
            return false;
        }
        let (Some(of_one), Some(of_other)) = (self.rules(one), self.rules(other)) else {
            return true;
        };
        let kinds = kinds(&of_one) & kinds(&of_other);
        kinds == 0
            || self.have_no_value_in_common(&of_one, &of_other)
            || self.options_exclude(&of_one, other, depth)
            || self.options_exclude(&of_other, one, depth)
            || (kinds == OBJECT && self.a_property_excludes(&of_one, &of_other, depth))
    }

    fn takes_steps(&self, steps: usize) -> bool {
        let left = self.steps_left.get().checked_sub(steps);
        self.steps_left.set(left.unwrap_or(0));
        left.is_some()
    }

    /// What a schema says of a value itself, with what it refers to.
    fn rules<'s>(&self, schema: &'s Value) -> Rules<'s>
    where
        'v: 's,
    {
        let (mut found, mut followed) = (Vec::new(), BTreeSet::new());
        let is_possible = self.add_rules(schema, &mut found, &mut followed, 0);
        is_possible.then_some(found)
    }

    fn add_rules<'s>(
        &self,
        schema: &'s Value,
        found: &mut Vec<&'s Keywords>,
        followed: &mut BTreeSet<String>,
        depth: usize,
    ) -> bool
    where
        'v: 's,
    {
        let keywords = match schema {
            Value::Bool(allows) => return *allows,
            Value::Object(keywords) if depth <= MOST_DEPTH => keywords,
            _ => return true,
        };
        let sizes = keywords
            .values()
            .map(|value| value.as_array().map_or(1, Vec::len));
        // Fewer rules exclude less.
        if !self.takes_steps(1 + sizes.sum::<usize>()) {
            return true;
        }
        found.push(keywords);
        let reference = keywords.get("$ref").and_then(Value::as_str);
        let place = reference
            .and_then(fragment)
            .filter(|place| followed.insert(place.clone()));
        let target = place.and_then(|place| self.root.pointer(&place));
        let all = keywords.get("allOf").and_then(Value::as_array);
        let mut more = all.into_iter().flatten().chain(target);
        more.all(|schema| self.add_rules(schema, found, followed, depth + 1))
    }

    fn have_no_value_in_common(&self, one: &[&Keywords], other: &[&Keywords]) -> bool {
        let (Some(one), Some(other)) = (values(one), values(other)) else {
            return false;
        };
        self.takes_steps(one.len().saturating_mul(other.len()))
            && !one
                .iter()
                .any(|one| other.iter().any(|other| same(one, other)))
    }

    /// Whether each of several, of which one is to hold, excludes the other schema.
    fn options_exclude(&self, rules: &[&Keywords], other: &Value, depth: usize) -> bool {
        let mut lists = rules.iter().flat_map(|keywords| {
            let lists = ["anyOf", "oneOf"].map(|name| keywords.get(name));
            lists.into_iter().flatten().filter_map(Value::as_array)
        });
        lists.any(|options| {
            let mut options = options.iter();
            options.all(|option| self.exclude(option, other, depth + 1))
        })
    }

    /// Whether a property that is there cannot be what both say of it.
    fn a_property_excludes(&self, one: &[&Keywords], other: &[&Keywords], depth: usize) -> bool {
        let names: BTreeSet<&str> = required(one).chain(required(other)).collect();
        names.into_iter().any(|name| {
            if !self.takes_steps(one.len() + other.len()) {
                return false;
            }
            let (of_one, of_other) = (of_property(one, name), of_property(other, name));
            let mut pairs = of_one
                .iter()
                .flat_map(|one| of_other.iter().map(move |other| (one, other)));
            pairs.any(|(one, other)| self.exclude(one, other, depth + 1))
        })
    }
}

fn children(value: &Value) -> impl Iterator<Item = &Value> {
    let members = value.as_object().into_iter().flat_map(|it| it.values());
    members.chain(value.as_array().into_iter().flatten())
}

fn names_a_document(value: &Value) -> bool {
    value.get("$id").is_some_and(Value::is_string) || children(value).any(names_a_document)
}

const NULL: u8 = 1;
const BOOLEAN: u8 = 2;
const INTEGER: u8 = 4;
const FRACTION: u8 = 8;
const STRING: u8 = 16;
const ARRAY: u8 = 32;
const OBJECT: u8 = 64;
const ALL: u8 = 127;

fn kinds(rules: &[&Keywords]) -> u8 {
    let of = |keywords: &&Keywords| {
        let named = match keywords.get("type") {
            Some(Value::String(name)) => kind_called(name),
            Some(Value::Array(names)) => {
                let names = names.iter().filter_map(Value::as_str);
                names.fold(0, |kinds, name| kinds | kind_called(name))
            }
            _ => ALL,
        };
        let constant = keywords.get("const").map_or(ALL, kind_of);
        let listed = match keywords.get("enum") {
            Some(Value::Array(values)) => values.iter().fold(0, |all, value| all | kind_of(value)),
            _ => ALL,
        };
        named & constant & listed
    };
    rules.iter().map(of).fold(ALL, |all, kinds| all & kinds)
}

/// Of what is no type, everything.
fn kind_called(name: &str) -> u8 {
    match name {
        "null" => NULL,
        "boolean" => BOOLEAN,
        "integer" => INTEGER,
        "number" => INTEGER | FRACTION,
        "string" => STRING,
        "array" => ARRAY,
        "object" => OBJECT,
        _ => ALL,
    }
}

fn kind_of(value: &Value) -> u8 {
    match value {
        Value::Null => NULL,
        Value::Bool(_) => BOOLEAN,
        Value::Number(number) => {
            let is_whole = number.as_f64().is_some_and(|number| number.fract() == 0.0);
            if is_whole { INTEGER } else { FRACTION }
        }
        Value::String(_) => STRING,
        Value::Array(_) => ARRAY,
        Value::Object(_) => OBJECT,
    }
}

/// The shortest list of values that one of the rules has.
fn values<'s>(rules: &[&'s Keywords]) -> Option<&'s [Value]> {
    let lists = rules.iter().flat_map(|keywords| {
        let one = keywords.get("const").map(std::slice::from_ref);
        let several = keywords.get("enum").and_then(Value::as_array);
        [one, several.map(Vec::as_slice)].into_iter().flatten()
    });
    lists.min_by_key(|values| values.len())
}

/// As JSON Schema compares: 1 and 1.0 are the same.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64() == other.as_f64()
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let is_there = |(name, one): (&String, &Value)| {
                other.get(name).is_some_and(|other| same(one, other))
            };
            one.len() == other.len() && one.iter().all(is_there)
        }
        (one, other) => one == other,
    }
}

fn required<'s>(rules: &[&'s Keywords]) -> impl Iterator<Item = &'s str> {
    let lists = rules
        .iter()
        .filter_map(|keywords| keywords.get("required").and_then(Value::as_array))
        .collect::<Vec<_>>();
    lists.into_iter().flatten().filter_map(Value::as_str)
}

/// What is said of a property, at least that it is anything.
fn of_property<'s>(rules: &[&'s Keywords], name: &str) -> Vec<&'s Value> {
    let of = |keywords: &&'s Keywords| {
        let properties = keywords.get("properties").and_then(Value::as_object);
        let named = properties.and_then(|properties| properties.get(name));
        let others = keywords.get("additionalProperties");
        // Which of the patterns are meant is not looked for.
        let others = others.filter(|_| !keywords.contains_key("patternProperties"));
        named.or(others)
    };
    let mut said: Vec<&Value> = rules.iter().filter_map(of).collect();
    if said.is_empty() {
        said.push(&ANYTHING);
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pets() -> Value {
        let pet = |kind: &str| {
            json!({"type": "object", "required": ["kind", "name"], "title": kind,
                "properties": {"kind": {"const": kind, "type": "string"}, "name": {"type": "string"}}})
        };
        json!({"$defs": {"Cat": pet("cat"), "Dog": pet("dog"), "Pet": {"anyOf": [
            {"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}}})
    }

    fn are(parts: Value) -> bool {
        Apart::of(&pets()).are(&parts)
    }

    #[test]
    fn parts_that_exclude_each_other_are_seen() {
        for parts in [
            json!([]),
            json!([{"$ref": "#/$defs/Cat"}]),
            json!([{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]),
            json!([{"$ref": "#/$defs/Cat"}, {"type": "null"}, {"type": ["string", "integer"]}]),
            json!([{"$ref": "#/$defs/Pet"}, {"type": "array"}]),
            json!([{"allOf": [{"$ref": "#/$defs/Cat"}, {"required": ["x"]}]}, {"$ref": "#/$defs/Dog"}]),
            json!([{"enum": ["a", "b"]}, {"enum": ["c"]}, {"const": 1}]),
            json!([{"type": "integer"}, {"const": 1.5}]),
            json!([{"properties": {"a": false}, "type": "object"}, {"required": ["a"], "type": "object"}]),
            json!([{"properties": {"b": true}, "type": "object", "additionalProperties": false},
                {"required": ["a"], "type": "object"}]),
        ] {
            assert!(are(parts.clone()), "{parts}");
        }
    }

    #[test]
    fn parts_that_may_both_hold_are_not() {
        for parts in [
            json!([true, {}]),
            json!([{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Cat"}]),
            json!([{"$ref": "#/$defs/Pet"}, {"$ref": "#/$defs/Cat"}]),
            json!([{"$ref": "#/$defs/Cat"}, {"$ref": "#/nowhere"}]),
            json!([{"$ref": "#/$defs/Cat"}, {"type": "object"}]),
            json!([{"enum": ["a", "b"]}, {"enum": ["b"]}]),
            json!([{"const": 1}, {"const": 1.0}]),
            json!([{"type": "number"}, {"type": "integer"}]),
            json!([{"const": [1, {"a": 2}]}, {"const": [1.0, {"a": 2.0}]}]),
            // Neither property has to be there.
            json!([{"type": "object", "properties": {"a": {"const": 1}}},
                {"type": "object", "properties": {"a": {"const": 2}}}]),
            json!([{"required": ["a"], "type": "object"}, {"required": ["b"], "type": "object"}]),
            // What is no object has no property.
            json!([{"required": ["a"], "properties": {"a": {"const": 1}}},
                {"required": ["a"], "properties": {"a": {"const": 2}}}]),
            json!([{"required": ["a"], "type": "object"}, {"type": "object",
                "patternProperties": {"a": true}, "additionalProperties": false}]),
        ] {
            assert!(!are(parts.clone()), "{parts}");
        }
    }

    #[test]
    fn what_leads_to_itself_or_is_too_much_is_not_seen() {
        let endless =
            json!({"a": {"$ref": "#/a"}, "b": {"anyOf": [{"$ref": "#/b"}, {"$ref": "#/b"}]}});
        let parts = json!([{"$ref": "#/a"}, {"$ref": "#/b"}]);
        assert!(!Apart::of(&endless).are(&parts));
        // What `#` is to the second is not the whole.
        let inside =
            json!({"b": {"const": 1}, "c": {"$id": "c", "$ref": "#/b", "b": {"const": 2}}});
        let parts = json!([{"const": 2}, {"$ref": "#/c"}]);
        assert!(!Apart::of(&inside).are(&parts));
        let words = |from: u32| json!({"enum": (from..from + 2000).collect::<Vec<_>>()});
        assert!(!Apart::of(&json!({})).are(&json!([words(0), words(5000)])));
    }
}
