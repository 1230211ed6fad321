//! Where an answer may call functions or is to be a text of an expression, a choice or a grammar, whatever is drawn is
//! the one or the other, and they are never taken for each other.

use std::sync::Arc;

use crate::calls_support::{Markers, Random, Words, drawn, read_of, words};
use crate::formats_beside_calls::{
    LIMITS, beside, can_say, can_say_tokens, constraint, forms, parameters,
};
use crate::json_judge::fault;
use rkllmd::constraint::{
    Begun, CallableTool, CallsWanted, Constraint, Follower, HowMany, Next, Thought, Wanted, compile,
};
use rkllmd::reply::{
    CallBody, Calls, CallsAt, JsonKeys, Marker, Reasoning, ReplyFamily, ReplyFormat,
};
use serde_json::{Value, json};

/// Answers of each form, for each text.
const SEEDS: u64 = 4;

fn regex(pattern: &str) -> Wanted {
    Wanted::Regex(pattern.to_owned())
}

fn choice(options: &[&str]) -> Wanted {
    Wanted::Choice(options.iter().map(|option| (*option).to_owned()).collect())
}

fn gbnf(text: &str) -> Wanted {
    Wanted::Gbnf(text.to_owned())
}

fn lark(text: &str) -> Wanted {
    Wanted::Lark(text.to_owned())
}

fn set() -> [(&'static str, Value); 1] {
    [("set", parameters())]
}

const OPTIONS: [&str; 4] = ["red", "<b>", " a \"b\"", "é"];

fn is_count(text: &str) -> bool {
    let count = text.strip_prefix("yes").or_else(|| text.strip_prefix("no"));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    count.is_some_and(|count| (1..=3).contains(&count.len()) && is_digits(count))
}

fn is_option(text: &str) -> bool {
    OPTIONS.contains(&text)
}

fn is_indented(text: &str) -> bool {
    let letter = text.trim_start_matches(' ');
    text.len() - letter.len() <= 3
        && matches!(letter.as_bytes(), [letter] if letter.is_ascii_lowercase())
}

fn is_letters(text: &str) -> bool {
    let (letters, digit) = text.split_once('-').unwrap_or((text, "0"));
    let is_letter = |byte: u8| (b'a'..=b'c').contains(&byte);
    !letters.is_empty()
        && letters.bytes().all(is_letter)
        && matches!(digit.as_bytes(), [digit] if digit.is_ascii_digit())
}

fn is_words(text: &str) -> bool {
    let is_of = |byte: u8| byte.is_ascii_lowercase() || byte == b' ';
    !text.trim().is_empty() && text.bytes().all(is_of)
}

/// Whether a text is of what is wanted.
type IsOf = fn(&str) -> bool;

fn texts() -> [(Wanted, IsOf); 5] {
    [
        (regex(" {0,3}[a-z]"), is_indented),
        (regex("^(yes|no)[0-9]{1,3}$"), is_count),
        (choice(&OPTIONS), is_option),
        (gbnf("root ::= [a-c]+ (\"-\" [0-9])?"), is_letters),
        (
            lark("start: WORD+\nWORD: /[a-z]{1,3}/\n%ignore / /\n"),
            is_words,
        ),
    ]
}

#[test]
fn whatever_is_drawn_is_a_call_or_one_of_the_texts() {
    let (mut called, mut answered) = (0, 0);
    for (family, markers) in forms() {
        let mut format = family.format();
        let words = words(&mut format, markers);
        for (wanted, is_of) in texts() {
            let compiled = beside(&format, &set(), wanted.clone());
            let compiled = compiled.unwrap_or_else(|error| panic!("{family} {wanted:?}: {error}"));
            assert_eq!(compiled.not_kept, [""; 0]);
            let constraint = constraint(compiled);
            for seed in 0..SEEDS {
                let tokens = Arc::clone(&words.tokens);
                let follower = Follower::new(&constraint, tokens, Begun::Nothing);
                let mut follower = follower.expect("it compiles");
                let (drawn, is_whole) = drawn(&mut follower, &words, &mut Random(seed), 1500);
                if !is_whole {
                    continue;
                }
                let read = read_of(&format, &set(), &words, &drawn, CallsAt::FirstCharacter);
                let is_fine = match read.calls.is_empty() {
                    true => is_of(&read.text),
                    false => {
                        let mut calls = read.calls.iter();
                        read.text.trim().is_empty()
                            && calls.all(|(_, given)| fault(&parameters(), given).is_none())
                    }
                };
                assert!(is_fine, "{family} with {markers:?}, {wanted:?}: {read:?}");
                match read.calls.is_empty() {
                    true => answered += 1,
                    false => called += 1,
                }
            }
        }
    }
    assert!(called > 20 && answered > 20, "{called} and {answered}");
}

#[test]
fn a_text_can_be_said_in_every_form_and_no_other() {
    let cases: [(Wanted, &[&str], &[&str]); 5] = [
        (
            regex("(yes|no)!?"),
            &["yes", "no!"],
            &["y", "maybe", " yes"],
        ),
        (
            choice(&["red", "<b>", " x"]),
            &["red", "<b>", " x"],
            &["re", "<", "x"],
        ),
        (
            gbnf("root ::= \"a\"+ [0-9]"),
            &["a1", "aaa2"],
            &["a", "1", "a12"],
        ),
        (
            lark("start: \"a\" \"b\"\n%ignore / /"),
            &["ab", "a b"],
            &["a", "abc"],
        ),
        (regex("(ab)*"), &["", "abab"], &["a", "b"]),
    ];
    for (family, markers) in forms() {
        if markers == Markers::Tokens && family != ReplyFamily::Hermes {
            continue;
        }
        let mut format = family.format();
        let words = words(&mut format, markers);
        for (wanted, said, never) in &cases {
            let compiled = beside(&format, &set(), wanted.clone()).expect("it compiles");
            let constraint = constraint(compiled);
            for (texts, is_said) in [(said, true), (never, false)] {
                for text in *texts {
                    assert_eq!(
                        can_say(&constraint, &words, text),
                        is_said,
                        "{family} with {markers:?}, {wanted:?}: {text:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_text_that_may_begin_as_a_call_does_is_refused_where_markers_are_texts() {
    let wanted = || {
        [
            regex(".*"),
            regex("\\s*<tool_call>.*"),
            choice(&["no", "<tool_call>"]),
            gbnf("root ::= ws [^x]+\nws ::= [ \\n]*"),
            lark("start: A\nA: /[<>_a-z]+/"),
        ]
    };
    for (markers, is_refused) in [(Markers::Text, true), (Markers::Tokens, false)] {
        let mut format = ReplyFamily::Hermes.format();
        words(&mut format, markers);
        for wanted in wanted() {
            match beside(&format, &set(), wanted.clone()) {
                Ok(_) => assert!(!is_refused, "{wanted:?}"),
                Err(error) => {
                    assert!(is_refused, "{wanted:?}: {error}");
                    assert!(
                        error.reason.contains("`<tool_call>`"),
                        "{wanted:?}: {error}"
                    );
                    assert_eq!((error.tool, &*error.pointer), (None, ""));
                }
            }
        }
    }
}

/// Whether an answer may begin so.
fn may_begin_with(constraint: &Constraint, words: &Words, byte: u8) -> bool {
    let tokens = Arc::clone(&words.tokens);
    let follower = Follower::new(constraint, tokens, Begun::Nothing);
    let mut row = vec![0.0; words.count as usize];
    let next = follower.expect("it compiles").row(&[], &mut row);
    assert_eq!(next.expect("it is followed"), Next::Token);
    row[usize::from(byte)] == 0.0
}

#[test]
fn white_space_that_a_text_begins_with_is_its_own_and_calls_have_none() {
    for (family, markers) in forms() {
        let mut format = family.format();
        let words = words(&mut format, markers);
        let kept = |options: &[&str]| {
            let compiled = beside(&format, &set(), choice(options));
            constraint(compiled.unwrap_or_else(|error| panic!("{family}: {error}")))
        };
        let plain = kept(&["yes", "no"]);
        assert!(may_begin_with(&plain, &words, b'y'), "{family}");
        for blank in *b" \n" {
            assert!(!may_begin_with(&plain, &words, blank), "{family}");
        }
        let options = ["  yes", "\n<tool_call>{", "\r\n\t [", "no"];
        let kept = kept(&options);
        for text in options {
            assert!(can_say(&kept, &words, text), "{family}: {text:?}");
            let said: Vec<i32> = text.bytes().map(i32::from).collect();
            let read = read_of(&format, &set(), &words, &said, CallsAt::FirstCharacter);
            assert_eq!((read.calls.len(), &*read.text), (0, text), "{family}");
        }
    }
}

#[test]
fn a_text_behind_a_thought_has_all_of_its_white_space() {
    let mut format = ReplyFamily::Hermes.format();
    let [open, close] = ["<think>", "</think>"];
    format.reasoning = Some(Reasoning::new(open, Marker::text(close)));
    let words = words(&mut format, Markers::Text);
    let compiled = beside(&format, &set(), choice(&["  yes", "no"])).expect("it compiles");
    let thought = Thought {
        open: open.to_owned(),
        open_id: None,
        close: close.to_owned(),
        close_id: None,
        is_open: false,
    };
    let constraint = Constraint {
        thought: Some(thought),
        ..constraint(compiled)
    };
    // White space in the token that ends the thought is of neither.
    let mut with_line = 256..words.end;
    let with_line = with_line.find(|&id| words.tokens.piece(id) == b">\n");
    for end in [i32::from(b'>'), with_line.expect("there is such a token")] {
        for (answer, is_one) in [
            ("  yes", true),
            ("no", true),
            (" no", false),
            ("yes", false),
        ] {
            let mut said: Vec<i32> = "<think>So.</think".bytes().map(i32::from).collect();
            said.push(end);
            said.extend(answer.bytes().map(i32::from));
            let can_say = can_say_tokens(&constraint, &words, &said);
            assert_eq!(can_say, is_one, "{answer:?}");
            if is_one {
                let read = read_of(&format, &set(), &words, &said, CallsAt::FirstCharacter);
                assert_eq!(read.text, answer);
            }
        }
    }
}

#[test]
fn calls_in_json_alone_are_told_from_what_begins_with_no_bracket() {
    let mut calls = Calls::new(
        Vec::new(),
        CallBody::Json(JsonKeys::new("name", "arguments")),
    );
    calls.bare_json = true;
    let mut format = ReplyFormat {
        calls: Some(calls),
        ..ReplyFormat::default()
    };
    let words = words(&mut format, Markers::Text);
    let call = r#"{"name": "set", "arguments": {"on": true, "level": 1}}"#;
    for (options, text, is_call) in [
        (["yes", "no"], call, true),
        (["yes", "no"], "yes", false),
        // Behind white space a bracket is of the text.
        (["yes", " [1]"], " [1]", false),
    ] {
        let compiled = beside(&format, &set(), choice(&options)).expect("it compiles");
        let constraint = constraint(compiled);
        assert!(can_say(&constraint, &words, text), "{text}");
        let said: Vec<i32> = text.bytes().map(i32::from).collect();
        let read = read_of(&format, &set(), &words, &said, CallsAt::FirstCharacter);
        assert_eq!(!read.calls.is_empty(), is_call, "{read:?}");
        assert_eq!(read.text, if is_call { "" } else { text });
    }
    for wanted in [regex(r#"\{"a":[0-9]\}"#), choice(&["yes", "[1]"])] {
        let refused = beside(&format, &set(), wanted).expect_err("it begins as a call does");
        assert!(refused.reason.contains("could not be told"), "{refused}");
    }
}

#[test]
fn calls_have_no_key_twice_and_a_text_may() {
    let any = [("set", json!({"type": "object"}))];
    for markers in [Markers::Text, Markers::Tokens] {
        let mut format = ReplyFamily::Hermes.format();
        let words = words(&mut format, markers);
        let texts = [
            r#"x{"a":1,"a":2}"#,
            r#"<{"a":1,"a":1}"#,
            r#" <tool_call>{"a":1,"a":1}"#,
        ];
        let compiled = beside(&format, &any, choice(&texts));
        let constraint = constraint(compiled.expect("it compiles"));
        for text in texts {
            assert!(can_say(&constraint, &words, text), "{text}");
        }
        if markers == Markers::Text {
            let call = |arguments: &str| {
                format!(r#"<tool_call>{{"name": "set", "arguments": {arguments}}}</tool_call>"#)
            };
            let once = call(r#"{"a":1,"b":2}"#);
            assert!(can_say(&constraint, &words, &once), "{once}");
            let twice = call(r#"{"a":1,"a":2}"#);
            assert!(!can_say(&constraint, &words, &twice), "{twice}");
        }
    }
}

#[test]
fn functions_that_no_call_can_name_leave_the_text() {
    let wanted = CallsWanted {
        format: ReplyFamily::Qwen3Coder.format(),
        tools: vec![CallableTool {
            name: "no name>".to_owned(),
            parameters: None,
            strict: false,
            place: "/tools/0/function/parameters".to_owned(),
        }],
        how_many: HowMany::Several,
        otherwise: Some(choice(&["yes", "no"])),
    };
    let json = serde_json::to_string(&wanted).expect("JSON");
    let kept = compile(&Wanted::Calls { json }, &LIMITS).expect("the text is kept");
    let alone = compile(&choice(&["yes", "no"]), &LIMITS).expect("it compiles");
    assert_eq!(kept.grammar, alone.grammar);
    assert_eq!(kept.not_kept, ["/tools/0/function/parameters"]);
}
