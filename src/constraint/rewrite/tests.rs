use serde_json::{Value, json};

use super::*;

fn rewritten(schema: Value, care: Care) -> (Value, Vec<&'static str>) {
    let Value::Object(written) = &schema else {
        panic!("an object")
    };
    let mut read = written.clone();
    let unsaid = rewrite(&mut read, written, &Root(&schema), care);
    let unsaid = unsaid.into_iter().map(|unsaid| unsaid.keyword).collect();
    (Value::Object(read), unsaid)
}

fn said(schema: Value) -> Value {
    let (said, unsaid) = rewritten(schema, Care::MayBeNarrower);
    assert!(unsaid.is_empty(), "{unsaid:?}");
    said
}

#[test]
fn each_keyword_is_said_by_others() {
    for (schema, expected) in [
        (json!({"if": true}), json!({})),
        (json!({"then": false}), json!({})),
        (
            json!({"contains": {"const": 1}, "minContains": 0}),
            json!({}),
        ),
        (
            json!({"contains": {"const": 1}, "items": {"type": "integer"}}),
            json!({"items": {"type": "integer"}, "minItems": 1,
                "prefixItems": [{"allOf": [{"type": "integer"}, {"const": 1}]}]}),
        ),
        (
            json!({"contains": {"const": 1}, "maxContains": 3, "minItems": 2}),
            json!({"items": {"const": 1}, "maxItems": 3, "minItems": 2}),
        ),
        (
            json!({"propertyNames": {"maxLength": 2}, "properties": {"a": true, "long": true}}),
            json!({"properties": {"a": true, "long": false}, "additionalProperties": false,
                "patternProperties": {"^(?s:.){0,2}$": true}}),
        ),
        (
            json!({"propertyNames": {"enum": ["a", "b", "a"]}, "additionalProperties": {"type": "null"}}),
            json!({"properties": {"a": {"type": "null"}, "b": {"type": "null"}},
                "additionalProperties": false}),
        ),
        (
            json!({"propertyNames": {"enum": ["a", "b", "a"]}, "minProperties": 1}),
            json!({"minProperties": 1, "additionalProperties": false, "maxProperties": 2, "properties": {},
                "patternProperties": {"^(?:a|b|a)$": true}}),
        ),
        (
            json!({"propertyNames": {"enum": ["a", "b"]}, "properties": {"a": {"const": 1}, "c": true}}),
            json!({"properties": {"a": {"const": 1}, "c": false, "b": true},
                "additionalProperties": false}),
        ),
        // As zod and pydantic write them.
        (
            json!({"propertyNames": {"$ref": "#/$defs/C"}, "$defs": {"C": {"type": "string", "title": "C"}}}),
            json!({"$defs": {"C": {"type": "string", "title": "C"}}}),
        ),
        (
            json!({"propertyNames": {"type": "string"}, "additionalProperties": {"type": "number"}}),
            json!({"additionalProperties": {"type": "number"}}),
        ),
        (
            json!({"propertyNames": {"$ref": "#/$defs/C"}, "additionalProperties": true,
                "$defs": {"C": {"enum": ["a"], "title": "C", "type": "string"}}}),
            json!({"properties": {"a": true}, "additionalProperties": false,
                "$defs": {"C": {"enum": ["a"], "title": "C", "type": "string"}}}),
        ),
        (
            json!({"propertyNames": {"enum": [1]}}),
            json!({"additionalProperties": false, "properties": {}}),
        ),
        (
            json!({"dependentRequired": {"a": ["b"], "c": []}}),
            json!({"allOf": [{"anyOf": [{"properties": {"a": false}},
                {"allOf": [{"required": ["a"]}, {"required": ["b"]}]}]}]}),
        ),
        (
            json!({"if": {"type": "string"}, "then": {"maxLength": 3}}),
            json!({"allOf": [{"anyOf": [{"allOf": [{"type": "string"}, {"maxLength": 3}]},
                {"type": ["array", "boolean", "null", "number", "object"]}]}]}),
        ),
        (
            json!({"properties": {"a": true}, "allOf": [{"properties": {"b": true}}],
                "unevaluatedProperties": false}),
            json!({"properties": {"a": true}, "allOf": [{"properties": {"b": true}},
                {"properties": {"a": true, "b": true}, "additionalProperties": false}]}),
        ),
        (
            json!({"prefixItems": [true], "unevaluatedItems": false}),
            json!({"prefixItems": [true], "allOf": [{"prefixItems": [true], "items": false}]}),
        ),
    ] {
        assert_eq!(said(schema.clone()), expected, "{schema}");
    }
}

#[test]
fn a_negation_allows_nothing_that_its_schema_allows() {
    for (schema, value) in [
        (
            json!({"type": "integer"}),
            json!(["array", "boolean", "null", "object", "string"]),
        ),
        (
            json!({"type": ["string", "null"]}),
            json!(["array", "boolean", "number", "object"]),
        ),
    ] {
        assert_eq!(negation::negated(&schema), Some(json!({"type": value})));
    }
    for schema in [
        json!({"pattern": "a"}),
        json!({"$ref": "#/a"}),
        json!({"uniqueItems": true}),
    ] {
        assert_eq!(negation::negated(&schema), None, "{schema}");
    }
    assert_eq!(negation::negated(&json!({})), Some(json!(false)));
    let both = negation::negated(&json!({"required": ["a"], "properties": {"a": {"minimum": 3}}}));
    assert_eq!(
        both,
        Some(
            json!({"anyOf": [{"type": "object", "properties": {"a": false}},
            {"type": "object", "required": ["a"],
                "properties": {"a": {"type": "number", "exclusiveMaximum": 3}}}]})
        )
    );
}

#[test]
fn what_may_not_be_narrower_is_not_said() {
    let (_, unsaid) = rewritten(
        json!({"contains": true, "not": {"type": "null"}}),
        Care::Exactly,
    );
    assert_eq!(unsaid, ["contains", "not"]);
    let (said, unsaid) = rewritten(json!({"if": {"type": "null"}}), Care::Exactly);
    assert_eq!((said, unsaid), (json!({}), Vec::new()));
    let endless = json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}], "unevaluatedItems": false});
    assert_eq!(
        rewritten(endless, Care::MayBeNarrower).1,
        Vec::<&str>::new()
    );
}
