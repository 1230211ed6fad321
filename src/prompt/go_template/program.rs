//! What a template comes to: steps, so that blocks in each other take no stack, neither when it is read nor when it is
//! run.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::expression::{Command, Operand, Pipe};

/// Where what an answer is stands.
pub(super) const RESPONSE: &str = "Response";

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// The template's own text.
    Text(Range<usize>),
    Write {
        pipe: Pipe,
        at: usize,
        is_answer: bool,
    },
    /// Goes on elsewhere where there is nothing.
    Unless {
        pipe: Pipe,
        at: usize,
        to: usize,
    },
    /// The same; else what there is, is the dot.
    With {
        pipe: Pipe,
        at: usize,
        to: usize,
    },
    /// Begins a loop, if there is something.
    Range {
        pipe: Pipe,
        at: usize,
        to: usize,
    },
    /// The dot and variables of the next time, if there is one.
    Next {
        keeps: Vec<usize>,
        to: usize,
    },
    /// Ends so many of `With` and `Range`.
    Leave(usize),
    Jump(usize),
    Call {
        body: String,
        pipe: Option<Pipe>,
        at: usize,
    },
    Return,
    /// The answer would have stood before it.
    PastAnswer,
}

impl Step {
    /// The answer, at the end of a template that has no place for it.
    pub fn answer(at: usize) -> Self {
        let names = vec![RESPONSE.to_owned()];
        let answer = Operand::Fields(Box::new(Operand::Variable(0)), names);
        Self::Write {
            pipe: Pipe {
                commands: vec![Command(vec![answer])],
                keeps: Vec::new(),
            },
            at,
            is_answer: true,
        }
    }
}

/// What a template comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Program {
    pub steps: Vec<Step>,
    /// Where bodies begin that are called by name.
    pub bodies: BTreeMap<String, usize>,
    /// Variables that there may be at once, the root's with them.
    pub variables: usize,
    /// Fields that stand anywhere.
    pub mentioned: BTreeSet<String>,
    /// Of those, the ones that are more than asked for.
    pub used: BTreeSet<String>,
}
