//! The parameters of a function, where a model's format writes each by itself: those that its schema
//! names, in their order, and no others.

use serde_json::Value;

use crate::constraint::references;
use crate::constraint::schema::{Fault, pointer};

const MOST_REFERENCES: usize = 16;

/// One parameter.
pub struct Member<'s> {
    pub name: &'s str,
    pub schema: &'s Value,
    /// Where in the schema of all.
    pub at: String,
    pub is_required: bool,
}

const ANY: &Value = &Value::Bool(true);

/// What a schema that is prepared says of an object; what of it is not kept goes to `faults`.
pub fn members<'s>(
    schema: &'s Value,
    at: &str,
    root: &'s Value,
    faults: &mut Vec<Fault>,
) -> Vec<Member<'s>> {
    let (mut schema, mut at) = (schema, at.to_owned());
    for _ in 0..MOST_REFERENCES {
        let to = schema
            .get("$ref")
            .filter(|_| schema.get("properties").is_none());
        let Some(part) = to.and_then(|to| Some((to, referred(root, to)?))) else {
            break;
        };
        at = part
            .0
            .as_str()
            .unwrap_or_default()
            .trim_start_matches('#')
            .to_owned();
        schema = part.1;
    }
    let Value::Object(keywords) = schema else {
        return Vec::new();
    };
    for keyword in ["$ref", "allOf", "anyOf", "oneOf", "enum", "const"] {
        if keywords.contains_key(keyword) {
            let reason = "cannot be kept in the model's form of calls";
            faults.push(Fault::new(&pointer(&at, keyword), reason));
        }
    }
    let properties = keywords.get("properties").and_then(Value::as_object);
    let required = keywords.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|of| of == name));
    let inside = pointer(&at, "properties");
    let mut members: Vec<Member<'_>> = properties
        .into_iter()
        .flatten()
        .filter(|(name, schema)| **schema != Value::Bool(false) || is_required(name))
        .map(|(name, schema)| Member {
            name,
            schema,
            at: pointer(&inside, name),
            is_required: is_required(name),
        })
        .collect();
    let unnamed = required.into_iter().flatten().filter_map(Value::as_str);
    for name in unnamed {
        if members.iter().all(|member| member.name != name) {
            members.push(Member {
                name,
                schema: keywords.get("additionalProperties").unwrap_or(ANY),
                at: pointer(&at, "additionalProperties"),
                is_required: true,
            });
        }
    }
    let count = |keyword: &str| {
        let count = keywords.get(keyword).and_then(Value::as_u64);
        count.map(|count| usize::try_from(count).unwrap_or(usize::MAX))
    };
    // As many as there must be are there, and no more than there may.
    let mut missing = count("minProperties")
        .unwrap_or(0)
        .saturating_sub(members.iter().filter(|member| member.is_required).count());
    for member in &mut members {
        if missing > 0 && !member.is_required {
            member.is_required = true;
            missing -= 1;
        }
    }
    if let Some(most) = count("maxProperties") {
        let mut over = members.len().saturating_sub(most);
        let mut index = members.len();
        while over > 0 && index > 0 {
            index -= 1;
            if !members[index].is_required {
                members.remove(index);
                over -= 1;
            }
        }
        if over > 0 {
            faults.push(unmet(&at, "maxProperties"));
        }
    }
    if missing > 0 {
        faults.push(unmet(&at, "minProperties"));
    }
    members
}

fn unmet(at: &str, keyword: &str) -> Fault {
    let reason = "cannot be kept by the parameters that are named";
    Fault::new(&pointer(at, keyword), reason)
}

/// What `$ref` names, if it is a part of the same schema.
pub fn referred<'s>(root: &'s Value, to: &Value) -> Option<&'s Value> {
    references::found(root, to.as_str()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(schema: Value) -> (Vec<(String, bool)>, Vec<String>) {
        let mut faults = Vec::new();
        let members = members(&schema, "", &schema, &mut faults);
        let members = members
            .iter()
            .map(|it| (it.name.to_owned(), it.is_required));
        (
            members.collect(),
            faults.into_iter().map(|fault| fault.pointer).collect(),
        )
    }

    #[test]
    fn parameters_are_those_that_are_named() {
        let of = |expected: &[(&str, bool)]| -> Vec<(String, bool)> {
            let expected = expected.iter();
            expected
                .map(|(name, required)| ((*name).to_owned(), *required))
                .collect()
        };
        let two = json!({"a": {"type": "string"}, "b": true});
        for (schema, expected) in [
            (
                json!({"properties": two, "required": ["b"]}),
                of(&[("a", false), ("b", true)]),
            ),
            (
                json!({"properties": two, "minProperties": 1}),
                of(&[("a", true), ("b", false)]),
            ),
            (
                json!({"properties": two, "maxProperties": 1}),
                of(&[("a", false)]),
            ),
            (json!({"required": ["c"]}), of(&[("c", true)])),
            (
                json!({"$ref": "#/$defs/d", "$defs": {"d": {"properties": two}}}),
                of(&[("a", false), ("b", false)]),
            ),
            (json!({"type": "object"}), of(&[])),
        ] {
            assert_eq!(names(schema.clone()), (expected, Vec::new()), "{schema}");
        }
        assert_eq!(names(json!({"minProperties": 1})).1, ["/minProperties"]);
        assert_eq!(names(json!({"anyOf": []})).1, ["/anyOf"]);
    }
}
