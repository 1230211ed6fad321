//! Schemas and grammars that are made to use up the process that compiles them cost the request that brings them, in
//! bounded time, and nothing else.

use std::time::{Duration, Instant};

use crate::daemon_support::{Setup, chat};
use serde_json::{Value, json};

const MODEL: &str = "smollm2";
/// Longer than a reader may take for one, and a worker once more, on a busy machine.
const LONGEST: Duration = Duration::from_secs(60);

fn request(more: Value) -> Value {
    chat(MODEL, "Go.", more)
}

fn format_of(schema: &Value) -> Value {
    json!({"type": "json_schema",
        "json_schema": {"name": "answer", "strict": true, "schema": schema}})
}

#[test]
fn hostile_schemas_cost_their_request_alone() {
    // Shown to the model, some would be too long for its context before they are compiled.
    let daemon = Setup::new()
        .demo_model(MODEL)
        .settings("constraints.show-format = false\nconstraints.schema-limit-bytes = 4000000\n")
        .start();
    let deep =
        |depth: u32| (0..depth).fold(json!({"type": "null"}), |inner, _| json!({"items": inner}));
    let many: serde_json::Map<String, Value> = (0..10_000)
        .map(|n| (format!("property{n}"), json!({"type": "integer"})))
        .collect();
    let words: Vec<String> = (0..60_000).map(|n| format!("word number {n}")).collect();
    let cycle = json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}});
    let catastrophe = json!({"type": "string", "pattern": "^((a{1,500}){1,500}){1,500}$"});
    let links = |count: usize| -> Value {
        let mut chain: serde_json::Map<String, Value> = (0..count)
            .map(|n| {
                (
                    format!("a{n}"),
                    json!({"$ref": format!("#/$defs/a{}", n + 1)}),
                )
            })
            .collect();
        chain.insert(format!("a{count}"), json!({"type": "null"}));
        json!({"$ref": "#/$defs/a0", "$defs": chain})
    };
    let checked = |format: Value, field: &str| {
        let more = json!({"temperature": 1, "max_tokens": 4, field: format});
        let asked_at = Instant::now();
        let answer = daemon.post("/v1/chat/completions", &request(more));
        let (took, code) = (asked_at.elapsed(), answer.json()["error"]["code"].clone());
        println!("{field}: {} {code} after {took:?}", answer.status);
        let fails = [
            "unsupported_schema",
            "schema_too_complex",
            "format_not_kept",
            "request_too_large",
            "invalid_json",
            // Deeper than JSON is read.
            "invalid_type",
        ];
        let is_refused = fails.iter().any(|fail| code == *fail);
        assert!(answer.status == 200 || is_refused, "{}", answer.body);
        assert!(took < LONGEST, "{took:?}");
    };
    for schema in [
        links(100),
        links(400),
        links(3000),
        deep(20),
        deep(100),
        deep(1000),
        json!({"type": "object", "properties": many}),
        json!({"enum": words}),
        cycle,
        catastrophe,
        json!({"type": "array", "minItems": 100_000_000, "items": {"type": "string"}}),
    ] {
        checked(format_of(&schema), "response_format");
    }
    let chain = |count: usize| -> String {
        let links = (0..count).map(|n| format!("r{n} ::= \"a\" r{} | \"b\" r{}\n", n + 1, n + 1));
        format!(
            "root ::= r0\n{}r{count} ::= \"c\"",
            links.collect::<String>()
        )
    };
    let doubled = (0..40)
        .map(|n| format!("r{n} ::= r{0} r{0}\n", n + 1))
        .collect::<String>();
    let branches = (0..3000)
        .map(|n| format!("\"word {n}\" root | "))
        .collect::<String>();
    for (field, text) in [
        ("guided_regex", "((a{1,500}){1,500}){1,500}".to_owned()),
        ("guided_regex", "(a*)*b|(a+)+c|(.*.*.*)*d".to_owned()),
        (
            "guided_regex",
            format!("({}a)", "(a|b|".repeat(5000) + &")".repeat(5000)),
        ),
        (
            "guided_regex",
            format!("[^a]{{1,400}}{}", "(.|aa)+b".repeat(200)),
        ),
        ("grammar", "root ::= root".to_owned()),
        ("grammar", "root ::= a\na ::= b\nb ::= a a | b".to_owned()),
        (
            "grammar",
            "root ::= ((([a-z]{0,2000}){0,2000}){0,2000} root){0,2000}".to_owned(),
        ),
        (
            "grammar",
            format!("root ::= {}\"a\"{}", "(".repeat(1000), ")".repeat(1000)),
        ),
        ("grammar", format!("root ::= {branches}\"x\"")),
        (
            "grammar",
            format!("root ::= r0\n{doubled}r40 ::= \"a\" | root"),
        ),
        ("grammar", chain(50)),
        ("grammar", chain(20_000)),
        ("grammar", "root ::= \"a\" ".repeat(20_000)),
        (
            "grammar",
            format!("root ::= \"{}\" root?", "a".repeat(200_000)),
        ),
        (
            "guided_grammar",
            format!("start: {}\"a\"{}", "(".repeat(1000), ")".repeat(1000)),
        ),
        (
            "guided_grammar",
            "start: a\na: a a a | a | \"b\"".to_owned(),
        ),
    ] {
        checked(json!(text), field);
    }
    let more = json!({"temperature": 0, "max_tokens": 4});
    let answer = daemon.post("/v1/chat/completions", &request(more));
    assert_eq!(answer.status, 200, "{}", answer.body);
}
