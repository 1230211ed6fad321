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
        let parameters = |schema: Option<&Map<String, Value>>| {
            let properties = schema.and_then(|schema| schema.get("properties")?.as_object());
            let properties = properties.into_iter().flatten();
            properties
                .map(|(name, schema)| (name.clone(), may_be_text(schema)))
                .collect()
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
    pub(super) fn is_text(&self, function: &str, parameter: &str) -> bool {
        let parameters = self.0.get(function);
        parameters
            .and_then(|parameters| parameters.get(parameter))
            .is_none_or(|is_text| *is_text)
    }
}

fn may_be_text(schema: &Value) -> bool {
    let is_text = |name: &Value| name.as_str() == Some("string");
    if let Some(kind) = schema.get("type") {
        return match kind {
            Value::Array(kinds) => kinds.iter().any(is_text),
            kind => is_text(kind),
        };
    }
    if let Some(Value::Array(values)) = schema.get("enum") {
        return values.iter().any(Value::is_string);
    }
    let alternatives = ["anyOf", "oneOf"]
        .into_iter()
        .filter_map(|key| schema.get(key));
    let mut alternatives = alternatives
        .filter_map(Value::as_array)
        .flatten()
        .peekable();
    alternatives.peek().is_none() || alternatives.any(may_be_text)
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
        }});
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
            ("unknown", true),
        ] {
            assert_eq!(types.is_text("f", name), is_text, "{name}");
        }
        assert!(types.is_text("g", "number"));
        assert!(types.knows("f") && !types.knows("g"));
    }
}
