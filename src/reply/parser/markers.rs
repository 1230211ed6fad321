//! Where the markers of a state stand in a text.

use std::sync::Arc;

use super::ReplyParser;
use crate::conversation::ReplyPiece;
use crate::reply::machine::{Action, Edge, Guard, Sink, State};

/// How far a marker is looked for before the text before it is read.
const WINDOW: usize = 256;

/// Where the next marker is.
enum Found {
    /// All of it.
    Whole { at: usize, edge: usize, len: usize },
    /// The text ends in its beginning.
    Beginning { at: usize },
    /// None begins before this.
    None { before: usize },
}

impl ReplyParser {
    pub(super) fn text(&mut self, text: &str, out: &mut Vec<ReplyPiece>) {
        if self.held.is_empty() {
            let rest = self.read(text, out);
            self.held.push_str(&text[rest..]);
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.push_str(text);
            let rest = self.read(&held, out);
            held.drain(..rest);
            self.held = held;
        }
    }

    /// Returns where what is to be held begins.
    fn read(&mut self, text: &str, out: &mut Vec<ReplyPiece>) -> usize {
        let machine = Arc::clone(&self.machine);
        let mut at = 0;
        while at < text.len() {
            let state = self.at;
            let found = self.find(&machine.states[state], text, at);
            let before = match found {
                Found::Whole { at, .. } | Found::Beginning { at } => at,
                Found::None { before } => before,
            };
            while at < before && self.at == state {
                at += self.feed(&text[at..before], out);
            }
            if self.at != state || at < before {
                continue;
            }
            if self.is_in_string() && !matches!(found, Found::None { .. }) {
                let next = text[at..].chars().next().map_or(1, char::len_utf8);
                at += self.feed(&text[at..at + next], out);
                continue;
            }
            match found {
                Found::Whole { edge, len, .. } => {
                    let edge = &machine.states[state].edges[edge];
                    let matched = &text[at..at + len];
                    at += len;
                    self.follow(edge, matched, out);
                    if edge.action == Action::CloseThought {
                        at += self.blank_in_token(&text[at..], out);
                    }
                }
                Found::Beginning { at } => return at,
                Found::None { .. } => {}
            }
        }
        text.len()
    }

    /// Where white space begins a text, what stands behind a thought in the token that ends it is of neither: the
    /// grammar of the text is followed from the next token on.
    fn blank_in_token(&mut self, rest: &str, out: &mut Vec<ReplyPiece>) -> usize {
        if !matches!(self.machine.states[self.at].sink, Sink::Opening { .. }) {
            return 0;
        }
        let len = rest.len() - rest.trim_ascii_start().len();
        self.show(&rest[..len], out);
        len
    }

    pub(super) fn is_in_string(&self) -> bool {
        match self.machine.states[self.at].sink {
            Sink::JsonCalls { .. } => self.json_calls.is_in_string(),
            Sink::JsonArguments { .. } | Sink::MessageArguments => self.json_value.is_in_string(),
            Sink::Python { .. } => self.python.is_in_string(),
            _ => false,
        }
    }

    /// Looks for a marker from `from` on.
    fn find(&mut self, state: &State, text: &str, from: usize) -> Found {
        let bytes = text.as_bytes();
        let end = (from + WINDOW).min(text.len());
        for (at, byte) in bytes.iter().enumerate().take(end).skip(from) {
            if !state.starts.contains(*byte) {
                continue;
            }
            let rest = &bytes[at..];
            let mut best: Option<(usize, usize)> = None;
            let mut is_beginning = false;
            for (index, edge) in state.edges.iter().enumerate() {
                self.bytes_visited += 1;
                let (whole, len) = self.matches(edge, rest);
                if whole && best.is_none_or(|(_, best)| best < len) {
                    best = Some((index, len));
                }
                is_beginning |= !whole && len > 0;
            }
            if let Some((edge, len)) = best {
                self.bytes_visited += (at - from) as u64;
                return Found::Whole { at, edge, len };
            }
            if is_beginning {
                self.bytes_visited += (at - from) as u64;
                return Found::Beginning { at };
            }
        }
        self.bytes_visited += (end - from) as u64;
        let mut before = end;
        while !text.is_char_boundary(before) {
            before += 1;
        }
        Found::None { before }
    }

    /// Whether `rest` starts with the marker, and how many of its bytes; or is its beginning.
    pub(super) fn matches(&self, edge: &Edge, rest: &[u8]) -> (bool, usize) {
        let is_open = match edge.guard {
            Guard::Always => true,
            Guard::Silent | Guard::Token => false,
            Guard::NoThoughtYet => !self.had_thought,
            Guard::BehindThought => self.had_thought,
            Guard::CallUnclosed => self.owes_closer,
        };
        if edge.id.is_some() && self.has_ids {
            // Only its white space can be told by text.
            let lead = edge.lead().as_bytes();
            return (
                false,
                if lead.starts_with(rest) {
                    rest.len()
                } else {
                    0
                },
            );
        }
        if !is_open {
            return (false, 0);
        }
        // Of the white space before a marker any part may be missing.
        let starts = edge.lead().char_indices().map(|(at, _)| at);
        for start in starts.chain([edge.lead_len]) {
            let text = &edge.whole.as_bytes()[start..];
            if rest.starts_with(text) {
                return (true, text.len());
            }
            if text.starts_with(rest) {
                return (false, rest.len());
            }
        }
        (false, 0)
    }
}
