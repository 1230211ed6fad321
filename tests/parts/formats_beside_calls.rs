//! Where an answer may call functions or is to be of a format, whatever is drawn of what is allowed is the one or
//! the other, in each form in which models write calls.

use std::sync::Arc;

use crate::calls_support::{Markers, Random, Words, drawn, read_of, words};
use crate::json_judge::fault;
use rkllmd::constraint::{
    Begun, CallableTool, CallsWanted, Compiled, Constraint, Follower, HowMany, Limits, Need, Next,
    Unenforceable, Wanted, WhiteSpace, compile,
};
use rkllmd::reply::{CallBody, Calls, CallsAt, JsonKeys, ReplyFamily, ReplyFormat};
use serde_json::{Value, json};

pub const LIMITS: Limits = Limits {
    white_space: WhiteSpace::One,
    schema_bytes: 1 << 20,
    schema_depth: 32,
    grammar_symbols: 200_000,
    lexer_states: 20_000,
    lexer_steps: 400_000,
    kept_grammars: 0,
};

/// Answers of each form.
const SEEDS: u64 = 8;

pub fn parameters() -> Value {
    json!({"type": "object", "required": ["on", "level"], "properties": {
        "on": {"type": "boolean"}, "level": {"type": "integer", "minimum": 0, "maximum": 9}}})
}

fn answer() -> Value {
    json!({"type": "object", "required": ["sky", "sure"], "properties": {
        "sky": {"enum": ["blue", "grey"]}, "sure": {"type": "integer", "minimum": 0, "maximum": 9}}})
}

fn compiled(
    format: &ReplyFormat,
    names: &[&str],
    otherwise: &Value,
    strict: bool,
) -> Result<Compiled, Unenforceable> {
    let tools: Vec<(&str, Value)> = names.iter().map(|name| (*name, parameters())).collect();
    let schema = otherwise.to_string();
    beside(format, &tools, Wanted::JsonSchema { schema, strict })
}

/// Calls of these functions, or what is wanted otherwise.
pub fn beside(
    format: &ReplyFormat,
    tools: &[(&str, Value)],
    otherwise: Wanted,
) -> Result<Compiled, Unenforceable> {
    let tools = tools.iter().enumerate();
    let tools = tools.map(|(index, (name, parameters))| CallableTool {
        name: (*name).to_owned(),
        parameters: parameters.as_object().cloned(),
        strict: true,
        place: format!("/tools/{index}/function/parameters"),
    });
    let wanted = CallsWanted {
        format: format.clone(),
        tools: tools.collect(),
        how_many: HowMany::Several,
        otherwise: Some(otherwise),
    };
    let json = serde_json::to_string(&wanted).expect("JSON");
    compile(&Wanted::Calls { json }, &LIMITS)
}

pub fn constraint(compiled: Compiled) -> Constraint {
    Constraint {
        grammar: compiled.grammar.into(),
        limits: LIMITS,
        how: compiled.how,
        thought: None,
        need: Need::Needed,
    }
}

/// By a token for each byte.
pub fn can_say(constraint: &Constraint, words: &Words, text: &str) -> bool {
    let said: Vec<i32> = text.bytes().map(i32::from).collect();
    can_say_tokens(constraint, words, &said)
}

pub fn can_say_tokens(constraint: &Constraint, words: &Words, said: &[i32]) -> bool {
    let tokens = Arc::clone(&words.tokens);
    let follower = Follower::new(constraint, tokens, Begun::Nothing);
    let mut follower = follower.expect("it compiles");
    let said = [said, &[words.end]].concat();
    said.iter().enumerate().all(|(at, &next)| {
        let mut row = vec![0.0; words.count as usize];
        match follower.row(&said[..at], &mut row).expect("followed") {
            Next::End => next == words.end,
            Next::Token => row[next as usize] == 0.0,
        }
    })
}

/// Those whose calls begin with markers, and whose content stands in none.
pub fn forms() -> Vec<(ReplyFamily, Markers)> {
    let is_plain = |format: ReplyFormat| !format.harmony && format.content.is_none();
    let all = ReplyFamily::ALL.into_iter();
    let all = all.filter(|family| is_plain(family.format()) && family.format().calls.is_some());
    all.flat_map(|family| [(family, Markers::Text), (family, Markers::Tokens)])
        .collect()
}

#[test]
fn whatever_is_drawn_is_a_call_or_of_the_format() {
    let tools = [("set", parameters())];
    let (mut called, mut answered) = (0, 0);
    for (family, markers) in forms() {
        let mut format = family.format();
        let words = words(&mut format, markers);
        let compiled = compiled(&format, &["set"], &answer(), true);
        let compiled = compiled.unwrap_or_else(|error| panic!("{family}: {error}"));
        assert_eq!(compiled.not_kept, [""; 0]);
        let constraint = constraint(compiled);
        for seed in 0..SEEDS {
            let tokens = Arc::clone(&words.tokens);
            let mut follower =
                Follower::new(&constraint, tokens, Begun::Nothing).expect("it compiles");
            let (drawn, is_whole) = drawn(&mut follower, &words, &mut Random(seed), 1500);
            if !is_whole {
                continue;
            }
            let read = read_of(&format, &tools, &words, &drawn, CallsAt::Beginning);
            let is_fine = match read.calls.is_empty() {
                true => fault(&answer(), &read.text).is_none(),
                false => {
                    let mut calls = read.calls.iter();
                    read.text.trim().is_empty()
                        && calls.all(|(_, given)| fault(&parameters(), given).is_none())
                }
            };
            assert!(is_fine, "{family} with {markers:?}: {read:?}");
            match read.calls.is_empty() {
                true => answered += 1,
                false => called += 1,
            }
        }
    }
    assert!(called > 20 && answered > 20, "{called} and {answered}");
}

#[test]
fn an_answer_of_the_format_can_be_said_in_every_form_and_no_other() {
    for (family, markers) in forms() {
        let mut format = family.format();
        let words = words(&mut format, markers);
        let compiled = compiled(&format, &["set"], &answer(), true).expect("it compiles");
        let constraint = constraint(compiled);
        for text in [
            r#"{"sky":"blue","sure":7}"#,
            "\n{\"sky\": \"grey\", \"sure\": 0}",
        ] {
            assert!(
                can_say(&constraint, &words, text),
                "{family} with {markers:?}: {text}"
            );
        }
        for text in ["Blue.", "{}", r#"{"on":true,"level":1}"#, r#"{"sky":"red"#] {
            assert!(
                !can_say(&constraint, &words, text),
                "{family} with {markers:?}: {text}"
            );
        }
    }
}

#[test]
fn no_object_of_the_format_has_a_key_twice_whatever_the_form_of_calls() {
    for family in [ReplyFamily::Hermes, ReplyFamily::Qwen3Coder] {
        let mut format = family.format();
        let words = words(&mut format, Markers::Text);
        let compiled = compiled(&format, &["set"], &json!({"type": "object"}), true);
        let constraint = constraint(compiled.expect("it compiles"));
        assert!(can_say(&constraint, &words, r#"{"a":1,"b":2}"#), "{family}");
        assert!(
            !can_say(&constraint, &words, r#"{"a":1,"a":2}"#),
            "{family}"
        );
    }
}

#[test]
fn what_of_the_format_is_not_kept_is_told_or_refused() {
    let odd =
        json!({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}});
    let place = "/properties/a/uniqueItems";
    let format = ReplyFamily::Hermes.format();
    let refused = compiled(&format, &["set"], &odd, true).expect_err("it is strict");
    assert_eq!((refused.tool, refused.pointer.as_str()), (None, place));
    let loose = compiled(&format, &["set"], &odd, false).expect("it need not be kept");
    assert_eq!(loose.not_kept, [place]);
}

#[test]
fn calls_without_a_marker_are_not_told_from_json() {
    let mut calls = Calls::new(
        Vec::new(),
        CallBody::Json(JsonKeys::new("name", "arguments")),
    );
    calls.bare_json = true;
    let bare = ReplyFormat {
        calls: Some(calls),
        ..ReplyFormat::default()
    };
    for format in [bare, ReplyFamily::GptOss.format()] {
        let refused = compiled(&format, &["set"], &answer(), true).expect_err("they look alike");
        assert!(refused.reason.contains("without a marker"), "{refused}");
    }
}

#[test]
fn functions_that_no_call_can_name_leave_the_format() {
    let format = ReplyFamily::Qwen3Coder.format();
    let wanted = CallsWanted {
        format,
        tools: vec![CallableTool {
            name: "no name>".to_owned(),
            parameters: None,
            strict: false,
            place: "/tools/0/function/parameters".to_owned(),
        }],
        how_many: HowMany::Several,
        otherwise: Some(Wanted::JsonObject),
    };
    let json = serde_json::to_string(&wanted).expect("JSON");
    let kept = compile(&Wanted::Calls { json }, &LIMITS).expect("the format is kept");
    let alone = compile(&Wanted::JsonObject, &LIMITS).expect("it compiles");
    assert_eq!(kept.grammar, alone.grammar);
    assert_eq!(kept.not_kept, ["/tools/0/function/parameters"]);
}

#[test]
fn a_marker_inside_a_text_of_the_format_is_text() {
    let schema = json!({"type": "object", "required": ["s"],
        "properties": {"s": {"type": "string"}}});
    let mut format = ReplyFamily::Qwen3Coder.format();
    let words = words(&mut format, Markers::Text);
    let compiled = compiled(&format, &["set"], &schema, true);
    let constraint = constraint(compiled.expect("it compiles"));
    let call = "<tool_call><function=set><parameter=on>true</parameter></function></tool_call>";
    let answer = json!({"s": call}).to_string();
    assert!(can_say(&constraint, &words, &answer), "{answer}");
    let said: Vec<i32> = answer.bytes().map(i32::from).collect();
    let tools = [("set", parameters())];
    let read = |at| read_of(&format, &tools, &words, &said, at);
    let kept = read(CallsAt::Beginning);
    assert_eq!((kept.calls.len(), kept.text.as_str()), (0, answer.as_str()));
    // Where text is free, that is how a model calls behind it.
    assert_eq!(read(CallsAt::Anywhere).calls.len(), 1);
}
