//! Whatever tokens a model draws, and of whatever format: what its format forbids becomes no part of an answer, by
//! judges that are not the engine, and nothing panics. Formats are made at random too.

use std::collections::BTreeSet;
use std::sync::Arc;

use fastrand::Rng;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::constraint_support::LIMITS;
use crate::generated_schemas;
use crate::json_judge::fault;
use rkllmd::constraint::{
    Begun, Constraint, Follower, Limits, ModelTokens, Need, Next, Parsers, Vocabulary, Wanted,
    WhiteSpace, compile,
};

const ANSWERS: usize = 10_000;
/// Answers of each format.
const OF_EACH: usize = 50;
/// Tokens of an answer.
const MOST: usize = 240;
const LIMITS_OF_ALL: Limits = Limits {
    white_space: WhiteSpace::One,
    ..LIMITS
};
const WORDS: [&str; 14] = [
    "{\"", "\": ", ", \"", "\"}", "}}", "true", "null", "ab", "\"a\"", "\"b\":", "  ", "é", "日",
    "12",
];

/// A token for each byte, some words, and the end.
fn tokens() -> Arc<ModelTokens> {
    let mut vocabulary = Vocabulary::default();
    for byte in 0..=u8::MAX {
        vocabulary.push(Some(&[byte]), byte == 0xFF);
    }
    for word in WORDS {
        vocabulary.push(Some(word.as_bytes()), false);
    }
    let end = 256 + i32::try_from(WORDS.len()).expect("a few");
    vocabulary.push(Some(b"<end>"), true);
    vocabulary.ends.push(end);
    Arc::new(ModelTokens::new(vocabulary).expect("they can be used"))
}

/// An expression, and as a grammar.
#[derive(Clone, Debug)]
enum Expression {
    Text(&'static str),
    /// One of `a` to `c`.
    Letter,
    Sequence(Vec<Self>),
    Either(Vec<Self>),
    Times(Box<Self>, usize, usize),
}

impl Expression {
    fn any(random: &mut Rng, depth: u32) -> Self {
        let some = |random: &mut Rng| {
            let count = random.usize(1..=3);
            Vec::from_iter((0..count).map(|_| Self::any(random, depth - 1)))
        };
        match random.u8(..if depth == 0 { 3 } else { 8 }) {
            0 => Self::Letter,
            1..3 => {
                let texts = ["a", "b", "ab", "é", "日", "\"", "12", "x y"];
                Self::Text(texts[random.usize(..texts.len())])
            }
            3..5 => Self::Sequence(some(random)),
            5..7 => Self::Either(some(random)),
            _ => {
                let least = random.usize(..3);
                let most = least + random.usize(1..3);
                Self::Times(Box::new(Self::any(random, depth - 1)), least, most)
            }
        }
    }

    fn joined(parts: &[Self], between: &str, write: fn(&Self) -> String) -> String {
        let parts: Vec<String> = parts.iter().map(write).collect();
        format!("({})", parts.join(between))
    }

    fn as_regex(&self) -> String {
        match self {
            Self::Text(text) => (*text).to_owned(),
            Self::Letter => "[a-c]".to_owned(),
            Self::Sequence(parts) => Self::joined(parts, "", Self::as_regex),
            Self::Either(parts) => Self::joined(parts, "|", Self::as_regex),
            Self::Times(part, least, most) => format!("({}){{{least},{most}}}", part.as_regex()),
        }
    }

    fn as_gbnf(&self) -> String {
        match self {
            Self::Text(text) => format!("\"{}\"", text.replace('"', "\\\"")),
            Self::Letter => "[a-c]".to_owned(),
            Self::Sequence(parts) => Self::joined(parts, " ", Self::as_gbnf),
            Self::Either(parts) => Self::joined(parts, " | ", Self::as_gbnf),
            Self::Times(part, least, most) => format!("({}){{{least},{most}}}", part.as_gbnf()),
        }
    }

    /// Where in `text` what begins at one of `from` can end.
    fn ends(&self, text: &str, from: &BTreeSet<usize>) -> BTreeSet<usize> {
        let rests = from.iter().map(|&at| (at, &text[at..]));
        match self {
            Self::Text(own) => rests
                .filter(|(_, rest)| rest.starts_with(own))
                .map(|(at, _)| at + own.len())
                .collect(),
            Self::Letter => rests
                .filter(|(_, rest)| rest.starts_with(['a', 'b', 'c']))
                .map(|(at, _)| at + 1)
                .collect(),
            Self::Sequence(parts) => parts
                .iter()
                .fold(from.clone(), |from, part| part.ends(text, &from)),
            Self::Either(parts) => parts
                .iter()
                .flat_map(|part| part.ends(text, from))
                .collect(),
            Self::Times(part, least, most) => {
                let mut from = from.clone();
                let mut ends = BTreeSet::new();
                for times in 0..=*most {
                    if times >= *least {
                        ends.extend(&from);
                    }
                    from = part.ends(text, &from);
                }
                ends
            }
        }
    }

    fn is(&self, text: &str) -> bool {
        self.ends(text, &BTreeSet::from([0])).contains(&text.len())
    }
}

#[derive(Debug)]
enum Judge {
    Schema(Value),
    Expression(Expression),
}

impl Judge {
    fn fault(&self, answer: &str) -> Option<String> {
        match self {
            // JSON has no largest number; the judge has.
            Self::Schema(schema) => fault(schema, answer).filter(|fault| {
                let is_json = serde_json::from_str::<IgnoredAny>(answer).is_ok();
                !(is_json && fault.starts_with("number out of range"))
            }),
            Self::Expression(expression) => {
                (!expression.is(answer)).then(|| "it is not of the expression".to_owned())
            }
        }
    }
}

fn format(random: &mut Rng) -> (Wanted, Judge) {
    let schema = |schema: Value| {
        let wanted = Wanted::JsonSchema {
            schema: schema.to_string(),
            strict: true,
        };
        (wanted, Judge::Schema(schema))
    };
    match random.u8(..10) {
        0..4 => schema(generated_schemas::schema(random, 120)),
        // Keys that are there already are likely.
        4 => schema(
            json!({"type": "object", "propertyNames": {"pattern": "^[ab]{1,2}$"},
            "additionalProperties": {"type": ["boolean", "null"]}, "maxProperties": 4}),
        ),
        5..7 => {
            let expression = Expression::any(random, 4);
            let wanted = Wanted::Regex(expression.as_regex());
            (wanted, Judge::Expression(expression))
        }
        7..9 => {
            let expression = Expression::any(random, 4);
            let wanted = Wanted::Gbnf(format!("root ::= {}\n", expression.as_gbnf()));
            (wanted, Judge::Expression(expression))
        }
        _ => (Wanted::JsonObject, Judge::Schema(json!({"type": "object"}))),
    }
}

#[derive(Debug)]
enum Drawn {
    Whole(String),
    Cut,
    /// The answer met a limit, or there was no way on.
    Failed,
}

/// What becomes of an answer of a model that says anything.
fn draw(follower: &mut Follower, tokens: &ModelTokens, random: &mut Rng) -> Drawn {
    let (count, end) = (tokens.count(), tokens.ends()[0]);
    let (mut drawn, mut row) = (Vec::new(), vec![0.0; count]);
    while drawn.len() < MOST {
        row.fill(0.0);
        match follower.row(&drawn, &mut row) {
            Ok(Next::Token) => {}
            Err(_) => return Drawn::Failed,
            Ok(Next::End) => {
                let said = drawn.iter().filter(|id| **id != end);
                let bytes = said.flat_map(|id| tokens.piece(*id)).copied().collect();
                return Drawn::Whole(String::from_utf8(bytes).expect("whole characters"));
            }
        }
        let allowed: Vec<i32> = (0..)
            .zip(&row)
            .filter(|(_, logit)| **logit == 0.0)
            .map(|(id, _)| id)
            .collect();
        if allowed.is_empty() {
            return Drawn::Failed;
        }
        let anything = random.usize(..count);
        let id = if row[anything] == 0.0 {
            i32::try_from(anything).expect("an id")
        } else if allowed.contains(&end) && random.u8(..3) == 0 {
            end
        } else {
            allowed[random.usize(..allowed.len())]
        };
        drawn.push(id);
    }
    Drawn::Cut
}

/// Tokens that nothing was asked about: whatever becomes of them, it is no panic.
fn follow_anything(follower: &mut Follower, random: &mut Rng, count: usize) {
    let length = random.usize(1..20);
    let ids = (0..length).map(|_| random.usize(..count));
    let ids: Vec<i32> = ids.map(|id| i32::try_from(id).expect("an id")).collect();
    let mut row = vec![0.0; count];
    for upto in 0..=ids.len() {
        if follower.row(&ids[..upto], &mut row).is_err() {
            return;
        }
    }
}

#[test]
fn nothing_that_is_forbidden_becomes_part_of_an_answer() {
    let given = std::env::var("FUZZ_SEED").ok();
    let seed = given.map_or_else(
        || fastrand::u64(..),
        |seed| seed.parse().expect("FUZZ_SEED is a number"),
    );
    println!("FUZZ_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let tokens = tokens();
    let parsers = Parsers::new(Arc::clone(&tokens));
    let (mut formats, mut refused) = (0, 0);
    let (mut answers, mut whole, mut failed) = (0, 0, 0);
    while answers < ANSWERS {
        let (wanted, judge) = format(&mut random);
        formats += 1;
        let compiled = match compile(&wanted, &LIMITS_OF_ALL) {
            Ok(compiled) => compiled,
            Err(reason) => {
                println!("not kept: {judge:?}: {reason}");
                refused += 1;
                assert!(refused * 4 <= formats + 20, "{refused} of {formats}");
                continue;
            }
        };
        let constraint = Constraint {
            grammar: compiled.grammar.into(),
            limits: LIMITS_OF_ALL,
            how: compiled.how,
            thought: None,
            need: Need::Needed,
        };
        let follower = || {
            let follower = Follower::with(&constraint, &parsers, Begun::Nothing);
            follower.unwrap_or_else(|error| panic!("{wanted:?} was compiled before: {error:#}"))
        };
        for _ in 0..OF_EACH {
            answers += 1;
            follow_anything(&mut follower(), &mut random, tokens.count());
            match draw(&mut follower(), &tokens, &mut random) {
                Drawn::Whole(answer) => {
                    whole += 1;
                    let fault = judge.fault(&answer);
                    assert_eq!(fault, None, "{answer:?} is no answer of {wanted:?}");
                }
                Drawn::Cut => {}
                Drawn::Failed => failed += 1,
            }
        }
    }
    println!(
        "{formats} formats, {refused} of them refused; {whole} answers whole, {failed} failed"
    );
    assert!(whole * 2 >= answers, "{whole} of {answers} are whole");
    // Every fifth or so of the formats whose keys are few, which are a tenth: a key was begun that is there already.
    assert!(failed * 20 <= answers, "{failed} of {answers} failed");
}
