//! From tokens to events.
//!
//! What was told is never taken back, and nothing is kept that may be told: text is held while it may
//! be the beginning of a marker, and no longer. Each byte is looked at a bounded number of times.
//! There is no answer that cannot be read: what is no markup is content.

mod actions;
mod markers;
mod sinks;
mod untold;

use std::sync::Arc;

use super::call::Call;
use super::json_calls::JsonCalls;
use super::json_value::JsonValue;
use super::key_values::KeyValues;
use super::machine::{
    Action, CONTENT, Edge, Machine, START, Sink, StateId, THOUGHT, THOUGHT_START,
};
use super::parameters::ParameterObject;
use super::python::Python;
use super::tool_types::ToolTypes;
use super::{OpenedIn, ReplyToken};
use crate::conversation::ReplyPiece;
use untold::Untold;

/// An answer that is being read. A clone is a snapshot.
#[derive(Clone, Debug)]
pub struct ReplyParser {
    machine: Arc<Machine>,
    types: Arc<ToolTypes>,
    at: StateId,
    /// The beginning of what may be a marker.
    held: String,
    /// White space of which it is not known yet whether it is content.
    blank: String,
    /// The runtime tells ids, so tokens that are markers are known for certain.
    has_ids: bool,
    had_thought: bool,
    /// A call has ended, and what closes it is yet to come.
    owes_closer: bool,
    call: Call,
    untold: Option<Untold>,
    word: String,
    json_calls: JsonCalls,
    json_value: JsonValue,
    parameters: ParameterObject,
    key_values: KeyValues,
    python: Python,
    bytes_visited: u64,
}

impl ReplyParser {
    pub(super) fn new(machine: Arc<Machine>, types: Arc<ToolTypes>, opened: OpenedIn) -> Self {
        let at = match opened {
            OpenedIn::Content => START,
            _ if !machine.finds_thoughts => START,
            OpenedIn::Reasoning if machine.tells_thoughts => THOUGHT_START,
            OpenedIn::Reasoning | OpenedIn::BegunReasoning => THOUGHT,
        };
        Self {
            at,
            had_thought: opened != OpenedIn::Content,
            owes_closer: false,
            machine,
            types,
            held: String::new(),
            blank: String::new(),
            has_ids: false,
            call: Call::default(),
            untold: None,
            word: String::new(),
            json_calls: JsonCalls::default(),
            json_value: JsonValue::default(),
            parameters: ParameterObject::default(),
            key_values: KeyValues::default(),
            python: Python::default(),
            bytes_visited: 0,
        }
    }

    /// Calls that came to their end.
    pub fn completed_calls(&self) -> u32 {
        self.call.ended()
    }

    /// Whether the answer is inside a thought.
    pub fn is_in_reasoning(&self) -> bool {
        matches!(self.machine.states[self.at].sink, Sink::Thought) || self.at == THOUGHT_START
    }

    /// Whether text that follows is content, unless it is a marker.
    pub fn is_in_content(&self) -> bool {
        let leads_to_content = match self.machine.states[self.at].sink {
            Sink::Content | Sink::Opening { .. } => true,
            Sink::Thought => !self.machine.tells_thoughts,
            Sink::Gap { next, .. } => next == CONTENT,
            _ => false,
        };
        leads_to_content && !self.call.is_announced() && self.untold.is_none()
    }

    /// Ends the thought that is open, as its closer would; without one nothing happens.
    pub fn close_thought(&mut self, out: &mut Vec<ReplyPiece>) {
        self.let_go(out);
        let machine = Arc::clone(&self.machine);
        let mut edges = machine.states[self.at].edges.iter();
        if let Some(closer) = edges.find(|edge| edge.action == Action::CloseThought) {
            self.follow(closer, "", out);
        }
    }

    /// Whether all that came so far has been told, or is no content.
    pub fn holds_no_text(&self) -> bool {
        let sink = &self.machine.states[self.at].sink;
        matches!(sink, Sink::Content | Sink::Thought)
            && self.held.is_empty()
            && self.blank.is_empty()
            && self.untold.is_none()
    }

    /// Bytes that were looked at so far, each as often as it was.
    pub fn bytes_visited(&self) -> u64 {
        self.bytes_visited
    }

    /// Takes one token; what it made sure is appended to `out`. Returns whether that is anything: a
    /// token that was seen must not be taken back.
    pub fn push(&mut self, token: ReplyToken, out: &mut Vec<ReplyPiece>) -> bool {
        let told = out.len();
        self.has_ids |= token.id.is_some();
        if let Some(id) = token.id
            && self.take_marker(id, &token, out)
        {
            return out.len() > told;
        }
        if token.text.is_empty() {
            self.print(&token, out);
        } else if self.is_plain(&token.text) {
            self.bytes_visited += token.text.len() as u64;
            out.push(match self.machine.states[self.at].sink {
                Sink::Thought if self.machine.tells_thoughts => ReplyPiece::Reasoning(token.text),
                _ => ReplyPiece::Text(token.text),
            });
        } else {
            self.text(&token.text, out);
        }
        out.len() > told
    }

    /// Nothing is held, and nothing in the text can be the beginning of a marker.
    fn is_plain(&self, text: &str) -> bool {
        let state = &self.machine.states[self.at];
        matches!(state.sink, Sink::Content | Sink::Thought)
            && self.held.is_empty()
            && !text.bytes().any(|byte| state.starts.contains(byte))
    }

    fn take_marker(&mut self, id: i32, token: &ReplyToken, out: &mut Vec<ReplyPiece>) -> bool {
        let machine = Arc::clone(&self.machine);
        let is_silent = token.text.is_empty();
        let Some(edge) = machine.edge_of_id(self.at, id, is_silent, self.had_thought) else {
            return false;
        };
        if !is_silent && self.is_in_string() {
            return false;
        }
        // The text of a token may begin with the end of the one before.
        let edge = &machine.states[self.at].edges[edge];
        let before = token.text.strip_suffix(edge.text()).unwrap_or(&token.text);
        if !before.is_empty() {
            let at = self.at;
            self.text(before, out);
            self.let_go(out);
            if self.at != at {
                // The text led elsewhere, where the token may be another marker.
                let is_marker = ReplyToken {
                    text: String::new(),
                    id: Some(id),
                };
                self.take_marker(id, &is_marker, out);
                return true;
            }
        } else if let Some(whole) = self.goes_on_with(edge) {
            self.held.clear();
            self.follow(&machine.states[self.at].edges[whole], "", out);
            return true;
        } else if edge.lead().ends_with(&self.held) {
            self.held.clear();
        } else {
            let lead = edge.lead();
            if !lead.is_empty() && self.held.ends_with(lead) {
                self.held.truncate(self.held.len() - lead.len());
            }
            let at = self.at;
            self.let_go(out);
            if self.at != at {
                return self.take_marker(id, token, out);
            }
        }
        self.follow(edge, "", out);
        true
    }

    /// The marker of which the beginning is held and this token is the end.
    fn goes_on_with(&self, token: &Edge) -> Option<usize> {
        if self.held.is_empty() {
            return None;
        }
        let whole = format!("{}{}", self.held, token.text());
        let mut edges = self.machine.states[self.at].edges.iter();
        edges.position(|edge| self.matches(edge, whole.as_bytes()) == (true, whole.len()))
    }

    /// A token that the runtime does not print and this answer is to show.
    fn print(&mut self, token: &ReplyToken, out: &mut Vec<ReplyPiece>) {
        let machine = Arc::clone(&self.machine);
        let mut printed = machine.printed.iter();
        if let Some((_, text)) = printed.find(|(id, _)| Some(*id) == token.id) {
            self.text(text, out);
        }
    }

    /// The answer has ended. `is_complete`: the model ended it; else something cut it.
    pub fn finish(&mut self, is_complete: bool, out: &mut Vec<ReplyPiece>) {
        // The beginning of a marker between the parts of a call, or of one that was cut, says nothing.
        let is_in_gap = matches!(self.machine.states[self.at].sink, Sink::Gap { .. });
        if self.call.is_announced() && (is_in_gap || !is_complete || self.holds_an_end()) {
            self.held.clear();
        }
        self.let_go(out);
        if !self.call.is_announced() {
            self.finish_untold(is_complete, out);
        } else if !is_complete {
            self.cut_call(out);
        } else {
            self.close_call(out);
        }
        self.blank_is_content(out);
    }

    /// The end of a call is all that is held behind a value that was not closed.
    fn holds_an_end(&self) -> bool {
        let state = &self.machine.states[self.at];
        let held = self.held.trim();
        let mut edges = state.edges.iter();
        matches!(state.sink, Sink::Value)
            && edges.any(|edge| {
                matches!(edge.action, Action::EndCall | Action::EndParameters)
                    && edge.text() == held
            })
    }

    /// Something has ended the answer: a call is told as far as it came.
    fn cut_call(&mut self, out: &mut Vec<ReplyPiece>) {
        match self.machine.states[self.at].sink {
            Sink::Value => self.parameters.cut(&mut self.call, out),
            Sink::KeyValues { .. } => self.key_values.cut(&mut self.call, out),
            Sink::Python { .. } => self.python.cut(&mut self.call, out),
            _ => {}
        }
    }

    fn blank_is_content(&mut self, out: &mut Vec<ReplyPiece>) {
        let blank = std::mem::take(&mut self.blank);
        push_text(out, &blank);
    }

    /// What was held is no marker.
    fn let_go(&mut self, out: &mut Vec<ReplyPiece>) {
        let mut held = std::mem::take(&mut self.held);
        let mut at = 0;
        while at < held.len() {
            at += self.feed(&held[at..], out);
        }
        held.clear();
        self.held = held;
    }
}

fn push_text(out: &mut Vec<ReplyPiece>, text: &str) {
    if text.is_empty() {
        return;
    }
    match out.last_mut() {
        Some(ReplyPiece::Text(last)) => last.push_str(text),
        _ => out.push(ReplyPiece::Text(text.to_owned())),
    }
}
