//! Which bytes may come behind each lexeme.

use std::collections::HashMap;

use super::Node;
use super::chars::Bytes;
use super::layout::{Layout, Part};

/// What a part may begin with, and whether it may be empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct First {
    bytes: Bytes,
    is_nullable: bool,
}

impl First {
    const EMPTY: Self = Self {
        bytes: Bytes::NONE,
        is_nullable: true,
    };

    fn before(self, next: Self) -> Self {
        match self.is_nullable {
            true => Self {
                bytes: self.bytes.with(next.bytes),
                is_nullable: next.is_nullable,
            },
            false => self,
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.with(other.bytes),
            is_nullable: self.is_nullable || other.is_nullable,
        }
    }

    fn at_least(self, times: u32) -> Self {
        Self {
            is_nullable: self.is_nullable || times == 0,
            ..self
        }
    }
}

/// By lexeme, the bytes that something behind it may begin with.
pub fn follows(layout: &Layout, rules: &[Node]) -> Vec<Bytes> {
    let mut regular = HashMap::new();
    let lexemes = layout.lexemes.iter();
    let lexemes: Vec<First> = lexemes
        .map(|lexeme| of_node(lexeme, rules, &mut regular))
        .collect();
    let mut firsts: HashMap<usize, First> = HashMap::new();
    loop {
        let mut is_new = false;
        for (&rule, part) in &layout.rules {
            let first = of_part(part, &lexemes, &firsts);
            is_new |= firsts.insert(rule, first) != Some(first);
        }
        if !is_new {
            break;
        }
    }
    let mut walk = Walk {
        lexemes: &lexemes,
        firsts: &firsts,
        behind_lexemes: vec![Bytes::NONE; lexemes.len()],
        behind_rules: HashMap::new(),
        is_new: true,
    };
    while std::mem::take(&mut walk.is_new) {
        for (rule, part) in &layout.rules {
            let behind = walk.behind_rules.get(rule).copied();
            walk.part(part, behind.unwrap_or_default());
        }
    }
    walk.behind_lexemes
}

fn of_node(node: &Node, rules: &[Node], known: &mut HashMap<usize, First>) -> First {
    match node {
        Node::One(chars) => First {
            bytes: chars.first_bytes(),
            is_nullable: false,
        },
        Node::Sequence(nodes) => nodes.iter().rev().fold(First::EMPTY, |next, node| {
            of_node(node, rules, known).before(next)
        }),
        Node::Choice(nodes) => nodes.iter().fold(First::default(), |first, node| {
            first.or(of_node(node, rules, known))
        }),
        Node::Repeat(node, least, _) => of_node(node, rules, known).at_least(*least),
        Node::Rule(rule) => match known.get(rule) {
            Some(first) => *first,
            None => {
                let first = of_node(&rules[*rule], rules, known);
                known.insert(*rule, first);
                first
            }
        },
    }
}

fn of_part(part: &Part, lexemes: &[First], rules: &HashMap<usize, First>) -> First {
    let of = |part| of_part(part, lexemes, rules);
    match part {
        Part::Lexeme(lexeme) => lexemes[*lexeme],
        Part::Sequence(parts) => {
            let parts = parts.iter().rev();
            parts.fold(First::EMPTY, |next, part| of(part).before(next))
        }
        Part::Choice(parts) => parts.iter().map(of).fold(First::default(), First::or),
        Part::Repeat(part, least, _) => of(part).at_least(*least),
        Part::Rule(rule) => rules.get(rule).copied().unwrap_or_default(),
    }
}

struct Walk<'l> {
    lexemes: &'l [First],
    firsts: &'l HashMap<usize, First>,
    behind_lexemes: Vec<Bytes>,
    behind_rules: HashMap<usize, Bytes>,
    is_new: bool,
}

impl Walk<'_> {
    /// `behind` may come behind the part.
    fn part(&mut self, part: &Part, behind: Bytes) {
        match part {
            Part::Lexeme(lexeme) => {
                self.is_new |= self.behind_lexemes[*lexeme].extend(behind);
            }
            Part::Rule(rule) => {
                self.is_new |= self.behind_rules.entry(*rule).or_default().extend(behind);
            }
            Part::Choice(parts) => parts.iter().for_each(|part| self.part(part, behind)),
            Part::Sequence(parts) => {
                let mut behind = behind;
                for part in parts.iter().rev() {
                    self.part(part, behind);
                    let first = of_part(part, self.lexemes, self.firsts);
                    behind = match first.is_nullable {
                        true => first.bytes.with(behind),
                        false => first.bytes,
                    };
                }
            }
            Part::Repeat(part, ..) => {
                let again = of_part(part, self.lexemes, self.firsts).bytes;
                self.part(part, behind.with(again));
            }
        }
    }
}
