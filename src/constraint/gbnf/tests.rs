//! Random grammars say what a recogniser finds that reads their characters one by one.

use std::collections::HashSet;
use std::sync::Arc;

use fastrand::Rng;

use super::*;
use crate::constraint::{
    Begun, Constraint, Follower, How, Limits, ModelTokens, Need, Next, Parsers, Wanted, WhiteSpace,
    compile,
};

const LIMITS: Limits = Limits {
    white_space: WhiteSpace::None,
    schema_bytes: 1 << 20,
    schema_depth: 16,
    grammar_symbols: 100_000,
    lexer_states: 8_000,
    lexer_steps: 200_000,
    kept_grammars: 1,
};

fn can_say(grammar: &str, parsers: &Parsers, text: &str) -> bool {
    let constraint = Constraint {
        grammar: grammar.into(),
        limits: LIMITS,
        how: How::default(),
        thought: None,
        need: Need::Needed,
    };
    let follower = Follower::with(&constraint, parsers, Begun::Nothing);
    let mut follower = follower.expect("it was compiled before");
    let said: Vec<i32> = text.bytes().map(i32::from).collect();
    for at in 0..=said.len() {
        let mut row = [0.0; 256];
        match (follower.row(&said[..at], &mut row), said.get(at)) {
            (Ok(Next::End), next) => return next.is_none(),
            (Ok(Next::Token), None) => return follower.may_end(),
            (Ok(Next::Token), Some(&next)) if row[next as usize] == 0.0 => {}
            (Ok(Next::Token) | Err(_), _) => return false,
        }
    }
    false
}

/// Where each rule's texts lie in `text`, as pairs of where they begin and end.
fn places(rules: &[Node], text: &[char]) -> Vec<HashSet<(usize, usize)>> {
    let mut places = vec![HashSet::new(); rules.len()];
    loop {
        let before: usize = places.iter().map(HashSet::len).sum();
        for (rule, body) in rules.iter().enumerate() {
            for from in 0..=text.len() {
                let ends = ends(body, text, from, &places);
                places[rule].extend(ends.into_iter().map(|to| (from, to)));
            }
        }
        if before == places.iter().map(HashSet::len).sum::<usize>() {
            return places;
        }
    }
}

fn ends(
    node: &Node,
    text: &[char],
    from: usize,
    places: &[HashSet<(usize, usize)>],
) -> HashSet<usize> {
    let step = |node: &Node, froms: &HashSet<usize>| -> HashSet<usize> {
        let each = froms.iter().map(|&from| ends(node, text, from, places));
        each.flatten().collect()
    };
    match node {
        Node::One(chars) => match text.get(from) {
            Some(&char) if chars.has(char.into()) => HashSet::from([from + 1]),
            _ => HashSet::new(),
        },
        Node::Sequence(nodes) => {
            (nodes.iter()).fold(HashSet::from([from]), |froms, node| step(node, &froms))
        }
        Node::Choice(nodes) => {
            let each = nodes.iter().map(|node| ends(node, text, from, places));
            each.flatten().collect()
        }
        Node::Repeat(node, least, most) => {
            let mut froms = HashSet::from([from]);
            let mut found = HashSet::new();
            // No more than it takes: each time takes a character, or none and changes nothing.
            for time in 0..=most.unwrap_or(u32::MAX).min(least + 1 + text.len() as u32) {
                if time >= *least {
                    found.extend(froms.iter().copied());
                }
                froms = step(node, &froms);
            }
            found
        }
        Node::Rule(rule) => {
            let ends = places[*rule].iter().filter(|place| place.0 == from);
            ends.map(|place| place.1).collect()
        }
    }
}

const NAMES: [&str; 4] = ["root", "b", "c", "d"];

fn random_body(rng: &mut Rng, depth: u32) -> String {
    let leaf = |rng: &mut Rng| match rng.u32(0..9) {
        0 | 1 => "\"a\"".to_owned(),
        2 => "\"ab\"".to_owned(),
        3 => "[a-c]".to_owned(),
        4 => "[^a]".to_owned(),
        5 => "\"é\"".to_owned(),
        6 => "\"\"".to_owned(),
        _ => NAMES[rng.usize(1..NAMES.len())].to_owned(),
    };
    if depth == 0 {
        return leaf(rng);
    }
    match rng.u32(0..8) {
        0..=2 => format!(
            "{} {}",
            random_body(rng, depth - 1),
            random_body(rng, depth - 1)
        ),
        3 | 4 => format!(
            "({} | {})",
            random_body(rng, depth - 1),
            random_body(rng, depth - 1)
        ),
        5 => {
            let count = ["*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}"][rng.usize(0..7)];
            format!("({}){count}", random_body(rng, depth - 1))
        }
        _ => leaf(rng),
    }
}

const SEEDS: u64 = 100;

#[test]
fn random_grammars_say_what_they_say_character_by_character() {
    let tokens = ModelTokens::of_bytes(0).expect("they can be used");
    let parsers = Parsers::new(Arc::new(tokens));
    let (mut tried, mut said, mut refused) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut rng = Rng::with_seed(seed);
        let rules = NAMES.iter().map(|name| {
            let end = ["\"c\"", "\"\"", "[ab]"][rng.usize(0..3)];
            format!("{name} ::= {} | {end}\n", random_body(&mut rng, 3))
        });
        let grammar: String = rules.collect();
        let rules = parse::parse(&grammar, 16).expect("it is written like one");
        let wanted = Wanted::Gbnf(grammar.clone());
        let compiled = compile(&wanted, &LIMITS).unwrap_or_else(|error| panic!("{grammar}{error}"));
        tried += 1;
        for _ in 0..16 {
            let text: String = (0..rng.usize(0..6))
                .map(|_| rng.choice(['a', 'a', 'b', 'b', 'c', 'é']).expect("one"))
                .collect();
            let chars: Vec<char> = text.chars().collect();
            let expected = places(&rules, &chars)[0].contains(&(0, chars.len()));
            assert_eq!(
                can_say(&compiled.grammar, &parsers, &text),
                expected,
                "{text:?} of seed {seed}:\n{grammar}{}",
                to_lark(&grammar, 16).unwrap_or_default()
            );
            said += u32::from(expected);
            refused += u32::from(!expected);
        }
    }
    assert!(
        tried == SEEDS && said > 100 && refused > 100,
        "{said} and {refused}"
    );
}

fn lexemes(grammar: &str) -> usize {
    let lark = to_lark(grammar, 16).expect("a grammar");
    lark.lines().filter(|line| line.starts_with('L')).count()
}

#[test]
fn what_is_regular_is_one_lexeme_and_what_hides_another_is_none() {
    assert_eq!(lexemes("root ::= ws [a-z]+ ws\nws ::= ([ \\t] ws)?"), 1);
    assert_eq!(
        lexemes("root ::= list\nlist ::= item | list \",\" item\nitem ::= [a-z]+"),
        1
    );
    assert_eq!(lexemes("root ::= \"(\" root \")\" | [a-z]+"), 3);
    // An `a` behind the word would be taken for the word's own.
    assert_eq!(lexemes("root ::= \"(\" root \")\" | [a-z]+ root?"), 3);
}

#[test]
fn what_is_no_grammar_is_refused_with_its_line() {
    for (grammar, reason) in [
        ("", "it has no rule `root`"),
        ("root ::= a", "it has no rule `a`"),
        (
            "root ::= \"a\"\n\nb = c",
            "line 3: `::=` is expected behind `b`",
        ),
        ("root ::= (\"a\"", "line 1: `)` is expected"),
        ("root ::= \"a", "line 1: the grammar ends"),
        ("root ::= [z-a]", "line 1: a range ends before it begins"),
        ("root ::= []", "line 1: a class has no character"),
        (
            "root ::= [^\\x00-\\U0010FFFF]",
            "line 1: a class has no character",
        ),
        ("root ::= \"\\ud800\"", "line 1: U+D800 is no character"),
        ("root ::= \"\\q\"", "line 1: `\\q` is not known"),
        ("root ::= \"\\u12\"", "line 1: `\\u` needs 4 digits"),
        ("root ::= *", "line 1: there is nothing to repeat"),
        ("root ::= \"a\"{3,2}", "line 1: the least number"),
        ("root ::= \"a\"{x}", "line 1: a number is expected"),
        ("root ::= \"a\" ; b", "line 1: `;` is not expected here"),
        ("root ::= <[7]>", "line 1: a grammar may not name tokens"),
        (
            "root ::= !<|im_end|>",
            "line 1: a grammar may not name tokens",
        ),
        (
            "root ::= ((((\"a\"))))",
            "line 1: more than 3 parentheses are open",
        ),
        (
            "%llguidance {}\nstart: \"a\"",
            "line 1: a rule's name is expected",
        ),
    ] {
        let refused = to_lark(grammar, 3).expect_err(grammar);
        assert!(refused.starts_with(reason), "{grammar}: {refused}");
    }
}
