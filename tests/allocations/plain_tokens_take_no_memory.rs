//! A token without a marker costs its reply nothing but its text, which is handed on as it came.

use std::hint::black_box;
use std::sync::Arc;

use crate::counting::taken_by;
use rkllmd::conversation::ReplyPiece;
use rkllmd::reply::{OpenedIn, ReplyFamily, ReplyOptions, ReplyReader, ReplyToken, ToolTypes};

const TOKENS: usize = 1000;

/// Plain text for every family: no letter, comma or point begins a marker.
fn tokens(id: Option<i32>) -> Vec<ReplyToken> {
    let words = [" there", ", 10", " €", ".\"", " end."];
    (0..TOKENS)
        .map(|at| ReplyToken {
            id,
            text: words[at % words.len()].to_owned(),
        })
        .collect()
}

/// Blocks that are taken while the tokens are read, and what of them is told as a thought.
fn read(family: ReplyFamily, opened_in: OpenedIn, id: Option<i32>) -> (usize, usize) {
    let mut parser = ReplyReader::new(&family.format()).parser(&ReplyOptions {
        keeps_thoughts: false,
        tools: Some(Arc::new(ToolTypes::new([("f", None)]))),
        opened_in,
        ..ReplyOptions::default()
    });
    let mut out = Vec::with_capacity(2 * TOKENS);
    // What stands at the beginning of an answer may be held.
    let first = ReplyToken {
        id,
        text: "Hello".to_owned(),
    };
    parser.push(first, &mut out);
    out.clear();
    let tokens = tokens(id);
    let taken = taken_by(|| {
        for token in tokens {
            assert!(parser.push(token, &mut out), "{family} holds a plain token");
        }
    });
    assert_eq!(out.len(), TOKENS, "{family}: an event each");
    let is_thought = |piece: &&ReplyPiece| matches!(piece, ReplyPiece::Reasoning(_));
    (taken, out.iter().filter(is_thought).count())
}

#[test]
fn a_plain_token_takes_no_memory_in_content_and_in_a_thought() {
    let mut thoughts = 0;
    for family in ReplyFamily::ALL {
        for id in [None, Some(1)] {
            assert_eq!(read(family, OpenedIn::Content, id), (0, 0), "{family}");
            let (taken, thought) = read(family, OpenedIn::BegunReasoning, id);
            assert_eq!(taken, 0, "{family}");
            assert!([0, TOKENS].contains(&thought), "{family}: {thought}");
            thoughts += thought;
        }
    }
    assert!(thoughts >= 10 * TOKENS, "{thoughts} tokens of thoughts");
}

#[test]
fn what_is_taken_is_counted() {
    let taken = taken_by(|| drop(black_box((vec![1], String::from("x")))));
    assert_eq!(taken, 2);
}
