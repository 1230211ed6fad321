//! What text means in a state.

use std::sync::Arc;

use super::{ReplyParser, push_text};
use crate::conversation::ReplyPiece;
use crate::reply::format::JsonKeys;
use crate::reply::json_calls::{Proof, Stop};
use crate::reply::json_value::JsonValue;
use crate::reply::machine::{AFTER_CALL, CONTENT, Sink, StateId};

/// The longest name, key, id or header.
const MOST_WORD_BYTES: usize = 512;

/// What becomes of an answer behind a text.
enum Next {
    Stay,
    To(StateId),
    /// JSON follows, which may be a call.
    Json(StateId),
    /// The call has ended, and nothing more of its kind is expected.
    EndCall(StateId),
    /// The call has ended, and another may follow.
    AnotherCall,
    /// It is no call, or no part of the one that was told.
    Abandon,
}

impl ReplyParser {
    /// Reads text that holds no marker of this state. Returns how much was read before the state
    /// changed; 0 only where it did.
    pub(super) fn feed(&mut self, text: &str, out: &mut Vec<ReplyPiece>) -> usize {
        let (len, next) = self.feed_state(text, out);
        self.bytes_visited += len as u64;
        self.remember(&text[..len]);
        match next {
            Next::Stay => {}
            Next::To(state) => self.at = state,
            Next::Json(state) => {
                self.begin_bare();
                self.at = state;
            }
            Next::EndCall(state) => self.at = self.end_call(out).unwrap_or(state),
            Next::AnotherCall => {
                self.end_call(out);
                self.begin_next();
            }
            Next::Abandon => self.abandon(out),
        }
        len
    }

    fn feed_state(&mut self, text: &str, out: &mut Vec<ReplyPiece>) -> (usize, Next) {
        let machine = Arc::clone(&self.machine);
        match &machine.states[self.at].sink {
            Sink::Content => push_text(out, text),
            Sink::Thought => self.thought(text, out),
            Sink::Gap {
                next,
                is_dropped,
                drops_brackets,
                json,
            } => {
                let is_gap = |c: char| {
                    c.is_ascii_whitespace()
                        || (*drops_brackets && matches!(c, '}' | ']' | ',' | ';'))
                };
                let len = text.find(|c| !is_gap(c)).unwrap_or(text.len());
                if !*is_dropped {
                    self.blank.push_str(&text[..len]);
                }
                let next = match json {
                    _ if len == text.len() => Next::Stay,
                    Some(json) if text[len..].starts_with(['{', '[']) => Next::Json(*json),
                    _ if *next == CONTENT => Next::Abandon,
                    _ => Next::To(*next),
                };
                return (len, next);
            }
            Sink::Opening { json } => {
                let next = match json {
                    Some(json) if text.starts_with(['{', '[']) => Next::Json(*json),
                    _ => Next::Abandon,
                };
                return (0, next);
            }
            Sink::Name {
                json, arguments, ..
            } => return self.name(text, *json, *arguments, out),
            Sink::Id | Sink::Skipped | Sink::Header => {
                self.word.push_str(text);
                if self.word.len() > MOST_WORD_BYTES {
                    return (text.len(), Next::Abandon);
                }
            }
            Sink::JsonCalls {
                keys,
                is_bare,
                other,
            } => return self.calls(text, keys, *is_bare, *other, out),
            Sink::JsonArguments { done } => {
                if !self.json_value.has_begun() {
                    let blank = text.len() - text.trim_ascii_start().len();
                    if blank > 0 {
                        return (blank, Next::Stay);
                    }
                }
                let len = self.json_value.read(text);
                self.call.arguments(&text[..len], out);
                if self.json_value.is_done() {
                    return (len, Next::EndCall(*done));
                }
            }
            Sink::MessageArguments => {
                // Only what is inside a string matters of it.
                self.json_value.read(text);
                self.call.arguments(text, out);
            }
            Sink::Key => {
                if self.parameters.push_key(text) > MOST_WORD_BYTES {
                    return (text.len(), Next::Abandon);
                }
            }
            Sink::Value => self.parameters.push_value(text, &mut self.call, out),
            Sink::KeyValues { done } => {
                let (len, is_done) = self.key_values.read(text, &mut self.call, out);
                if is_done {
                    return (len, Next::EndCall(*done));
                }
            }
            Sink::QuotedText => self.key_values.quoted(text, &mut self.call, out),
            Sink::Python { json } => {
                let (len, stop) = self.python.read(text, &mut self.call, out);
                let next = match stop {
                    Stop::Empty => Next::Stay,
                    Stop::End => Next::AnotherCall,
                    Stop::Other => Next::To(*json),
                    Stop::NotACall => Next::Abandon,
                };
                return (len, next);
            }
        }
        (text.len(), Next::Stay)
    }

    pub(super) fn thought(&mut self, text: &str, out: &mut Vec<ReplyPiece>) {
        if !self.machine.tells_thoughts {
            return push_text(out, text);
        }
        match out.last_mut() {
            Some(ReplyPiece::Reasoning(last)) => last.push_str(text),
            _ => out.push(ReplyPiece::Reasoning(text.to_owned())),
        }
    }

    fn name(
        &mut self,
        text: &str,
        json: Option<StateId>,
        arguments: Option<StateId>,
        out: &mut Vec<ReplyPiece>,
    ) -> (usize, Next) {
        let is_empty = self.word.trim().is_empty();
        if is_empty {
            let len = text.len() - text.trim_ascii_start().len();
            if let Some(json) = json
                && text[len..].starts_with(['{', '['])
            {
                self.word.clear();
                return (len, Next::To(json));
            }
        }
        if let Some(arguments) = arguments
            && let Some((brace, _)) = text
                .match_indices('{')
                .find(|(brace, _)| !is_empty || !text[..*brace].trim().is_empty())
        {
            self.word.push_str(&text[..brace]);
            self.take_name();
            self.call.announce(out);
            self.json_value = JsonValue::default();
            return (brace, Next::To(arguments));
        }
        self.word.push_str(text);
        let is_name = self.word.len() <= MOST_WORD_BYTES;
        (text.len(), if is_name { Next::Stay } else { Next::Abandon })
    }

    /// The word is the call's name, or, where the format has it so, its id with the name inside.
    pub(super) fn take_name(&mut self) {
        let word = std::mem::take(&mut self.word);
        let word = word.trim();
        let is_id = matches!(
            self.machine.states[self.at].sink,
            Sink::Name { is_id: true, .. }
        );
        let inside = word
            .strip_prefix("functions.")
            .and_then(|rest| rest.rsplit_once(':'))
            .filter(|(_, index)| index.bytes().all(|byte| byte.is_ascii_digit()));
        match inside.filter(|_| is_id) {
            Some((name, _)) => {
                self.call.set_id(word);
                self.call.set_name(name);
            }
            None => self.call.set_name(word),
        }
    }

    fn calls(
        &mut self,
        text: &str,
        keys: &JsonKeys,
        is_bare: bool,
        other: StateId,
        out: &mut Vec<ReplyPiece>,
    ) -> (usize, Next) {
        let types = Arc::clone(&self.types);
        let known = |name: &str| types.knows(name);
        let proof = match is_bare {
            true => Proof::Keys { known: &known },
            false => Proof::Marker,
        };
        let (len, stop) = self.json_calls.read(text, keys, proof, &mut self.call, out);
        let next = match stop {
            Stop::Empty => Next::Stay,
            Stop::End => Next::AnotherCall,
            Stop::Other if other == AFTER_CALL => Next::Abandon,
            Stop::Other => Next::To(other),
            Stop::NotACall => Next::Abandon,
        };
        (len, next)
    }
}
