//! What the functions of a request say of their parameters, as far as it decides how a bare value is
//! read.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// By a function's name, whether each of its parameters is a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolTypes(HashMap<String, HashMap<String, bool>>);

impl ToolTypes {
    /// Takes names and the JSON schemas of their parameters.
    pub fn new<'t>(
        tools: impl IntoIterator<Item = (&'t str, Option<&'t Map<String, Value>>)>,
    ) -> Self {
        let mut steps = MOST_STEPS;
        let mut parameters = |schema: Option<&Map<String, Value>>| {
            let schema = schema.map(|root| Schema {
                root,
                steps: &mut steps,
            });
            schema.map(Schema::parameters).unwrap_or_default()
        };
        let tools = tools.into_iter();
        Self(
            tools
                .map(|(name, schema)| (name.to_owned(), parameters(schema)))
                .collect(),
        )
    }

    pub(super) fn knows(&self, function: &str) -> bool {
        self.0.contains_key(function)
    }

    /// A parameter of which nothing is known is a text.
    pub(crate) fn is_text(&self, function: &str, parameter: &str) -> bool {
        let parameters = self.0.get(function);
        parameters
            .and_then(|parameters| parameters.get(parameter))
            .is_none_or(|is_text| *is_text)
    }
}

/// How deep a parameter's schema is looked into. One may refer to itself.
const MOST_DEPTH: usize = 16;

/// How many schemas and values are looked at for one request; beyond them nothing is known.
const MOST_STEPS: usize = 65_536;

/// Keywords of objects and lists alone.
const OF_NO_TEXT: [&str; 4] = ["properties", "additionalProperties", "items", "prefixItems"];

/// The schema of a function's parameters, whose parts refer to each other.
struct Schema<'s> {
    root: &'s Map<String, Value>,
    steps: &'s mut usize,
}

impl<'s> Schema<'s> {
    fn parameters(mut self) -> HashMap<String, bool> {
        let mut schema = self.root;
        for _ in 0..MOST_DEPTH {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                let properties = properties.iter();
                return properties
                    .map(|(name, schema)| (name.clone(), self.may_be_text(schema, 0)))
                    .collect();
            }
            match self.referred(schema) {
                Some(part) => schema = part,
                None => break,
            }
        }
        HashMap::new()
    }

    /// Whether no keyword says that it is something else.
    fn may_be_text(&mut self, schema: &'s Value, depth: usize) -> bool {
        let Some(schema) = schema.as_object() else {
            return true;
        };
        self.part_may_be_text(schema, depth)
    }

    fn part_may_be_text(&mut self, schema: &'s Map<String, Value>, depth: usize) -> bool {
        if depth == MOST_DEPTH || !self.take(1) {
            return true;
        }
        let is_text = |name: &Value| name.as_str() == Some("string");
        if let Some(kind) = schema.get("type") {
            return match kind {
                Value::Array(kinds) => !self.take(kinds.len()) || kinds.iter().any(is_text),
                kind => is_text(kind),
            };
        }
        if let Some(Value::Array(values)) = schema.get("enum") {
            return !self.take(values.len()) || values.iter().any(Value::is_string);
        }
        if let Some(value) = schema.get("const") {
            return value.is_string();
        }
        if OF_NO_TEXT
            .iter()
            .any(|keyword| schema.contains_key(*keyword))
        {
            return false;
        }
        let is_referred_text = match self.referred(schema) {
            Some(part) => self.part_may_be_text(part, depth + 1),
            None => true,
        };
        let parts = |keyword: &str| schema.get(keyword).and_then(Value::as_array);
        let mut all = parts("allOf").into_iter().flatten();
        is_referred_text
            && all.all(|part| self.may_be_text(part, depth + 1))
            && ["anyOf", "oneOf"]
                .into_iter()
                .filter_map(parts)
                .all(|parts| {
                    parts.is_empty() || parts.iter().any(|part| self.may_be_text(part, depth + 1))
                })
    }

    /// What `$ref` names, if it is a part of the same schema.
    fn referred(&self, schema: &Map<String, Value>) -> Option<&'s Map<String, Value>> {
        let path = schema.get("$ref")?.as_str()?.strip_prefix('#')?;
        let Some(path) = path.strip_prefix('/') else {
            return path.is_empty().then_some(self.root);
        };
        let (first, rest) = match path.find('/') {
            Some(end) => path.split_at(end),
            None => (path, ""),
        };
        let first = first.replace("~1", "/").replace("~0", "~");
        self.root.get(&first)?.pointer(rest)?.as_object()
    }

    /// Whether this much more may be looked at.
    fn take(&mut self, steps: usize) -> bool {
        let left = self.steps.checked_sub(steps);
        *self.steps = left.unwrap_or(0);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_tells_what_is_a_text() {
        let schema = json!({"properties": {
            "text": {"type": "string"},
            "number": {"type": "integer"},
            "both": {"type": ["null", "string"]},
            "one": {"enum": ["a", "b"]},
            "numbers": {"enum": [1, 2]},
            "any": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
            "list": {"anyOf": [{"type": "array"}, {"type": "null"}]},
            "open": {},
            "model": {"$ref": "#/$defs/Model", "description": "One."},
            "word": {"$ref": "#/definitions/a~1b~0c"},
            "nowhere": {"$ref": "#/$defs/Nothing"},
            "elsewhere": {"$ref": "https://example.com/schema"},
            "all": {"allOf": [{"$ref": "#/$defs/Model"}], "default": null},
            "optional": {"anyOf": [{"$ref": "#/$defs/Model"}, {"type": "null"}]},
            "perhaps": {"oneOf": [{"$ref": "#/$defs/Model"}, {"type": "string"}]},
            "members": {"properties": {"a": {}}},
            "items": {"items": {"type": "string"}},
            "constant": {"const": 1},
            "constant_text": {"const": "a"},
            "chain": {"$ref": "#/$defs/Chain"},
            "itself": {"$ref": "#/$defs/Itself"},
            "root": {"$ref": "#"},
        },
        "type": "object",
        "$defs": {
            "Model": {"type": "object", "properties": {}},
            "Chain": {"$ref": "#/$defs/Model"},
            "Itself": {"anyOf": [{"$ref": "#/$defs/Itself"}, {"$ref": "#/$defs/Itself"}]},
        },
        "definitions": {"a/b~c": {"type": "string"}}});
        let types = ToolTypes::new([("f", schema.as_object())]);
        for (name, is_text) in [
            ("text", true),
            ("number", false),
            ("both", true),
            ("one", true),
            ("numbers", false),
            ("any", true),
            ("list", false),
            ("open", true),
            ("model", false),
            ("word", true),
            ("nowhere", true),
            ("elsewhere", true),
            ("all", false),
            ("optional", false),
            ("perhaps", true),
            ("members", false),
            ("items", false),
            ("constant", false),
            ("constant_text", true),
            ("chain", false),
            ("itself", true),
            ("root", false),
            ("unknown", true),
        ] {
            assert_eq!(types.is_text("f", name), is_text, "{name}");
        }
        let wrapped =
            json!({"$ref": "#/definitions/Args", "definitions": {"Args": schema.clone()}});
        let wrapped = ToolTypes::new([("f", wrapped.as_object())]);
        assert!(!wrapped.is_text("f", "number"));
        assert!(types.is_text("g", "number"));
        assert!(types.knows("f") && !types.knows("g"));
    }
}
