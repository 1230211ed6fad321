//! A client's schema on its way to the engine: bounded, without what means nothing to it, and with a
//! list of what it cannot keep. The engine's own options (`x-guidance`) are not a client's to set.

use serde_json::{Map, Value};

use super::beyond_engine::misread_bound;
use super::exact_numbers::{has_inexact_number, narrowed};
use super::keywords::{COUNTS, FORMATS, Holds, NOT_KEPT, kept};
use super::references::{Places, fragment};
use super::rewrite::{Apart, Care, Moved, Root, Unsaid, rewrite};

/// What is wrong with a place in a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// A JSON pointer.
    pub pointer: String,
    pub reason: String,
}

impl Fault {
    pub fn new(pointer: &str, reason: impl Into<String>) -> Self {
        Self {
            pointer: pointer.to_owned(),
            reason: reason.into(),
        }
    }
}

/// A schema with what the engine reads of it.
#[derive(Debug)]
pub struct Prepared {
    pub schema: Value,
    /// What the engine would not keep, each once.
    pub not_kept: Vec<Fault>,
    /// Where `schema` has other keywords than the client wrote.
    pub moved: Moved,
}

/// Reads `schema`. `Err`: it is none, whatever is kept.
pub fn prepare(schema: &Value, most_depth: usize) -> Result<Prepared, Fault> {
    let apart = Apart::of(schema);
    let mut walk = Walk {
        root: Root(schema),
        places: Places::of(schema),
        most_depth,
        not_kept: Vec::new(),
        care: match compares_references(schema, false, &apart) {
            // What they point to would be narrower as well.
            true => Care::Exactly,
            false => Care::MayBeNarrower,
        },
        apart,
        may_move: !leads_into_one_of(schema),
        moved: Moved::default(),
    };
    let schema = walk.schema(schema, "", 0)?;
    Ok(Prepared {
        schema,
        not_kept: walk.not_kept,
        moved: walk.moved,
    })
}

struct Walk<'v> {
    root: Root<'v>,
    places: Places<'v>,
    most_depth: usize,
    not_kept: Vec<Fault>,
    care: Care,
    apart: Apart<'v>,
    /// Nothing refers to a part of what would be another keyword.
    may_move: bool,
    moved: Moved,
}

/// Keywords whose schemas are negated or compared with each other.
const COMPARED: [&str; 3] = ["if", "not", "oneOf"];

/// Whether what is compared refers to other places. Parts that exclude each other are not compared any more.
fn compares_references(value: &Value, is_compared: bool, apart: &Apart<'_>) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(name, value)| {
            let compares = match name.as_str() {
                "oneOf" => !apart.are(value),
                name => COMPARED.contains(&name),
            };
            let is_compared = is_compared || compares;
            (is_compared && name == "$ref") || compares_references(value, is_compared, apart)
        }),
        Value::Array(values) => {
            let mut values = values.iter();
            values.any(|value| compares_references(value, is_compared, apart))
        }
        _ => false,
    }
}

/// Whether a reference leads to a part of a `oneOf`, or may.
fn leads_into_one_of(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(name, value)| {
            let to = value.as_str().filter(|_| name == "$ref");
            let place = to.and_then(fragment).unwrap_or_default();
            place.contains("oneOf") || leads_into_one_of(value)
        }),
        Value::Array(values) => values.iter().any(leads_into_one_of),
        _ => false,
    }
}

impl Walk<'_> {
    fn schema(&mut self, schema: &Value, at: &str, depth: usize) -> Result<Value, Fault> {
        if depth > self.most_depth {
            let most = self.most_depth;
            return Err(Fault::new(at, format!("is more than {most} schemas deep")));
        }
        let keywords = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(keywords) => keywords,
            _ => {
                return Err(Fault::new(
                    at,
                    "is no schema: it must be an object or a boolean",
                ));
            }
        };
        let mut read = Map::new();
        let place = at;
        for (keyword, value) in keywords {
            let at = pointer(place, keyword);
            if keyword == "x-guidance" {
                return Err(Fault::new(&at, "is not a keyword that a client may use"));
            }
            // As programs write what they leave out.
            if value.is_null() && keyword != "const" {
                continue;
            }
            if let Some(holds) = kept(keyword) {
                if self.care == Care::MayBeNarrower
                    && let Some(bound) = narrowed(keyword, value)
                {
                    read.insert(keyword.clone(), bound);
                    continue;
                }
                if holds == Holds::Value && has_inexact_number(value) {
                    let reason = "has an integer beyond 2^53, which cannot be kept exactly";
                    self.not_kept.push(Fault::new(&at, reason));
                    continue;
                }
                let care = self.care;
                let is_any = keyword == "oneOf"
                    && self.may_move
                    && !keywords.contains_key("anyOf")
                    && self.apart.are(value);
                if COMPARED.contains(&keyword.as_str()) && !is_any {
                    self.care = Care::Exactly;
                }
                let mut value = self.value(holds, value, &at, depth)?;
                self.care = care;
                if is_any {
                    self.moved.add(place);
                    read.insert("anyOf".to_owned(), value);
                    continue;
                }
                if COUNTS.contains(&keyword.as_str())
                    && let Some(count) = value.as_f64().filter(|count| count.fract() == 0.0)
                    && (0.0..1e9).contains(&count)
                {
                    value = (count as u64).into();
                }
                if keyword == "$ref"
                    && let Some(reason) = self.places.fault(&value)
                {
                    self.not_kept.push(Fault::new(&at, reason));
                    continue;
                }
                read.insert(keyword.clone(), value);
            } else if keyword == "format" {
                if value.as_str().is_some_and(|name| FORMATS.contains(&name)) {
                    read.insert(keyword.clone(), value.clone());
                }
            } else if NOT_KEPT.contains(&keyword.as_str()) && !says_nothing(keyword, value) {
                let reason = format!("`{keyword}` cannot be kept");
                self.not_kept.push(Fault::new(&at, reason));
            }
        }
        if let Some(keyword) = misread_bound(&read) {
            read.remove(keyword);
            let reason =
                "is an integer, and the other bound less than 1 from it: it would be allowed";
            let at = pointer(at, keyword);
            self.not_kept.push(Fault::new(&at, reason));
        }
        for Unsaid { keyword, reason } in rewrite(&mut read, keywords, &self.root, self.care) {
            let at = pointer(at, keyword);
            self.not_kept
                .push(Fault::new(&at, format!("`{keyword}`: {reason}")));
        }
        Ok(Value::Object(read))
    }

    fn value(
        &mut self,
        holds: Holds,
        value: &Value,
        at: &str,
        depth: usize,
    ) -> Result<Value, Fault> {
        match (holds, value) {
            (Holds::Value, _) => Ok(value.clone()),
            (Holds::Schema | Holds::SchemaOrList, Value::Object(_) | Value::Bool(_)) => {
                self.schema(value, at, depth + 1)
            }
            (Holds::SchemaOrList | Holds::List, Value::Array(schemas)) => {
                let schemas = schemas.iter().enumerate().map(|(index, schema)| {
                    self.schema(schema, &pointer(at, &index.to_string()), depth + 1)
                });
                schemas.collect::<Result<_, _>>().map(Value::Array)
            }
            (Holds::Named | Holds::NamedOrNames, Value::Object(schemas)) => {
                let schemas = schemas.iter().map(|(name, schema)| {
                    if holds == Holds::NamedOrNames && schema.is_array() {
                        return Ok((name.clone(), schema.clone()));
                    }
                    let schema = self.schema(schema, &pointer(at, name), depth + 1)?;
                    Ok((name.clone(), schema))
                });
                schemas.collect::<Result<_, _>>().map(Value::Object)
            }
            _ => Err(Fault::new(at, "is of the wrong type")),
        }
    }
}

/// It allows everything.
fn says_nothing(keyword: &str, value: &Value) -> bool {
    match keyword {
        "uniqueItems" => *value == Value::Bool(false),
        _ => false,
    }
}

pub fn pointer(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The places of the schemas that the schema `value` at `at` holds itself, those in it left out.
pub fn children(value: &Value, at: &str) -> Vec<String> {
    let Value::Object(keywords) = value else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (keyword, value) in keywords {
        let at = pointer(at, keyword);
        match (kept(keyword), value) {
            (Some(Holds::Value) | None, _) => {}
            (Some(Holds::Named | Holds::NamedOrNames), Value::Object(schemas)) => {
                found.extend(schemas.keys().map(|name| pointer(&at, name)));
            }
            (Some(_), Value::Array(schemas)) => {
                found.extend((0..schemas.len()).map(|index| pointer(&at, &index.to_string())));
            }
            (Some(_), _) => found.push(at),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(schema: Value) -> Vec<String> {
        let prepared = prepare(&schema, 8).expect("it is a schema");
        let faults = prepared.not_kept.into_iter();
        faults.map(|fault| fault.pointer).collect()
    }

    #[test]
    fn annotations_go_and_names_stay() {
        let schema = json!({
            "title": "T", "default": 1, "discriminator": {"propertyName": "x"}, "x-own": true,
            "type": "object", "required": null,
            "properties": {"title": {"type": "string", "format": "of-our-own", "examples": [], "enum": null}},
            "definitions": {"not": {"const": {"not": 1}}, "nothing": {"const": null}},
        });
        let prepared = prepare(&schema, 8).expect("it is a schema");
        assert_eq!(
            prepared.schema,
            json!({
                "type": "object",
                "properties": {"title": {"type": "string"}},
                "definitions": {"not": {"const": {"not": 1}}, "nothing": {"const": null}},
            })
        );
        assert!(prepared.not_kept.is_empty());
    }

    #[test]
    fn what_is_not_kept_is_named_by_its_place() {
        let schema = json!({
            "properties": {
                "a/b~c": {"type": "array", "uniqueItems": true},
                "d": {"anyOf": [{"not": {"pattern": "a"}}, {"uniqueItems": false}]},
                "e": {"$ref": "https://example.org/schema"},
                "f": {"enum": [1, [9007199254740993_u64]]},
            },
        });
        let circle = json!({"properties": {"a": {"$ref": "#/properties/a"}, "b": {"$ref": "#"}}});
        assert_eq!(faults(circle), ["/properties/a/$ref"]);
        let bounds = json!({"exclusiveMinimum": 0, "maximum": 0.5});
        assert_eq!(faults(bounds), ["/exclusiveMinimum"]);
        assert_eq!(
            faults(schema),
            [
                "/properties/a~1b~0c/uniqueItems",
                "/properties/d/anyOf/0/not",
                "/properties/e/$ref",
                "/properties/f/enum"
            ]
        );
    }

    #[test]
    fn a_reference_to_a_value_is_not_followed() {
        let value = json!({"type": "integer", "x-guidance": {"lenient": true}});
        let schema = json!({
            "properties": {
                "a": {"const": value, "default": value, "enum": [value]},
                "b": {"$ref": "#/properties/a/const", "minimum": 1},
                "c": {"$ref": "#/properties/a/default"},
                "d": {"$ref": "#/properties/a/%65num/0"},
                "e": {"$ref": "#/own/x"},
                "f": {"$ref": "#/properties"},
                "g": {"$ref": "#/properties/a"},
            },
            "own": {"x": value},
        });
        let prepared = prepare(&schema, 8).expect("it is a schema");
        let pointers = prepared.not_kept.iter().map(|fault| &*fault.pointer);
        assert_eq!(
            pointers.collect::<Vec<_>>(),
            ["b", "c", "d", "e", "f"].map(|name| format!("/properties/{name}/$ref"))
        );
        let properties = &prepared.schema["properties"];
        assert_eq!(properties["b"], json!({"minimum": 1}));
        assert_eq!(properties["e"], json!({}));
        assert_eq!(properties["g"], json!({"$ref": "#/properties/a"}));
    }

    #[test]
    fn one_of_what_excludes_each_other_is_any_of_it_where_nothing_leads_inside() {
        let parts = json!([{"type": "null"}, {"$ref": "#/$defs/a", "title": "A"}]);
        let schema = json!({"oneOf": parts, "$defs": {"a": {"type": "integer"}}});
        let prepared = prepare(&schema, 8).expect("it is a schema");
        assert_eq!(
            prepared.schema,
            json!({"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}],
                "$defs": {"a": {"type": "integer"}}})
        );
        assert_eq!(prepared.moved.written("/anyOf/1"), "/oneOf/1");
        for (name, value) in [
            ("anyOf", json!([true])),
            ("properties", json!({"x": {"$ref": "#/oneOf/1"}})),
            ("oneOf", json!([{"type": "number"}, {"type": "integer"}])),
        ] {
            let mut schema = schema.clone();
            schema[name] = value;
            let prepared = prepare(&schema, 8).expect("it is a schema");
            assert!(prepared.schema.get("oneOf").is_some(), "{schema}");
        }
    }

    #[test]
    fn a_circle_is_one_however_it_is_written() {
        let schema = json!({"$ref": "#/%24defs/a", "$defs": {"a": {"$ref": "#/$defs/%61"}}});
        assert_eq!(faults(schema), ["/$ref", "/$defs/a/$ref"]);
        let named =
            json!({"$anchor": "a", "properties": {"b": {"$ref": "#a"}}, "anyOf": [{"$ref": "#a"}]});
        assert_eq!(faults(named), ["/properties/b/$ref", "/anyOf/0/$ref"]);
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        let refused = |schema: Value| prepare(&schema, 3).expect_err("it is none").pointer;
        assert_eq!(refused(json!("string")), "");
        assert_eq!(refused(json!({"properties": {"a": 1}})), "/properties/a");
        assert_eq!(refused(json!({"anyOf": {}})), "/anyOf");
        assert_eq!(
            refused(json!({"items": {"x-guidance": {"lenient": true}}})),
            "/items/x-guidance"
        );
        let deep = json!({"items": {"items": {"items": {"items": {}}}}});
        assert_eq!(refused(deep), "/items/items/items/items");
    }
}
