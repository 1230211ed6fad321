mod calls;

use super::*;
use crate::constraint::{
    CallableTool, CallsWanted, HowMany, Limits, Need, Vocabulary, Wanted, WhiteSpace, compile,
};
use crate::reply::{ReplyFamily, ReplyFormat};
use proptest::prelude::*;
use serde_json::{Value, json};

const LIMITS: Limits = Limits {
    white_space: WhiteSpace::One,
    schema_bytes: 1 << 20,
    schema_depth: 64,
    grammar_symbols: 200_000,
    lexer_states: 10_000,
    lexer_steps: 200_000,
    kept_grammars: 0,
};

/// One token a byte, then a few words, one that opens and one that closes a thought, and the end.
fn tokens() -> Arc<ModelTokens> {
    let mut vocabulary = Vocabulary::default();
    for byte in 0..=255_u8 {
        vocabulary.push(Some(&[byte]), byte == 0xff);
    }
    for word in [
        "\"name\"", "true", "{\"", "\": ", "  ", ">{\"", "n>{", ">no",
    ] {
        vocabulary.push(Some(word.as_bytes()), false);
    }
    vocabulary.push(Some(b"<think>"), true);
    vocabulary.push(Some(b"</think>"), true);
    vocabulary.push(Some(b"<end>"), true);
    vocabulary.ends = vec![END];
    assert!(vocabulary.is_whole());
    Arc::new(ModelTokens::new(vocabulary).expect("they can be used"))
}

const OPENS: i32 = 264;
const CLOSES: i32 = 265;
const END: i32 = 266;

fn schema(schema: Value) -> Wanted {
    Wanted::JsonSchema {
        schema: schema.to_string(),
        strict: true,
    }
}

fn follower(wanted: &Wanted, thought: Option<Thought>, begun: &[u8]) -> Follower {
    let begun = std::str::from_utf8(begun).expect("it is text");
    Follower::new(&constraint(wanted, thought), tokens(), Begun::Text(begun)).expect("it compiles")
}

fn constraint(wanted: &Wanted, thought: Option<Thought>) -> Constraint {
    let compiled = compile(wanted, &LIMITS).expect("it can be kept");
    Constraint {
        grammar: compiled.grammar.into(),
        limits: LIMITS,
        how: compiled.how,
        thought,
        need: Need::Needed,
    }
}

/// What may come behind `drawn`; none: the answer is complete.
fn allowed(follower: &mut Follower, drawn: &[i32]) -> Option<Vec<i32>> {
    let mut row = vec![0.0; 300];
    match follower.row(drawn, &mut row).expect("it is followed") {
        Next::End => None,
        Next::Token => {
            let ids = (0..).zip(row).filter(|(_, logit)| *logit == 0.0);
            Some(ids.map(|(id, _)| id).collect())
        }
    }
}

/// The tokens of a text, one a byte, that are allowed one after the other; none: one is not.
fn says(follower: &mut Follower, drawn: &mut Vec<i32>, text: &str) -> bool {
    text.bytes().map(i32::from).all(|id| {
        let may = allowed(follower, drawn).is_some_and(|ids| ids.contains(&id));
        drawn.push(id);
        may
    })
}

#[test]
fn an_answer_is_kept_to_its_schema_and_ends_when_it_is_complete() {
    let wanted = schema(json!({
        "type": "object", "properties": {"name": {"type": "boolean"}}, "required": ["name"],
        "additionalProperties": false,
    }));
    let mut follower = follower(&wanted, None, b"");
    let mut drawn = Vec::new();
    let begins = allowed(&mut follower, &drawn).expect("it has not ended");
    assert_eq!(begins, [i32::from(b'{'), 258], "no end, no other word");
    assert!(says(&mut follower, &mut drawn, "{\"name\": "));
    let value = allowed(&mut follower, &drawn).expect("it has not ended");
    assert!(value.contains(&257) && !value.contains(&END) && !value.contains(&i32::from(b' ')));
    drawn.push(257);
    assert!(says(&mut follower, &mut drawn, "}"));
    assert_eq!(allowed(&mut follower, &drawn), None);
}

#[test]
fn a_number_may_go_on_or_end() {
    let mut follower = follower(&schema(json!({"type": "integer"})), None, b"");
    let mut drawn = Vec::new();
    assert!(
        !allowed(&mut follower, &drawn)
            .expect("goes on")
            .contains(&END)
    );
    assert!(says(&mut follower, &mut drawn, "12"));
    let next = allowed(&mut follower, &drawn).expect("it may go on");
    assert!(next.contains(&END) && next.contains(&i32::from(b'3')));
    drawn.push(END);
    assert_eq!(allowed(&mut follower, &drawn), None);
}

#[test]
fn an_answer_goes_on_where_another_worker_has_left_it() {
    let wanted = schema(json!({"enum": ["alpha", "beta"]}));
    let mut follower = follower(&wanted, None, b"\"al");
    let mut drawn = Vec::new();
    assert_eq!(
        allowed(&mut follower, &drawn),
        Some(vec![i32::from(b'p')]),
        "`beta` is out of reach"
    );
    assert!(says(&mut follower, &mut drawn, "pha\""));
    assert_eq!(allowed(&mut follower, &drawn), None);
}

fn thought(is_open: bool) -> Option<Thought> {
    Some(Thought {
        open: "<think>".to_owned(),
        open_id: None,
        close: "</think>".to_owned(),
        close_id: None,
        is_open,
    })
}

#[test]
fn a_thought_is_free_and_the_answer_behind_it_is_not() {
    let wanted = schema(json!({"type": "boolean"}));
    let mut open = follower(&wanted, thought(true), b"");
    let mut drawn = Vec::new();
    assert!(says(&mut open, &mut drawn, "so { it is </"));
    let free = allowed(&mut open, &drawn).expect("goes on");
    assert!(free.contains(&0) && !free.contains(&END));
    assert!(says(&mut open, &mut drawn, "thi"));
    let free = allowed(&mut open, &drawn).expect("goes on");
    assert!(free.contains(&i32::from(b'n')));
    assert!(says(&mut open, &mut drawn, "nk"));
    let free = allowed(&mut open, &drawn).expect("goes on");
    assert!(
        free.contains(&i32::from(b'>')) && !free.contains(&261),
        "`>{{\"` goes past its end"
    );
    drawn.push(i32::from(b'>'));
    let answer = allowed(&mut open, &drawn).expect("goes on");
    assert_eq!(answer, [i32::from(b'f'), i32::from(b't'), 257]);

    let mut token = follower(&wanted, thought(true), b"");
    assert!(
        allowed(&mut token, &[65, CLOSES])
            .expect("goes on")
            .contains(&257)
    );
    let mut resumed = follower(&wanted, thought(true), b"well</think>\n\ntr");
    assert_eq!(allowed(&mut resumed, &[]), Some(vec![i32::from(b'u')]));
    // White space that the text may begin with is its own.
    let begins_so = Wanted::Regex("  y".to_owned());
    for begun in ["well</think>  ", "well</think>\n  "] {
        let mut resumed = follower(&begins_so, thought(true), begun.as_bytes());
        let next = allowed(&mut resumed, &[]);
        assert_eq!(next, Some(vec![i32::from(b'y')]), "{begun:?}");
    }
}

#[test]
fn a_thought_may_be_opened_or_left_out() {
    let wanted = schema(json!({"type": "boolean"}));
    let mut opens = follower(&wanted, thought(false), b"");
    let begins = allowed(&mut opens, &[]).expect("goes on");
    assert_eq!(
        begins,
        [
            i32::from(b'<'),
            i32::from(b'f'),
            i32::from(b't'),
            257,
            OPENS
        ]
    );
    assert!(allowed(&mut opens, &[OPENS]).expect("goes on").len() > 100);
    let mut spelled = follower(&wanted, thought(false), b"");
    assert_eq!(
        allowed(&mut spelled, &[i32::from(b'<')]),
        Some(vec![i32::from(b't')])
    );
    let mut left_out = follower(&wanted, thought(false), b"");
    assert_eq!(allowed(&mut left_out, &[257]), None);
}

#[test]
fn a_marker_that_is_a_token_is_nothing_else() {
    let wanted = schema(json!({"type": "boolean"}));
    let by_ids = |is_open| {
        thought(is_open).map(|thought| Thought {
            open_id: Some(OPENS),
            close_id: Some(CLOSES),
            ..thought
        })
    };
    let mut begins = follower(&wanted, by_ids(false), b"");
    let may = allowed(&mut begins, &[]).expect("goes on");
    assert_eq!(may, [i32::from(b'f'), i32::from(b't'), 257, OPENS]);
    let mut open = follower(&wanted, by_ids(true), b"");
    let mut drawn = Vec::new();
    assert!(says(&mut open, &mut drawn, "so </think>"));
    let free = allowed(&mut open, &drawn).expect("goes on");
    assert!(
        free.contains(&i32::from(b'{')),
        "its text alone closes no thought"
    );
    assert!(free.contains(&CLOSES) && !free.contains(&OPENS) && !free.contains(&END));
    drawn.push(CLOSES);
    assert!(allowed(&mut open, &drawn).expect("goes on").contains(&257));
}

#[test]
fn an_answer_may_begin_like_the_opener_of_a_thought() {
    let wanted = Wanted::Calls {
        json: calls(&ReplyFamily::Hermes.format(), HowMany::One),
    };
    let mut before = follower(&wanted, thought(false), b"");
    let mut drawn = Vec::new();
    assert!(says(&mut before, &mut drawn, "<t"));
    let both = allowed(&mut before, &drawn).expect("goes on");
    assert_eq!(both, [i32::from(b'h'), i32::from(b'o')]);
    assert!(says(&mut before, &mut drawn, "ool_call>\n{\"name\": \"f\""));
    let mut before = follower(&wanted, thought(false), b"");
    let mut drawn = Vec::new();
    assert!(says(
        &mut before,
        &mut drawn,
        "<think>So <tool_call> it is.</think>\n<tool_call>"
    ));
    let begins = allowed(&mut before, &drawn).expect("goes on");
    assert!(begins.contains(&i32::from(b'{')) && !begins.contains(&i32::from(b'<')));
}

/// Calls of `f`, with a number, and of `g`, with nothing.
fn calls(format: &ReplyFormat, how_many: HowMany) -> String {
    let tool = |name: &str, parameters: Value| CallableTool {
        name: name.to_owned(),
        parameters: parameters.as_object().cloned(),
        strict: true,
        place: String::new(),
    };
    let one = json!({"properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let wanted = CallsWanted {
        format: format.clone(),
        tools: vec![tool("f", one), tool("g", Value::Null)],
        how_many,
        otherwise: None,
    };
    serde_json::to_string(&wanted).expect("JSON")
}

#[test]
fn no_object_has_a_key_twice() {
    let mut follower = follower(&Wanted::JsonObject, None, b"");
    let mut drawn = Vec::new();
    assert!(says(
        &mut follower,
        &mut drawn,
        "{\"name\": {\"name\": 1}, \"nam"
    ));
    assert!(says(&mut follower, &mut drawn, "e"));
    let next = allowed(&mut follower, &drawn).expect("goes on");
    assert!(!next.contains(&i32::from(b'"')) && next.contains(&i32::from(b's')));
    assert!(says(&mut follower, &mut drawn, "s\": 2, "));
    let next = allowed(&mut follower, &drawn).expect("goes on");
    assert!(
        next.contains(&i32::from(b'"')) && !next.contains(&256),
        "`\"name\"` is there"
    );
}

#[test]
fn white_space_does_not_run_away() {
    let mut follower = follower(&Wanted::JsonObject, None, b"");
    let mut drawn = Vec::new();
    assert!(says(&mut follower, &mut drawn, "{ "));
    let next = allowed(&mut follower, &drawn).expect("goes on");
    let white = [b' ', b'\n', b'\t', b'\r'].map(i32::from);
    assert!(!white.iter().any(|id| next.contains(id)));
    assert!(!next.contains(&260), "two spaces");
}

#[test]
fn a_limit_in_the_middle_of_an_answer_is_an_error_of_it_alone() {
    let wanted = schema(json!({"type": "string", "pattern": "^(a|b)*a(a|b){12}$"}));
    let mut small = constraint(&wanted, None);
    small.limits.lexer_states = 60;
    let mut follower = Follower::new(&small, tokens(), Begun::Nothing).expect("it compiles");
    let mut drawn = vec![i32::from(b'"')];
    let mut row = vec![0.0; 300];
    let mut random: u32 = 1;
    let error = (0..600).find_map(|_| {
        let error = follower.row(&drawn, &mut row).err();
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        drawn.push(i32::from(b'a') + (random >> 31) as i32);
        error
    });
    let error = error.expect("there are more states than it may have");
    assert!(error.to_string().contains("states"), "{error:#}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is drawn of what is allowed, the answer is one of the schema when it is complete.
    #[test]
    fn what_is_allowed_is_valid(choices in prop::collection::vec(any::<u16>(), 400)) {
        let wanted = schema(json!({
            "type": "object",
            "properties": {
                "kind": {"enum": ["a", 1, null]},
                "list": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
            },
            "required": ["kind", "list"],
            "additionalProperties": false,
        }));
        let mut follower = follower(&wanted, None, b"");
        let (tokens, mut drawn, mut text) = (tokens(), Vec::new(), Vec::new());
        for choice in choices {
            let Some(next) = allowed(&mut follower, &drawn) else {
                break;
            };
            prop_assert!(!next.is_empty(), "there is always a way on");
            let id = next[usize::from(choice) % next.len()];
            drawn.push(id);
            text.extend_from_slice(tokens.piece(id));
        }
        if allowed(&mut follower, &drawn).is_none() {
            let answer: Value = serde_json::from_slice(&text).expect("it is JSON");
            let kind = &answer["kind"];
            prop_assert!(*kind == json!("a") || *kind == json!(1) || kind.is_null());
            let list = answer["list"].as_array().expect("a list");
            // Of any size, so that not all of them are of 64 bits.
            prop_assert!(list.len() <= 3 && list.iter().all(Value::is_number));
            prop_assert!(!text.contains(&b'.') && !text.contains(&b'e'));
        }
    }
}

#[test]
fn the_last_token_of_a_budget_may_complete_the_answer() {
    let wanted = schema(json!({"enum": ["a", "ab"]}));
    let quoted = |text: &str| -> Vec<i32> { text.bytes().map(i32::from).collect() };
    let mut shorter = follower(&wanted, None, b"");
    let drawn = quoted("\"a");
    for at in 0..=drawn.len() {
        assert!(allowed(&mut shorter, &drawn[..at]).is_some());
        assert!(!shorter.may_end());
    }
    let quote = i32::from(b'"');
    assert!(shorter.is_complete_behind(quote).expect("it is followed"));
    let mut number = follower(&schema(json!({"type": "integer"})), None, b"");
    assert!(allowed(&mut number, &[]).is_some() && !number.may_end());
    let seven = i32::from(b'7');
    assert!(!number.is_complete_behind(seven).expect("it is followed"));
    assert!(number.may_end(), "more digits may come");
    let next = allowed(&mut number, &quoted("7"));
    assert_eq!(next.map(|ids| ids.contains(&END)), Some(true));
}
