//! GBNF, the grammars of llama.cpp, as a grammar of the engine: one of lexemes, where GBNF has characters
//! only. A lexeme is as large a regular part as it can be without changing what is said: the engine's
//! lexer takes the longest of all lexemes that may come and never goes back, so a part stays whole only
//! where no other reading of its characters is cut off by that.
//!
//! ```text
//!   text ──parse──► rules of characters ──lay out──► rules of lexemes ──check──► the engine's grammar
//!                                           ▲                          │
//!                                           └── broken into its parts ─┘ a lexeme that hides another
//! ```

mod ambiguity;
mod chars;
mod follows;
mod lark;
mod layout;
mod parse;

use std::collections::BTreeSet;

use layout::Layout;

/// Rounds of the check, after which nothing but single characters is a lexeme.
const MOST_ROUNDS: usize = 64;

/// A rule's body: what is said, character by character.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Node {
    One(chars::Chars),
    Sequence(Vec<Node>),
    Choice(Vec<Node>),
    /// At least so often, and at most.
    Repeat(Box<Node>, u32, Option<u32>),
    /// By its place.
    Rule(usize),
}

impl Node {
    fn empty() -> Self {
        Self::Sequence(Vec::new())
    }

    /// The rules that it names itself.
    fn rules(&self, found: &mut Vec<usize>) {
        match self {
            Self::One(_) => {}
            Self::Sequence(nodes) | Self::Choice(nodes) => {
                nodes.iter().for_each(|node| node.rules(found));
            }
            Self::Repeat(node, ..) => node.rules(found),
            Self::Rule(rule) => found.push(*rule),
        }
    }
}

/// The engine's Lark of a grammar that is called `root`. `Err`: why there is none, with its line.
pub fn to_lark(text: &str, most_depth: usize) -> Result<String, String> {
    let rules = parse::parse(text, most_depth)?;
    let rules: Vec<Node> = rules
        .into_iter()
        .enumerate()
        .map(|(place, body)| layout::without_recursion_at_an_end(place, body))
        .collect();
    let regular = layout::regular_rules(&rules);
    let mut broken = BTreeSet::new();
    for _ in 0..MOST_ROUNDS {
        let layout = Layout::of(&rules, &regular, |node| broken.contains(node));
        let hiding = ambiguity::hiding_lexemes(&layout, &rules);
        if hiding.is_empty() {
            return Ok(lark::write(&layout, &rules));
        }
        broken.extend(hiding);
    }
    let layout = Layout::of(&rules, &regular, |_| true);
    Ok(lark::write(&layout, &rules))
}

#[cfg(test)]
mod tests;
