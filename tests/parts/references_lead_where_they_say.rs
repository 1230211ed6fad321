//! References of a schema, however they are written, are followed to the schema that they name, or told where they are
//! not: there is no answer of another schema.

use crate::schemas_of_programs_are_kept::{assert_kept, assert_says, compiled};
use serde_json::{Value, json};

/// A schema whose reference is to a small integer, by a definition under that name.
fn of_integers(keyword: &str, name: &str, reference: &str) -> Value {
    json!({"$ref": reference, keyword: {name: {"$anchor": "n", "type": "integer",
        "minimum": 3, "maximum": 8}}})
}

#[test]
fn a_reference_is_followed_however_it_is_written() {
    for (keyword, name, reference) in [
        ("$defs", "a", "#/$defs/a"),
        ("definitions", "a", "#/definitions/a"),
        ("$defs", "a", "#/%24defs/a"),
        ("$defs", "a b", "#/$defs/a%20b"),
        ("$defs", "a/b", "#/$defs/a~1b"),
        ("$defs", "a~b", "#/$defs/a~0b"),
        ("$defs", "a~1", "#/$defs/a~01"),
        ("$defs", "é", "#/$defs/%C3%A9"),
        ("$defs", "a", "#n"),
        ("$defs", "$ref", "#/$defs/$ref"),
        ("$defs", "const", "#/$defs/const"),
    ] {
        let schema = of_integers(keyword, name, reference);
        assert_kept(&schema, &["3", "8"], &["2", "9", "null", "\"3\""]);
        let inside = json!({"type": "array", "minItems": 1, "items": {"$ref": reference},
            keyword: schema[keyword]});
        assert_kept(&inside, &["[3]", "[8,4]"], &["[2]", "[]", "[null]"]);
    }
}

#[test]
fn what_stands_beside_a_reference_holds_as_well() {
    let mut schema = of_integers("$defs", "a", "#/$defs/a");
    schema["maximum"] = json!(5);
    assert_kept(&schema, &["3", "5"], &["2", "6", "8"]);
    let schema = json!({"type": "object", "required": ["a", "b"], "$ref": "#/$defs/o",
        "properties": {"a": {"type": "integer"}},
        "$defs": {"o": {"properties": {"b": {"type": "boolean"}}}}});
    assert_says(
        &schema,
        &compiled(&schema, true).expect("it is kept"),
        &[],
        &[r#"{"a":1}"#, r#"{"a":1,"b":1}"#, r#"{"a":"x","b":true}"#],
    );
}

#[test]
fn a_reference_that_is_not_followed_is_told_or_refused() {
    let place = "/properties/b/$ref";
    for reference in [
        "#/properties/a/enum/0",
        "#/properties/a/%65num/0",
        "#/$defs/x/const",
        "#/$defs/x/default",
        "#/$defs",
        "#/own/x",
        "#/properties/b",
        "#b",
        "other.json",
        "other.json#/$defs/x",
        "https://example.org/x",
        "",
    ] {
        let value = json!({"type": "integer", "x-guidance": {"lenient": true}});
        let schema = json!({"type": "object", "required": ["b"],
            "properties": {"a": {"enum": [value]}, "b": {"$anchor": "b", "$ref": reference}},
            "$defs": {"x": {"const": value, "default": value}}, "own": {"x": value}});
        let refused = compiled(&schema, true).expect_err("it is strict");
        assert_eq!(refused.pointer, place, "{reference}: {refused}");
        let loose = compiled(&schema, false).expect("it need not be kept");
        assert_eq!(loose.not_kept, [place], "{reference}");
        let any = [r#"{"b":1}"#, r#"{"b":"x"}"#];
        assert_says(&schema, &loose, &any, &["{}", "1", r#"{"b"}"#]);
    }
}

#[test]
fn what_leads_nowhere_and_what_changes_while_it_is_read_is_told() {
    for (rule, keyword) in [
        (json!({"$ref": "#/$defs/none"}), None),
        (json!({"$ref": "#none"}), None),
        (json!({"$dynamicRef": "#a"}), Some("$dynamicRef")),
        (json!({"$recursiveRef": "#"}), Some("$recursiveRef")),
        (
            json!({"type": "array", "uniqueItems": true}),
            Some("uniqueItems"),
        ),
    ] {
        let schema = json!({"type": "object", "required": ["a", "b"],
            "properties": {"a": {"type": "boolean"}, "b": rule}});
        let refused = compiled(&schema, true).expect_err("it is strict");
        let loose = compiled(&schema, false).expect("it need not be kept");
        let place = match keyword {
            Some(keyword) => format!("/properties/b/{keyword}"),
            None => "/properties/b".to_owned(),
        };
        assert_eq!(refused.pointer, place, "{refused}");
        assert_eq!(loose.not_kept, [place]);
        // What stands beside it is kept.
        let said = [r#"{"a":true,"b":[1,1]}"#];
        assert_says(&schema, &loose, &said, &[r#"{"a":1,"b":[1,1]}"#, "{}"]);
    }
}
