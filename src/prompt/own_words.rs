//! A template's source with its own control tokens written in twins.
//!
//! Twins go into what the template writes: its data and its strings. They are every whole control
//! token, and at the borders of a text the beginning or end of one, which the template joins with
//! something else. Where a template compares (`==`, `in`), both sides are compared without regard to
//! twins, so that it decides as it always did; methods and filters that search do so by themselves
//! (`python`).

mod comparisons;

use std::fmt::Write as _;
use std::ops::Range;

use minijinja::Error;
use minijinja::machinery::{Span, Token, tokenize};

use super::control_tokens::ControlTokens;
use super::environment::{self, BACKWARDS_FILTER, PLAIN_FILTER};
use super::twins::Twins;

/// What a template's tokens are put together from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assembly {
    /// Each stands in the template as a whole, or is joined from its beginning and its end.
    Whole,
    /// Words between, roles above all: `'<|' + message.role + '|>'`.
    WithWords,
    /// Whatever it writes or joins: `'<{}>'.format(word)`.
    AllWords,
}

/// The names that roles have in templates.
const ROLES: [&str; 5] = ["system", "user", "assistant", "tool", "developer"];

/// What names of roles are made of, also where a template changes their case.
pub(super) const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

fn is_role(text: &str) -> bool {
    ROLES.contains(&text)
}

struct Piece<'s> {
    token: Token<'s>,
    start: usize,
    end: usize,
}

/// Rewrites `source`, whose syntax is `environment`'s.
pub(super) fn rewrite(
    source: &str,
    tokens: &ControlTokens,
    twins: &Twins,
    assembly: Assembly,
) -> Result<String, Error> {
    let pieces = tokenize(source, false, environment::syntax()?)
        .map(|piece| piece.map(|(token, span)| placed(source, token, span)))
        .collect::<Result<Vec<_>, _>>()?;
    let rewriter = Rewriter {
        pieces: &pieces,
        tokens,
        twins,
        assembly,
    };
    let edits = rewriter.edits();
    let mut out = String::with_capacity(source.len() + 64);
    let mut copied = 0;
    for (range, text) in edits {
        out.push_str(&source[copied..range.start]);
        out.push_str(&text);
        copied = range.end;
    }
    out.push_str(&source[copied..]);
    Ok(out)
}

/// Data's own place: its span may tell that of what was trimmed as well.
fn placed<'s>(source: &'s str, token: Token<'s>, span: Span) -> Piece<'s> {
    let (mut start, mut end) = (span.start_offset as usize, span.end_offset as usize);
    if let Token::TemplateData(data) = &token {
        start = data.as_ptr().addr() - source.as_ptr().addr();
        end = start + data.len();
    }
    Piece { token, start, end }
}

struct Rewriter<'r, 's> {
    pieces: &'r [Piece<'s>],
    tokens: &'r ControlTokens,
    twins: &'r Twins,
    assembly: Assembly,
}

type Edit = (Range<usize>, String);

impl Rewriter<'_, '_> {
    fn edits(&self) -> Vec<Edit> {
        let mut edits: Vec<Edit> = Vec::new();
        let mut plain = vec![false; self.pieces.len()];
        let mut ends = Vec::new();
        let mut in_for_head = false;
        for (at, piece) in self.pieces.iter().enumerate() {
            match &piece.token {
                Token::BlockStart => {
                    in_for_head = matches!(self.token(at + 1), Some(Token::Ident("for")));
                }
                // `for x in y`: nothing is compared.
                Token::Ident("in") if in_for_head => in_for_head = false,
                Token::Ident("in") if !self.is_name(at) => {
                    self.compare(at, &mut plain, &mut ends);
                }
                Token::Eq | Token::Ne => self.compare(at, &mut plain, &mut ends),
                Token::BracketClose if self.looks_up_a_value(at) => {
                    ends.push(self.pieces[at - 1].end);
                }
                _ => {}
            }
        }
        for (at, piece) in self.pieces.iter().enumerate() {
            if let Some(text) = self.own_words(at, plain[at]) {
                edits.push((piece.start..piece.end, text));
            }
        }
        for at in 0..self.pieces.len() {
            if self.is_backwards(at) {
                let range = self.pieces[at].start..self.pieces[at + 5].end;
                edits.push((range, format!("|{BACKWARDS_FILTER}")));
            }
        }
        ends.sort_unstable();
        ends.dedup();
        edits.extend(
            ends.into_iter()
                .map(|at| (at..at, format!("|{PLAIN_FILTER}"))),
        );
        edits.sort_by_key(|(range, _)| (range.start, range.end));
        edits
    }

    /// Whether the bracket that closes at `close` looks up what is no text of the template's, and may
    /// be a role.
    fn looks_up_a_value(&self, close: usize) -> bool {
        let is_value = matches!(
            self.token(close.wrapping_sub(1)),
            Some(Token::Ident(_) | Token::BracketClose | Token::ParenClose)
        );
        is_value
            && self.assembly != Assembly::Whole
            && self
                .open_bracket(close)
                .is_some_and(|open| self.is_lookup(open))
    }

    fn token(&self, at: usize) -> Option<&Token<'_>> {
        self.pieces.get(at).map(|piece| &piece.token)
    }

    /// `x[::-1]`, which minijinja does wrong where `x` is empty, with nothing behind it that a filter
    /// cannot have.
    fn is_backwards(&self, at: usize) -> bool {
        let slice = [0, 1, 2, 3, 4, 5, 6].map(|next| self.token(at + next));
        matches!(
            slice,
            [
                Some(Token::BracketOpen),
                Some(Token::Colon),
                Some(Token::Colon),
                Some(Token::Minus),
                Some(Token::Int(1)),
                Some(Token::BracketClose),
                next,
            ] if self.is_lookup(at)
                && !matches!(
                    next,
                    Some(Token::Dot | Token::BracketOpen | Token::ParenOpen)
                )
        )
    }

    /// `x.in` is an attribute, and `x is in y` a test, which sees through twins by itself.
    fn is_name(&self, at: usize) -> bool {
        let before = |back: usize| self.token(at.wrapping_sub(back));
        match before(1) {
            Some(Token::Dot | Token::Ident("is")) => true,
            Some(Token::Ident("not")) => matches!(before(2), Some(Token::Ident("is"))),
            _ => false,
        }
    }

    /// What stands for a piece of data or a string.
    fn own_words(&self, at: usize, is_plain: bool) -> Option<String> {
        let text = self.text(at)?;
        let marked = self.in_twins(at, text);
        if is_plain || !marked.iter().any(|marked| *marked) {
            return None;
        }
        let chars = text.chars().zip(&marked);
        let written = chars.map(|(c, marked)| match self.twins.of(c) {
            Some(twin) if *marked => twin,
            _ => c,
        });
        match &self.pieces[at].token {
            Token::TemplateData(_) => Some(written.collect()),
            _ => Some(quoted(written)),
        }
    }

    fn text(&self, at: usize) -> Option<&str> {
        match self.token(at)? {
            Token::TemplateData(text) | Token::Str(text) => Some(text),
            Token::String(text) => Some(text),
            _ => None,
        }
    }

    /// Which characters become twins.
    fn in_twins(&self, at: usize, text: &str) -> Vec<bool> {
        let mut marked = vec![false; text.chars().count()];
        let chars: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let place = |byte: usize| chars.partition_point(|at| *at < byte);
        for found in self.tokens.occurrences(text) {
            marked[place(found.start)..place(found.end)].fill(true);
        }
        if let Some(start) = self.tokens.opening_at_end(text) {
            marked[place(start)..].fill(true);
        }
        if let Some(end) = self.tokens.rest_at_start(text) {
            marked[..place(end)].fill(true);
        }
        let is_own = match self.assembly {
            Assembly::Whole => false,
            Assembly::WithWords => {
                is_role(text) || (self.is_joined(at) && self.tokens.is_inside_one(text))
            }
            Assembly::AllWords => is_role(text) || self.is_joined(at) || self.is_formatted(at),
        };
        if is_own && !self.is_key(at) {
            marked.fill(true);
        }
        marked
    }

    /// A key that is looked up: `x['name']`, `{'name': …}`.
    fn is_key(&self, at: usize) -> bool {
        let before = at.wrapping_sub(1);
        matches!(self.token(at + 1), Some(Token::Colon))
            || (matches!(self.token(before), Some(Token::BracketOpen)) && self.is_lookup(before))
    }

    /// Whether the bracket at `open` follows what it looks into.
    fn is_lookup(&self, open: usize) -> bool {
        match self.token(open.wrapping_sub(1)) {
            Some(Token::Ident(word)) => {
                !matches!(*word, "in" | "not" | "and" | "or" | "if" | "else" | "is")
            }
            Some(
                Token::ParenClose
                | Token::BracketClose
                | Token::BraceClose
                | Token::Str(_)
                | Token::String(_),
            ) => true,
            _ => false,
        }
    }

    /// Whether the text is joined with others, here or under a variable's name.
    fn is_joined(&self, at: usize) -> bool {
        let joins = |token: Option<&Token<'_>>| {
            matches!(
                token,
                Some(Token::Plus | Token::Tilde | Token::VariableStart | Token::VariableEnd)
            )
        };
        matches!(self.token(at), Some(Token::TemplateData(_)))
            || matches!(self.token(at.wrapping_sub(1)), Some(Token::Assign))
            || joins(self.token(at.wrapping_sub(1)))
            || joins(self.token(at + 1))
    }

    /// `'text'.format(…)`.
    fn is_formatted(&self, at: usize) -> bool {
        let method = [self.token(at + 1), self.token(at + 2)];
        matches!(method, [Some(Token::Dot), Some(Token::Ident("format"))])
    }

    fn open_bracket(&self, close: usize) -> Option<usize> {
        let mut depth = 0usize;
        for at in (0..=close).rev() {
            match self.token(at)? {
                Token::BracketClose => depth += 1,
                Token::BracketOpen => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(at);
                    }
                }
                Token::BlockStart | Token::VariableStart => return None,
                _ => {}
            }
        }
        None
    }
}

/// A string of the template language.
fn quoted(text: impl Iterator<Item = char>) -> String {
    let mut out = String::from("\"");
    for c in text {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
