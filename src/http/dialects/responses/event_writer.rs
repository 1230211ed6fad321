//! Writes the events of one stream. Items follow each other and none lies in another: whatever is of another kind than
//! what came before ends its item and begins one. Each event has the next number. What is the same in each delta of an item
//! is rendered once, at the item's start; a token costs two copies, the escaping of its own text and a number.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde_json::json;

use super::answer::Answered;
use super::error::body;
use super::event_bodies::{CallDone, Event, OfItem, OfPart, OfResponse, OfText};
use super::open_item::{Kind, Open};
use super::output::{
    COMPLETED, IN_PROGRESS, INCOMPLETE, NOTHING, OutputItem, OutputText, QUEUED, ReasoningText,
    takes_nothing,
};
use crate::aside::aside;
use crate::chat::logprobs_bytes;
use crate::conversation::{ReplyPiece, ScoredText, TokenLogprobs};
use crate::generation::{Completion, FinishReason};
use crate::http::dialects::chat_dialect::Identity;
use crate::http::dialects::logprobs::ContentLogprob;
use crate::http::request::error::RequestError;
use crate::http::request::id;
use crate::http::response::append_json::append_json;
use crate::http::response::event_writer::EventWriter;
use crate::http::response::sse::KEEP_ALIVE;

pub(super) const DONE: &[u8] = b"data: [DONE]\n\n";
/// A response is no longer queued.
pub(super) const IN_PROGRESS_EVENT: &str = "response.in_progress";
/// Told of a response in the background before there is a stream.
const QUEUED_EVENTS: [&str; 2] = ["response.created", "response.queued"];
/// Behind the number of a delta.
const END: &[u8] = b"}\n\n";
/// What a delta has beside what is rendered before it and its text.
const ROOM: usize = 64;
/// What was written is there so many times at the end: as it is held, in the last three events of its item, and in the
/// response, as JSON and in its event.
const COPIES: usize = 6;

pub(crate) struct ResponseWriter {
    answered: Arc<Answered>,
    identity: Identity,
    /// Of the next event.
    number: u64,
    /// The item that is being written.
    open: Option<Open>,
    /// Those that have ended.
    items: Vec<OutputItem>,
    /// Bytes of what is repeated at the end, with all of its copies.
    held: usize,
    /// Whether the stream has said that it is made now.
    is_in_progress: bool,
}

impl ResponseWriter {
    pub(super) fn new(identity: &Identity, answered: Arc<Answered>) -> Self {
        let told = match answered.echo.background {
            true => QUEUED_EVENTS.len() as u64,
            false => 0,
        };
        Self {
            answered,
            identity: identity.clone(),
            number: told,
            open: None,
            items: Vec::new(),
            held: 0,
            is_in_progress: false,
        }
    }

    /// What is told of a response in the background before there is a stream.
    pub(super) fn queued(identity: &Identity, answered: &Arc<Answered>) -> Bytes {
        let mut writer = Self::new(identity, Arc::clone(answered));
        writer.goes_on_from(0);
        let mut buffer = BytesMut::new();
        for name in QUEUED_EVENTS {
            writer.of_response(name, QUEUED, &mut buffer);
        }
        buffer.freeze()
    }

    /// Events up to this number have been told.
    pub(super) fn goes_on_from(&mut self, number: u64) {
        self.number = number;
    }

    fn is_made(&mut self, buffer: &mut BytesMut) {
        if !self.is_in_progress {
            self.is_in_progress = true;
            self.of_response(IN_PROGRESS_EVENT, IN_PROGRESS, buffer);
        }
    }

    fn event(&mut self, name: &'static str, body: &impl Serialize, buffer: &mut BytesMut) {
        buffer.put_slice(b"event: ");
        buffer.put_slice(name.as_bytes());
        buffer.put_slice(b"\ndata: ");
        let event = Event {
            r#type: name,
            body,
            sequence_number: self.number,
        };
        append_json(buffer, &event);
        buffer.put_slice(b"\n\n");
        self.number += 1;
    }

    fn of_response(&mut self, name: &'static str, status: &'static str, buffer: &mut BytesMut) {
        let response = self.answered.begun(&self.identity, status);
        self.event(name, &OfResponse { response }, buffer);
    }

    /// Begins an item, of which there is nothing yet.
    fn begin(&mut self, kind: Kind, buffer: &mut BytesMut) {
        self.end_item(COMPLETED, buffer);
        let output_index = self.items.len();
        let id = id::for_item(kind.prefix());
        let item = &kind.item(id.clone());
        let added = OfItem { output_index, item };
        self.event("response.output_item.added", &added, buffer);
        let delta = kind.delta();
        let mut place = format!("\"item_id\":\"{id}\",\"output_index\":{output_index}");
        match &kind {
            Kind::Message { .. } => {
                let part = &OutputText::of(String::new(), Vec::new());
                self.part(
                    "response.content_part.added",
                    (&*id, output_index),
                    part,
                    buffer,
                );
                place.push_str(",\"content_index\":0");
            }
            Kind::Reasoning => {
                let part = &ReasoningText::of(String::new());
                self.part(
                    "response.content_part.added",
                    (&*id, output_index),
                    part,
                    buffer,
                );
                place.push_str(",\"content_index\":0");
            }
            Kind::Call { .. } => {}
        }
        let before = format!("event: {delta}\ndata: {{\"type\":\"{delta}\",{place},\"delta\":");
        self.open = Some(Open {
            kind,
            id,
            text: String::new(),
            before: before.into_bytes().into(),
        });
    }

    fn part(
        &mut self,
        name: &'static str,
        (item_id, output_index): (&str, usize),
        part: &impl Serialize,
        buffer: &mut BytesMut,
    ) {
        let part = OfPart {
            item_id,
            output_index,
            content_index: 0,
            part,
        };
        self.event(name, &part, buffer);
    }

    fn text(&mut self, text: &str, tokens: &[TokenLogprobs], buffer: &mut BytesMut) {
        if !self.is_open(|kind| matches!(kind, Kind::Message { .. })) {
            let logprobs = Vec::new();
            self.begin(Kind::Message { logprobs }, buffer);
        }
        self.delta(text, tokens, buffer);
    }

    fn thought(&mut self, text: &str, buffer: &mut BytesMut) {
        if !self.is_open(|kind| matches!(kind, Kind::Reasoning)) {
            self.begin(Kind::Reasoning, buffer);
        }
        self.delta(text, &[], buffer);
    }

    fn is_open(&self, is: impl FnOnce(&Kind) -> bool) -> bool {
        self.open.as_ref().is_some_and(|open| is(&open.kind))
    }

    fn delta(&mut self, delta: &str, tokens: &[TokenLogprobs], buffer: &mut BytesMut) {
        let Some(Open {
            kind, text, before, ..
        }) = &mut self.open
        else {
            return;
        };
        text.push_str(delta);
        self.held += COPIES * delta.len();
        buffer.reserve(before.len() + delta.len() + ROOM);
        buffer.put_slice(before);
        append_json(buffer, delta);
        if let Kind::Message { logprobs } = kind {
            buffer.put_slice(b",\"logprobs\":");
            let from = logprobs.len();
            logprobs.extend(tokens.iter().map(ContentLogprob::of));
            let new = logprobs.get(from..).unwrap_or_default();
            append_json(buffer, new);
            self.held += COPIES * tokens.iter().map(logprobs_bytes).sum::<usize>();
        }
        buffer.put_slice(b",\"sequence_number\":");
        append_json(buffer, &self.number);
        buffer.put_slice(END);
        self.number += 1;
    }

    /// Ends the item that is open, if one is.
    fn end_item(&mut self, item_status: &'static str, buffer: &mut BytesMut) {
        let Some(Open { kind, id, text, .. }) = self.open.take() else {
            return;
        };
        let output_index = self.items.len();
        let at = (&*id, output_index);
        let item_status = kind.ended(item_status);
        let item = match kind {
            Kind::Message { logprobs } => {
                self.text_done(
                    "response.output_text.done",
                    at,
                    &text,
                    Some(&logprobs[..]),
                    buffer,
                );
                let part = OutputText::of(text, logprobs);
                self.part("response.content_part.done", at, &part, buffer);
                OutputItem::message(id, item_status, vec![part])
            }
            Kind::Reasoning => {
                self.text_done("response.reasoning_text.done", at, &text, None, buffer);
                let part = ReasoningText::of(text);
                self.part("response.content_part.done", at, &part, buffer);
                let sealing = self.answered.sealing.as_ref();
                OutputItem::reasoning(id, item_status, Some(part.text), sealing)
            }
            Kind::Call { call_id, name, .. } => {
                let done = CallDone {
                    item_id: &id,
                    output_index,
                    name: &name,
                    arguments: &text,
                };
                self.event("response.function_call_arguments.done", &done, buffer);
                OutputItem::FunctionCall {
                    id,
                    status: item_status,
                    call_id,
                    name,
                    arguments: text,
                }
            }
        };
        let done = OfItem {
            output_index,
            item: &item,
        };
        self.event("response.output_item.done", &done, buffer);
        self.items.push(item);
    }

    fn text_done(
        &mut self,
        name: &'static str,
        (item_id, output_index): (&str, usize),
        text: &str,
        logprobs: Option<&[ContentLogprob]>,
        buffer: &mut BytesMut,
    ) {
        let done = OfText {
            item_id,
            output_index,
            content_index: 0,
            text,
            logprobs,
        };
        self.event(name, &done, buffer);
    }
}

impl EventWriter for ResponseWriter {
    fn opening(&mut self, buffer: &mut BytesMut) {
        if !self.answered.echo.background {
            self.of_response("response.created", IN_PROGRESS, buffer);
            self.is_made(buffer);
        }
    }

    fn started(&mut self, buffer: &mut BytesMut) {
        self.is_made(buffer);
    }

    fn piece(&mut self, piece: &ReplyPiece, buffer: &mut BytesMut) {
        self.is_made(buffer);
        match piece {
            ReplyPiece::Text(text) => self.text(text, &[], buffer),
            ReplyPiece::ScoredText(ScoredText { text, tokens }) => self.text(text, tokens, buffer),
            ReplyPiece::PromptLogprobs(_) => {}
            ReplyPiece::Reasoning(text) => self.thought(text, buffer),
            ReplyPiece::ToolCall { index, id, name } => {
                let kind = Kind::Call {
                    index: *index,
                    call_id: id.clone().unwrap_or_else(id::for_call),
                    name: name.clone(),
                    is_whole: false,
                };
                self.held += COPIES * name.len();
                self.begin(kind, buffer);
            }
            ReplyPiece::ToolArguments { index, delta } => {
                if self
                    .is_open(|kind| matches!(kind, Kind::Call { index: open, .. } if open == index))
                {
                    self.delta(delta, &[], buffer);
                }
            }
            ReplyPiece::ToolCallEnd { .. } => {
                let open = self.open.as_ref();
                if open.is_some_and(|open| takes_nothing(&open.text)) {
                    self.delta(NOTHING, &[], buffer);
                }
                if let Some(open) = &mut self.open {
                    open.kind.makes_whole();
                }
                self.end_item(COMPLETED, buffer);
            }
        }
    }

    fn held_bytes(&self) -> usize {
        self.held
    }

    fn finished(&mut self, completion: &Completion, buffer: &mut BytesMut) {
        let (item_status, name) = match self.answered.reason(completion) {
            FinishReason::Stop => (COMPLETED, "response.completed"),
            FinishReason::Length => (INCOMPLETE, "response.incomplete"),
        };
        self.is_made(buffer);
        self.end_item(item_status, buffer);
        let output = std::mem::take(&mut self.items);
        let end = || self.answered.ended(&self.identity, output, completion);
        // All of the response once more.
        let response = aside(self.held, end).expect("these types have JSON forms");
        let head = format!(
            "event: {name}\ndata: {{\"type\":\"{name}\",\"sequence_number\":{},\"response\":",
            self.number
        );
        self.number += 1;
        buffer.put_slice(head.as_bytes());
        buffer.put_slice(&response);
        buffer.put_slice(END);
        buffer.put_slice(DONE);
    }

    fn keep_alive(&mut self, buffer: &mut BytesMut) {
        buffer.put_slice(KEEP_ALIVE);
    }

    fn failed(&mut self, error: &RequestError, buffer: &mut BytesMut) {
        self.end_item(INCOMPLETE, buffer);
        if matches!(error, RequestError::Cancelled) {
            let output = std::mem::take(&mut self.items);
            let response = self.answered.failed(&self.identity, output, None);
            self.event("response.failed", &OfResponse { response }, buffer);
            buffer.put_slice(DONE);
            return;
        }
        let body = body(error);
        // Flat as OpenAI has it, and as an object, by which its own clients know it.
        let flat = json!({
            "code": body.error.code,
            "message": body.error.message,
            "param": body.error.param,
            "error": body.error,
        });
        self.event("error", &flat, buffer);
        let output = std::mem::take(&mut self.items);
        let response = self.answered.failed(&self.identity, output, Some(&body));
        self.event("response.failed", &OfResponse { response }, buffer);
        buffer.put_slice(DONE);
    }
}

#[cfg(test)]
mod tests;
