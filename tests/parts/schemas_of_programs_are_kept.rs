//! Schemas as libraries of clients make them: what an answer can say of each, what it cannot, and what is told of
//! those that cannot be kept whole.

use std::sync::Arc;

use crate::calls_support::{Markers, Random, drawn, words};
use crate::constraint_support::{LIMITS, byte_parsers, can_say};
use crate::formats_beside_calls::constraint;
use crate::json_judge::fault;
use rkllmd::constraint::{Begun, Compiled, Follower, Unenforceable, Wanted, compile};
use rkllmd::reply::ReplyFormat;
use serde_json::{Value, json};

pub fn compiled(schema: &Value, strict: bool) -> Result<Compiled, Unenforceable> {
    let schema = schema.to_string();
    compile(&Wanted::JsonSchema { schema, strict }, &LIMITS)
}

/// All of it is kept.
pub fn assert_kept(schema: &Value, said: &[&str], not_said: &[&str]) {
    let strict = compiled(schema, true);
    let strict = strict.unwrap_or_else(|reason| panic!("{schema}: {reason}"));
    assert_eq!(strict.not_kept, Vec::<String>::new(), "{schema}");
    assert_says(schema, &strict, said, not_said);
}

pub fn assert_says(schema: &Value, compiled: &Compiled, said: &[&str], not_said: &[&str]) {
    let parsers = byte_parsers();
    for text in said {
        assert!(can_say(compiled, &parsers, text), "{text} of {schema}");
    }
    for text in not_said {
        assert!(!can_say(compiled, &parsers, text), "{text} of {schema}");
    }
}

/// As pydantic writes a union that a field tells apart, and OpenAPI's generators an optional reference.
fn pets() -> Value {
    let pet = |kind: &str, more: &str| {
        json!({"type": "object", "title": kind, "required": ["kind", more], "properties": {
            "kind": {"const": kind, "default": kind, "type": "string"}, more: {"type": "integer"}}})
    };
    json!({
        "$defs": {"Cat": pet("cat", "lives"), "Dog": pet("dog", "years")},
        "type": "object",
        "required": ["pet", "other"],
        "properties": {
            "pet": {
                "discriminator": {"propertyName": "kind",
                    "mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}},
                "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
            },
            "other": {"oneOf": [{"$ref": "#/$defs/Dog"}, {"type": "null"}]},
        },
    })
}

#[test]
fn unions_of_references_are_kept_where_their_parts_exclude_each_other() {
    assert_kept(
        &pets(),
        &[
            r#"{"pet":{"kind":"cat","lives":9},"other":null}"#,
            r#"{"pet":{"kind":"dog","years":3},"other":{"kind":"dog","years":1}}"#,
        ],
        &[
            r#"{"pet":{"kind":"dog","lives":9},"other":null}"#,
            r#"{"pet":{"kind":"cow","lives":9},"other":null}"#,
            r#"{"pet":null,"other":null}"#,
            r#"{"pet":{"kind":"cat","lives":9},"other":{"kind":"cat","lives":9}}"#,
        ],
    );
}

#[test]
fn a_union_whose_parts_may_hold_at_once_is_any_of_them_where_it_need_not_be_strict() {
    let words = json!({"oneOf": [{"type": "string", "pattern": "^a"}, {"type": "string", "pattern": "b$"}]});
    let inside = json!({"type": "object", "required": ["w"], "properties": {"w": words}});
    for (schema, place, before, behind) in [
        (&words, "/oneOf", "", ""),
        (&inside, "/properties/w/oneOf", r#"{"w":"#, "}"),
    ] {
        compiled(schema, true).expect_err("both may hold");
        let loose = compiled(schema, false).expect("it need not be kept");
        assert_eq!(loose.not_kept, [place]);
        let as_value = |text: &str| format!("{before}{text}{behind}");
        let [a, b, neither, number] = [r#""ax""#, r#""xb""#, r#""x""#, "1"].map(as_value);
        assert_says(schema, &loose, &[&a, &b], &[&neither, &number]);
    }
}

#[test]
fn the_whole_of_a_schema_goes_without_what_cannot_be_kept_where_it_need_not_be_strict() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["b"],
        "additionalProperties": false});
    compiled(&schema, true).expect_err("there is no such object");
    let loose = compiled(&schema, false).expect("it need not be kept");
    assert_eq!(loose.not_kept, ["/required"]);
    assert_says(&schema, &loose, &["{}", r#"{"a":1}"#], &[r#"{"b":1}"#, "1"]);
    compiled(&json!({"enum": []}), false).expect_err("nothing else is said");
}

#[test]
fn a_fault_in_a_union_is_told_where_it_was_written() {
    let mut schema = pets();
    schema["$defs"] = json!({});
    schema["properties"]["pet"]["oneOf"] =
        json!([{"type": "null"}, {"type": "string", "pattern": "(?=x)y"}]);
    schema["properties"]["other"] = json!({"type": "null"});
    let place = "/properties/pet/oneOf/1";
    let refused = compiled(&schema, true).expect_err("no engine looks ahead");
    assert_eq!(refused.pointer, place);
    let loose = compiled(&schema, false).expect("it need not be kept");
    assert_eq!(loose.not_kept, [place]);
}

#[test]
fn what_forbids_all_else_is_not_taken_for_the_fault() {
    let odd = json!({"type": "string", "pattern": "(?=x)y"});
    for schema in [
        json!({"additionalProperties": false, "type": "object", "required": ["d"], "properties": {"d": odd}}),
        json!({"properties": {"a": false, "d": odd}}),
        json!({"type": ["array", "object"], "items": false, "prefixItems": [true], "properties": {"d": odd}}),
    ] {
        let refused = compiled(&schema, true).expect_err("no engine looks ahead");
        assert_eq!(refused.pointer, "/properties/d", "{schema}");
        let loose = compiled(&schema, false).expect("it need not be kept");
        assert_eq!(loose.not_kept, ["/properties/d"], "{schema}");
    }
}

#[test]
fn a_fault_behind_a_reference_is_told_where_it_is() {
    let odd = json!({"type": "string", "pattern": "(?=x)y"});
    let schema = json!({
        "type": "object", "required": ["a"], "properties": {"a": {"$ref": "#/$defs/A"}},
        "$defs": {"A": {"type": "object", "required": ["n", "d"], "properties": {
            "n": {"type": "integer"}, "d": odd, "next": {"$ref": "#/$defs/A"}}}},
    });
    let place = "/$defs/A/properties/d";
    let refused = compiled(&schema, true).expect_err("no engine looks ahead");
    assert_eq!(refused.pointer, place);
    let loose = compiled(&schema, false).expect("it need not be kept");
    assert_eq!(loose.not_kept, [place]);
    let (said, not_said) = (r#"{"a":{"n":1,"d":[2]}}"#, r#"{"a":{"n":"1","d":2}}"#);
    assert_says(&schema, &loose, &[said], &[not_said]);
}

#[test]
fn every_kind_of_schema_says_what_it_allows() {
    assert_kept(
        &json!({"enum": ["a", 1, null, true, {"x": [1]}]}),
        &[r#""a""#, "1", "null", "true", r#"{"x":[1]}"#],
        &[r#""b""#, "2", "false", "[1]"],
    );
    assert_kept(
        &json!({"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"],
            "patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": false}),
        &[r#"{"id":1}"#, r#"{"id":1,"x-a":"b"}"#],
        &[r#"{"x-a":"b"}"#, r#"{"id":1,"y":2}"#, r#"{"id":1,"x-a":2}"#],
    );
    assert_kept(
        &json!({"type": "object", "additionalProperties": {"type": "integer"}}),
        &["{}", r#"{"a":1,"b":2}"#],
        &[r#"{"a":"x"}"#, r#"{"a":1,"a":2}"#],
    );
    assert_kept(
        &json!({"type": "string", "minLength": 2, "maxLength": 3}),
        &[r#""é€""#, r#""😀😀😀""#],
        &[r#""😀""#, r#""abcd""#],
    );
    assert_kept(
        &json!({"type": "integer", "minimum": -3, "maximum": 12}),
        &["-3", "0", "12"],
        &["-4", "13", "1.5"],
    );
    // What generators write of integers of 64 bits.
    assert_kept(
        &json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}),
        &["-3", "0", "12345678901"],
        &["1.5", "9223372036854775808"],
    );
    assert_kept(
        &json!({"type": "integer", "multipleOf": 5}),
        &["10"],
        &["7"],
    );
    assert_kept(
        &json!({"type": "array", "items": [{"type": "string"}, {"type": "integer"}],
            "additionalItems": false, "minItems": 2}),
        &[r#"["a",1]"#],
        &[r#"["a",1,2]"#, r#"[1,"a"]"#, r#"["a"]"#],
    );
    assert_kept(
        &json!({"type": ["string", "null"], "maxLength": 2}),
        &[r#""ab""#, "null"],
        &[r#""abc""#, "1"],
    );
    assert_kept(
        &json!({"$ref": "#/definitions/node", "definitions": {"node": {"type": "object",
            "required": ["v", "next"], "properties": {"v": {"type": "integer"},
                "next": {"anyOf": [{"$ref": "#/definitions/node"}, {"type": "null"}]}}}}}),
        &[r#"{"v":1,"next":{"v":2,"next":null}}"#],
        &[r#"{"v":1,"next":1}"#, r#"{"v":1}"#],
    );
    assert_kept(
        &json!({"anyOf": [{"$ref": "#/anyOf/1/$defs/n"},
            {"type": "null", "$defs": {"n": {"type": "integer"}}}]}),
        &["1", "null"],
        &[r#""a""#],
    );
    for anything in [json!({}), json!(true)] {
        assert_kept(&anything, &["1", "[]", r#"{"a":[null]}"#, r#""x""#], &["x"]);
    }
}

#[test]
fn formats_of_texts_are_kept() {
    for (format, said, not_said) in [
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
        ("ipv4", "192.0.2.255", "192.0.2.256"),
        ("email", "someone@example.org", "someone"),
        ("date-time", "2024-02-29T10:11:12Z", "2024-13-01T10:11:12Z"),
        ("date", "2024-02-29", "2024-2-29"),
    ] {
        let [said, not_said] = [said, not_said].map(|text| format!("\"{text}\""));
        let schema = json!({"type": "string", "format": format});
        assert_kept(&schema, &[&said], &[&not_said]);
    }
}

/// As pydantic writes a dictionary whose keys are of an enumeration.
#[test]
fn where_all_names_have_come_none_is_begun() {
    let of_names = |properties: Value| {
        json!({"type": "object", "propertyNames": {"enum": ["a", "b"]}, "properties": properties,
            "additionalProperties": {"type": "boolean"}})
    };
    let words = words(&mut ReplyFormat::default(), Markers::Text);
    for schema in [
        of_names(json!({})),
        of_names(json!({"a": {"type": "null"}})),
    ] {
        let constraint = constraint(compiled(&schema, true).expect("it is kept"));
        for seed in 0..40 {
            let tokens = Arc::clone(&words.tokens);
            let follower = Follower::new(&constraint, tokens, Begun::Nothing);
            let mut follower = follower.expect("it compiles");
            let (drawn, is_whole) = drawn(&mut follower, &words, &mut Random(seed), 400);
            assert!(is_whole, "{schema}");
            let said = drawn.iter().filter(|id| **id != words.end);
            let said = said.flat_map(|id| words.tokens.piece(*id)).copied();
            let said = String::from_utf8(said.collect()).expect("characters");
            assert_eq!(fault(&schema, &said), None, "{said}");
        }
    }
    let none = json!({"type": "object", "propertyNames": {"enum": []}});
    assert_kept(&none, &["{}"], &[r#"{"":1}"#, r#"{"a":1}"#]);
}
