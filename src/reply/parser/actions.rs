//! What a marker does.

use super::{ReplyParser, push_text};
use crate::conversation::ReplyPiece;
use crate::reply::harmony::{self, Body};
use crate::reply::json_calls::JsonCalls;
use crate::reply::json_value::JsonValue;
use crate::reply::key_values::KeyValues;
use crate::reply::machine::{AFTER_CALL, Action, CONTENT, Edge, Sink, StateId, THOUGHT};
use crate::reply::parameters::ParameterObject;
use crate::reply::python::Python;

impl ReplyParser {
    pub(super) fn follow(&mut self, edge: &Edge, matched: &str, out: &mut Vec<ReplyPiece>) {
        let mut to = edge.to;
        match edge.action {
            Action::None => {}
            Action::OpenThought => {
                self.leave_blank(out);
                self.show(edge.text(), out);
                self.had_thought = true;
            }
            Action::CloseThought => {
                self.leave_blank(out);
                self.show(edge.text(), out);
            }
            Action::BeginContent => self.blank.clear(),
            Action::StrayCloser => {
                self.blank.clear();
                self.had_thought = true;
            }
            Action::BeginCall => self.begin_call(matched),
            Action::NextCall => {
                // Openers in a row open one call.
                if !self.is_just_opened()
                    && let Some(back) = self.close_call(out)
                {
                    self.at = back;
                }
                self.begin_call(matched);
            }
            Action::LateCloser => self.owes_closer = false,
            Action::EndCall | Action::EndParameters => {
                to = self.close_call(out).unwrap_or(to);
                self.owes_closer &= edge.to != AFTER_CALL;
                self.blank.clear();
                self.word.clear();
                self.reset_scanners();
            }
            Action::BeginName => self.word.clear(),
            Action::TakeName => self.take_name(),
            Action::EndName => {
                self.take_name();
                self.json_value = JsonValue::default();
                self.call.announce(out);
            }
            Action::EndId => {
                let id = std::mem::take(&mut self.word);
                self.call.set_id(&id);
                self.json_value = JsonValue::default();
                if !self.call.name().is_empty() {
                    self.call.announce(out);
                }
            }
            Action::BeginKey => {
                if !self.word.is_empty() {
                    self.take_name();
                }
                self.call.announce(out);
                self.parameters.begin_key();
            }
            Action::EndKey => {
                let is_text = self.types.is_text(self.call.name(), self.parameters.key());
                self.parameters.begin_value(is_text, &mut self.call, out);
                let mut ends = self.machine.states[edge.to].edges.iter();
                // Where a line's end stands before what ends a value, one stands behind what begins it.
                if ends.any(|end| end.action == Action::EndValue && end.lead().starts_with('\n')) {
                    self.parameters.drop_line();
                }
            }
            Action::EndValue => self.parameters.end_value(&mut self.call, out),
            Action::BeginKeyValues => {
                self.take_name();
                self.call.announce(out);
                self.key_values.begin(&mut self.call, out);
            }
            Action::Quote => self.key_values.quote(&mut self.call, out),
            Action::BeginHeader | Action::Recipient => {
                self.end_message(out);
                self.begin_untold(matched);
                self.word.clear();
                if edge.action == Action::Recipient {
                    self.word.push_str(" to=");
                }
            }
            Action::EndMessage => self.end_message(out),
            Action::HeaderWord => self.word.push('\n'),
            Action::OpenMessage => to = self.open_message(out),
        }
        self.at = to;
        match edge.action {
            Action::BeginCall | Action::NextCall | Action::BeginHeader | Action::Recipient => {}
            _ => self.remember(matched),
        }
    }

    fn begin_call(&mut self, matched: &str) {
        self.begin_untold(matched);
        self.call.begin();
        self.word.clear();
        self.reset_scanners();
    }

    fn reset_scanners(&mut self) {
        self.json_calls = JsonCalls::default();
        self.json_value = JsonValue::default();
        self.parameters = ParameterObject::default();
        self.key_values = KeyValues::default();
        self.python = Python::default();
    }

    /// A marker, or the end of the answer, says that the call has ended. Returns where the answer goes
    /// on, if not where the marker leads.
    pub(super) fn close_call(&mut self, out: &mut Vec<ReplyPiece>) -> Option<StateId> {
        match self.machine.states[self.at].sink {
            Sink::JsonCalls { .. } => self.json_calls.close(&mut self.call),
            Sink::Name { .. } => self.take_name(),
            Sink::Id => {
                let id = std::mem::take(&mut self.word);
                self.call.set_id(&id);
            }
            Sink::Value => self.parameters.end_value(&mut self.call, out),
            Sink::KeyValues { .. } | Sink::QuotedText => self.key_values.close(&mut self.call, out),
            Sink::Python { .. } => self.python.close(&mut self.call, out),
            _ => {}
        }
        self.end_parameters(out)
    }

    pub(super) fn end_parameters(&mut self, out: &mut Vec<ReplyPiece>) -> Option<StateId> {
        self.parameters.end(&mut self.call, out);
        self.end_call(out)
    }

    /// Ends the call, if it has a name; else it is what it reads as. One that the model left behind the key of
    /// its arguments was told, if at all, and gets no end.
    pub(super) fn end_call(&mut self, out: &mut Vec<ReplyPiece>) -> Option<StateId> {
        let is_left = !self.call.has_arguments() && self.json_calls.awaits_arguments();
        let is_told = match is_left {
            true => self.call.leave(),
            false => self.call.end(out),
        };
        if !is_told {
            return self.give_back_closed(out);
        }
        self.untold = None;
        self.owes_closer = true;
        self.left_over_is_content(out);
        if is_left {
            self.json_calls = JsonCalls::default();
        }
        None
    }

    /// Members without a place in a call, and keys without a value, are content behind it.
    fn left_over_is_content(&mut self, out: &mut Vec<ReplyPiece>) {
        for left_over in [
            self.json_calls.take_left_over(),
            self.parameters.take_left_over(),
        ] {
            push_text(out, left_over.trim_end());
        }
    }

    /// A message that is a call ends with its arguments, whatever they are; a header that no message
    /// follows is what it reads as.
    fn end_message(&mut self, out: &mut Vec<ReplyPiece>) {
        self.blank.clear();
        if self.at == THOUGHT {
            self.show(harmony::THOUGHT_ENDS, out);
        }
        if self.call.is_announced() {
            self.end_call(out);
        }
        self.finish_untold(true, out);
    }

    /// The marker of a thought that is kept in the content, or white space beside it.
    pub(super) fn show(&mut self, marker: &str, out: &mut Vec<ReplyPiece>) {
        if !self.machine.tells_thoughts {
            push_text(out, marker);
        }
    }

    /// White space beside a thought is content where the thought is.
    fn leave_blank(&mut self, out: &mut Vec<ReplyPiece>) {
        let blank = std::mem::take(&mut self.blank);
        self.show(&blank, out);
    }

    /// Where the body of a message goes, by its header.
    fn open_message(&mut self, out: &mut Vec<ReplyPiece>) -> StateId {
        let header = std::mem::take(&mut self.word);
        self.untold = None;
        let Some(bodies) = self.machine.bodies else {
            return CONTENT;
        };
        match Body::of(&header) {
            Body::Thought => {
                self.had_thought = true;
                self.show(harmony::THOUGHT_OPENS, out);
                bodies.thought
            }
            Body::Call(_) if !self.machine.tells_calls => bodies.content,
            Body::Content => bodies.content,
            Body::Call(name) => {
                self.call.begin();
                self.call.set_name(name);
                self.call.announce(out);
                self.json_value = JsonValue::default();
                bodies.arguments
            }
        }
    }
}
