//! Of whatever a schema asks for, an answer is kept to it, or it is told that it is not: nothing is left out silently.

use crate::constraint_support::{byte_parsers, can_say};
use crate::json_judge::fault;
use crate::schemas_of_programs_are_kept::compiled;
use serde_json::{Value, json};

fn schemas() -> Vec<Value> {
    let integer = json!({"type": "integer"});
    vec![
        json!({"const": null}),
        json!({"enum": [null, 0, "", [], {}]}),
        json!({"enum": ["a", 1], "type": "string"}),
        json!({"type": "integer", "minimum": 1, "maximum": 12, "multipleOf": 5}),
        json!({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 12, "multipleOf": 4}),
        json!({"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.5}),
        json!({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}),
        json!({"type": "string", "minLength": 2, "maxLength": 3}),
        json!({"type": "string", "minLength": 2, "pattern": "^[a-c]+$"}),
        json!({"type": "string", "pattern": "b"}),
        json!({"type": "string", "format": "date", "maxLength": 10}),
        json!({"type": "string", "format": "uuid"}),
        json!({"type": "string", "format": "ipv4"}),
        json!({"type": "array", "uniqueItems": true}),
        json!({"type": "array", "items": integer, "uniqueItems": true, "maxItems": 3}),
        json!({"type": "array", "contains": {"const": 1}, "maxItems": 3}),
        json!({"type": "array", "prefixItems": [{"type": "string"}], "items": false}),
        json!({"oneOf": [integer, {"oneOf": [{"type": "null"}, {"type": "string"}]}]}),
        json!({"oneOf": [integer, {"type": "number"}]}),
        json!({"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}], "type": "integer"}),
        json!({"anyOf": [integer, {"type": "string"}], "not": {"const": 1}}),
        json!({"not": {"type": "object"}}),
        json!({"not": {"pattern": "a"}, "type": "string"}),
        json!({"if": {"type": "integer"}, "then": {"minimum": 5}, "else": {"type": "null"}}),
        json!({"allOf": [{"properties": {"a": integer}}, {"required": ["a"]}], "type": "object"}),
        json!({"type": "object", "minProperties": 1, "properties": {"a": integer, "b": true}}),
        json!({"type": "object", "maxProperties": 1, "additionalProperties": integer}),
        json!({"type": "object", "patternProperties": {"^a": integer, "b$": {"type": "null"}}}),
        json!({"type": "object", "patternProperties": {"^a": integer}, "additionalProperties": false}),
        json!({"type": "object", "propertyNames": {"maxLength": 1}}),
        json!({"type": "object", "propertyNames": {"not": {"const": "a"}}}),
        json!({"type": "object", "dependentRequired": {"a": ["b"]},
            "properties": {"a": true, "b": integer}}),
        json!({"type": "object", "properties": {"a": false, "b": integer}}),
        json!({"type": "object", "required": ["b"], "unevaluatedProperties": false,
            "properties": {"a": true}, "anyOf": [{"properties": {"b": integer}}]}),
        json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "array",
            "items": [integer], "additionalItems": {"type": "null"}}),
        json!({"$dynamicRef": "#/$defs/a", "$defs": {"a": integer}}),
    ]
}

const TEXTS: [&str; 46] = [
    "null",
    "true",
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "10",
    "12",
    "15",
    "0.5",
    "0.25",
    "-1",
    "1.0",
    r#""""#,
    r#""a""#,
    r#""b""#,
    r#""ab""#,
    r#""abd""#,
    r#""😀""#,
    r#""😀😀""#,
    r#""😀😀😀😀""#,
    r#""2024-02-03""#,
    r#""2024-13-03""#,
    r#""1.2.3.4""#,
    r#""1.2.3.256""#,
    r#""123e4567-e89b-12d3-a456-426614174000""#,
    "[]",
    "[1]",
    "[1,1]",
    "[1,2]",
    "[1,null]",
    "[2,3]",
    r#"["a"]"#,
    r#"["a",1]"#,
    "{}",
    r#"{"a":1}"#,
    r#"{"a":"x"}"#,
    r#"{"b":1}"#,
    r#"{"b":null}"#,
    r#"{"ab":1}"#,
    r#"{"ab":null}"#,
    r#"{"a":1,"b":2}"#,
    r#"{"a":1,"a":1}"#,
];

#[test]
fn what_a_schema_asks_for_is_kept_or_told() {
    let parsers = byte_parsers();
    let (mut kept, mut said) = (0, 0);
    for schema in schemas() {
        let strict = compiled(&schema, true);
        let loose = compiled(&schema, false);
        let tells = loose
            .as_ref()
            .map_or(true, |loose| !loose.not_kept.is_empty());
        assert_eq!(strict.is_err(), tells, "{schema}: {strict:?}");
        let Ok(strict) = strict else { continue };
        kept += 1;
        for text in TEXTS {
            if can_say(&strict, &parsers, text) {
                assert_eq!(fault(&schema, text), None, "{text} of {schema}");
                said += 1;
            }
        }
    }
    assert!(kept >= 16 && said >= 40, "{kept} schemas, {said} texts");
}
