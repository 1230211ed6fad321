//! In each form in which models write calls, whatever is drawn of what a grammar of calls allows is a call
//! that reads as one, and whose arguments are of its function's schema by another judge than the engine.

use std::sync::Arc;

use crate::calls_support::{Markers, Random, drawn, read, words};
use crate::json_judge::fault;
use rkllmd::constraint::{
    Begun, CallableTool, CallsWanted, Constraint, Follower, HowMany, Limits, Need, Wanted,
    WhiteSpace, compile,
};
use rkllmd::reply::{ReplyFamily, ReplyFormat};
use serde_json::{Value, json};

const LIMITS: Limits = Limits {
    white_space: WhiteSpace::One,
    schema_bytes: 1 << 20,
    schema_depth: 32,
    grammar_symbols: 200_000,
    lexer_states: 20_000,
    lexer_steps: 400_000,
    kept_grammars: 0,
};

/// Answers of each form.
const SEEDS: u64 = 4;

/// Functions as programs have them; texts and lists are bounded, so that a random answer ends.
fn tools() -> Vec<(&'static str, Value)> {
    vec![
        (
            "get_weather",
            json!({"type": "object", "required": ["place", "unit"], "properties": {
                "place": {"type": "string", "minLength": 1, "maxLength": 6},
                "unit": {"enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
            }}),
        ),
        ("now", json!({"type": "object", "properties": {}})),
        (
            "set",
            json!({"type": "object", "required": ["on", "levels"], "properties": {
                "on": {"type": "boolean"},
                "levels": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9},
                    "minItems": 1, "maxItems": 3},
                "mode": {"$ref": "#/$defs/mode"},
                "note": {"anyOf": [{"type": "string", "maxLength": 4}, {"type": "null"}]},
            }, "$defs": {"mode": {"type": "object", "required": ["name"], "properties": {
                "name": {"type": "string", "maxLength": 3}, "off": {"const": null}}}}}),
        ),
    ]
}

fn callable(tools: &[(&str, Value)]) -> Vec<CallableTool> {
    let tools = tools.iter().enumerate();
    tools
        .map(|(index, (name, parameters))| CallableTool {
            name: (*name).to_owned(),
            parameters: parameters.as_object().cloned(),
            strict: true,
            place: format!("/tools/{index}/function/parameters"),
        })
        .collect()
}

fn constraint(format: &ReplyFormat, tools: Vec<CallableTool>, how_many: HowMany) -> Constraint {
    let wanted = CallsWanted {
        format: format.clone(),
        tools,
        how_many,
        otherwise: None,
    };
    let wanted = Wanted::Calls {
        json: serde_json::to_string(&wanted).expect("JSON"),
    };
    let compiled = compile(&wanted, &LIMITS).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(compiled.not_kept, [""; 0]);
    Constraint {
        grammar: compiled.grammar.into(),
        limits: LIMITS,
        how: compiled.how,
        thought: None,
        need: Need::Needed,
    }
}

fn forms() -> Vec<(ReplyFamily, Markers)> {
    let all = ReplyFamily::ALL.into_iter();
    all.flat_map(|family| [(family, Markers::Text), (family, Markers::Tokens)])
        .collect()
}

#[test]
fn whatever_is_drawn_is_a_call_of_its_schema() {
    let tools = tools();
    let schema = |name: &str| {
        let mut tools = tools.iter();
        tools.find(|(of, _)| *of == name).map(|(_, schema)| schema)
    };
    let mut wrong = Vec::new();
    for (family, markers) in forms() {
        let mut format = family.format();
        let words = words(&mut format, markers);
        for how_many in [HowMany::One, HowMany::Several] {
            let constraint = constraint(&format, callable(&tools), how_many);
            let mut whole = 0;
            for seed in 0..SEEDS {
                let tokens = Arc::clone(&words.tokens);
                let mut follower =
                    Follower::new(&constraint, tokens, Begun::Nothing).expect("it compiles");
                let (drawn, is_whole) = drawn(&mut follower, &words, &mut Random(seed), 1500);
                if !is_whole {
                    continue;
                }
                whole += 1;
                let said: Vec<u8> = drawn
                    .iter()
                    .flat_map(|id| words.tokens.piece(*id))
                    .copied()
                    .collect();
                let read = read(&format, &tools, &words, &drawn);
                let is_fine = !read.calls.is_empty()
                    && (read.ended, read.text.trim()) == (read.calls.len(), "")
                    && (how_many == HowMany::Several || read.calls.len() == 1)
                    && read.calls.iter().all(|(name, arguments)| {
                        schema(name).is_some_and(|schema| fault(schema, arguments).is_none())
                    });
                if !is_fine {
                    let said = String::from_utf8_lossy(&said);
                    wrong.push(format!(
                        "{family} with {markers:?}, {how_many:?}: {said:?}\n{read:?}"
                    ));
                }
            }
            // A thought that ends with a text is longer than a random answer.
            let least = if format.harmony && markers == Markers::Text {
                1
            } else {
                SEEDS - 1
            };
            assert!(
                whole >= least,
                "{family} with {markers:?}, {how_many:?}: {whole} are whole"
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_call_that_a_model_begins_by_itself_is_kept_as_well() {
    let tools = tools();
    let mut kept = 0;
    for (family, markers) in forms() {
        let mut format = family.format();
        let words = words(&mut format, markers);
        let one = constraint(&format, callable(&tools[..1]), HowMany::One);
        let free = constraint(
            &format,
            callable(&tools[..1]),
            HowMany::AsLiked { several: true },
        );
        assert!(!free.how.opens.is_empty(), "{family}");
        let new = |constraint: &Constraint| {
            Follower::new(constraint, Arc::clone(&words.tokens), Begun::Nothing)
                .expect("it compiles")
        };
        for seed in 0..2 {
            // What a grammar of calls alone allows is said after words of another kind, of which nothing is
            // forbidden, and is allowed there as well.
            let (call, is_whole) = drawn(&mut new(&one), &words, &mut Random(seed), 1500);
            if !is_whole {
                continue;
            }
            let begins: Vec<i32> = "Well: \n".bytes().map(i32::from).collect();
            let spelled: Vec<u8> = call
                .iter()
                .flat_map(|id| words.tokens.piece(*id))
                .copied()
                .collect();
            let is_bare = spelled.trim_ascii_start().starts_with(b"{");
            let said = [if is_bare { Vec::new() } else { begins }, call].concat();
            let mut follower = new(&free);
            let mut row = vec![0.0; words.count as usize];
            let mut forbade = 0;
            for at in 0..said.len() {
                row.fill(0.0);
                follower.row(&said[..at], &mut row).expect("it is followed");
                forbade += usize::from(row.contains(&f32::NEG_INFINITY));
                assert!(
                    row[said[at] as usize] == 0.0,
                    "{family} with {markers:?}: {said:?} at {at}"
                );
            }
            row.fill(0.0);
            follower.row(&said, &mut row).expect("it is followed");
            assert!(
                !row.contains(&f32::NEG_INFINITY),
                "{family} with {markers:?}: it is whole"
            );
            assert!(
                forbade > 10,
                "{family} with {markers:?}: {forbade} of {}",
                said.len()
            );
            kept += 1;
        }
    }
    assert!(kept > 48, "{kept}");
}

#[test]
fn an_odd_schema_is_no_reason_to_refuse_the_others() {
    let odd = json!({"type": "object", "properties": {
        "a": {"type": "string"}, "b": {"not": {"pattern": "x"}}, "c": {"type": "array", "uniqueItems": true}}});
    let broken = json!({"type": "dict", "properties": {"a": {"type": "float"}}});
    let no_schema = json!({"properties": {"a": 7}});
    for (family, markers) in forms() {
        let mut format = family.format();
        words(&mut format, markers);
        let given = [
            ("ok", tools()[0].1.clone()),
            ("odd", odd.clone()),
            ("broken", broken.clone()),
            ("none", no_schema.clone()),
            ("list", json!({"type": "array", "items": {}})),
        ];
        let mut tools = callable(&given);
        let compile_these = |tools: &[CallableTool]| {
            let wanted = CallsWanted {
                format: format.clone(),
                tools: tools.to_vec(),
                how_many: HowMany::Several,
                otherwise: None,
            };
            compile(
                &Wanted::Calls {
                    json: serde_json::to_string(&wanted).expect("JSON"),
                },
                &LIMITS,
            )
        };
        let strict = compile_these(&tools).expect_err("not all of it is kept");
        assert_eq!(
            (strict.tool, strict.pointer.as_str()),
            (Some(1), "/properties/b/not"),
            "{family}"
        );
        for tool in &mut tools {
            tool.strict = false;
        }
        let lenient = compile_these(&tools).unwrap_or_else(|error| panic!("{family}: {error}"));
        let has = |place: &str| lenient.not_kept.iter().any(|of| of.starts_with(place));
        for (place, is_there) in [
            ("/tools/0/", false),
            ("/tools/1/function/parameters/properties/b/not", true),
            (
                "/tools/1/function/parameters/properties/c/uniqueItems",
                true,
            ),
            ("/tools/2/function/parameters", true),
            ("/tools/3/function/parameters", true),
            ("/tools/4/function/parameters/type", true),
        ] {
            assert_eq!(has(place), is_there, "{family}: {:?}", lenient.not_kept);
        }
    }
}
