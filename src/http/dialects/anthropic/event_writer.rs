//! Writes the events of one stream. Blocks follow each other and none lies in another: whatever is of another
//! kind than what came before ends its block and begins one. What is the same in each event of a block is
//! rendered once, at the block's start; a token costs two copies and the escaping of its own text.

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde_json::json;

use super::answer::{AnswerForm, AnsweredMessage, MessageUsage, stop_reason, stopped_by};
use super::error::AnthropicError;
use super::thinking::{Display, signature};
use crate::conversation::{ReplyPiece, ScoredText};
use crate::generation::{Completion, RequestId};
use crate::http::dialects::chat_dialect::Identity;
use crate::http::request::error::RequestError;
use crate::http::request::id;
use crate::http::response::append_json::append_json;
use crate::http::response::event_writer::EventWriter;

const PING: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";
const STOP: &[u8] = b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
/// Behind the text of a delta.
const END: &[u8] = b"}}\n\n";

pub(crate) struct MessageWriter {
    form: AnswerForm,
    /// What the stream begins with, until it has begun.
    begun: Option<AnsweredMessage>,
    request: RequestId,
    /// The block that is being written.
    open: Option<Block>,
    /// Blocks so far.
    blocks: u32,
    /// A call is whole.
    has_calls: bool,
}

struct Block {
    kind: BlockKind,
    index: u32,
    /// From `event:` to the value of a delta.
    before: Box<[u8]>,
}

#[derive(Debug, PartialEq)]
enum BlockKind {
    Text,
    /// With what of it is not shown.
    Thinking {
        omitted: String,
    },
    ToolUse {
        call: u32,
    },
}

impl MessageWriter {
    pub fn new(identity: &Identity, form: AnswerForm) -> Self {
        Self {
            form,
            begun: Some(AnsweredMessage::begun(identity, form)),
            request: identity.id.clone(),
            open: None,
            blocks: 0,
            has_calls: false,
        }
    }

    fn begin(
        &mut self,
        kind: BlockKind,
        block: &impl Serialize,
        (delta, field): (&str, &str),
        buffer: &mut BytesMut,
    ) {
        self.end_block(buffer);
        let index = self.blocks;
        self.blocks += 1;
        #[derive(Serialize)]
        struct Start<'a, B> {
            r#type: &'static str,
            index: u32,
            content_block: &'a B,
        }
        let start = Start {
            r#type: "content_block_start",
            index,
            content_block: block,
        };
        event(start.r#type, &start, buffer);
        let before = format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{index},\
             \"delta\":{{\"type\":\"{delta}\",\"{field}\":"
        );
        self.open = Some(Block {
            kind,
            index,
            before: before.into_bytes().into(),
        });
    }

    fn end_block(&mut self, buffer: &mut BytesMut) {
        let Some(block) = self.open.take() else {
            return;
        };
        let index = block.index;
        if let BlockKind::Thinking { omitted } = &block.kind {
            let omitted = match self.form.display {
                Display::Shown => None,
                Display::Omitted => Some(omitted.as_str()),
            };
            let delta = json!({
                "type": "content_block_delta", "index": index,
                "delta": {"type": "signature_delta", "signature": signature(omitted)},
            });
            event("content_block_delta", &delta, buffer);
        }
        let stop = format!(
            "event: content_block_stop\ndata: {{\"type\":\"content_block_stop\",\"index\":{index}}}\n\n"
        );
        buffer.put_slice(stop.as_bytes());
    }

    fn text(&mut self, text: &str, buffer: &mut BytesMut) {
        if !self.is_open(|kind| *kind == BlockKind::Text) {
            let block = json!({"type": "text", "text": ""});
            self.begin(BlockKind::Text, &block, ("text_delta", "text"), buffer);
        }
        self.delta(text, buffer);
    }

    fn thought(&mut self, text: &str, buffer: &mut BytesMut) {
        if !self.is_open(|kind| matches!(kind, BlockKind::Thinking { .. })) {
            let block = json!({"type": "thinking", "thinking": "", "signature": ""});
            let kind = BlockKind::Thinking {
                omitted: String::new(),
            };
            self.begin(kind, &block, ("thinking_delta", "thinking"), buffer);
        }
        match (self.form.display, &mut self.open) {
            (
                Display::Omitted,
                Some(Block {
                    kind: BlockKind::Thinking { omitted },
                    ..
                }),
            ) => omitted.push_str(text),
            _ => self.delta(text, buffer),
        }
    }

    fn is_open(&self, is: impl FnOnce(&BlockKind) -> bool) -> bool {
        self.open.as_ref().is_some_and(|block| is(&block.kind))
    }

    fn delta(&self, text: &str, buffer: &mut BytesMut) {
        let Some(block) = &self.open else {
            return;
        };
        buffer.reserve(block.before.len() + text.len() + 2 + END.len());
        buffer.put_slice(&block.before);
        append_json(buffer, text);
        buffer.put_slice(END);
    }
}

fn event(name: &str, data: &impl Serialize, buffer: &mut BytesMut) {
    buffer.put_slice(b"event: ");
    buffer.put_slice(name.as_bytes());
    buffer.put_slice(b"\ndata: ");
    append_json(buffer, data);
    buffer.put_slice(b"\n\n");
}

impl EventWriter for MessageWriter {
    fn opening(&mut self, buffer: &mut BytesMut) {
        #[derive(Serialize)]
        struct Start {
            r#type: &'static str,
            message: AnsweredMessage,
        }
        if let Some(message) = self.begun.take() {
            let r#type = "message_start";
            event(r#type, &Start { r#type, message }, buffer);
            buffer.put_slice(PING);
        }
    }

    fn piece(&mut self, piece: &ReplyPiece, buffer: &mut BytesMut) {
        match piece {
            ReplyPiece::Text(text) | ReplyPiece::ScoredText(ScoredText { text, .. }) => {
                self.text(text, buffer);
            }
            ReplyPiece::PromptLogprobs(_) => {}
            ReplyPiece::Reasoning(text) => self.thought(text, buffer),
            ReplyPiece::ToolCall { index, id, name } => {
                let id = id.clone().unwrap_or_else(id::for_tool_use);
                let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                let kind = BlockKind::ToolUse { call: *index };
                self.begin(kind, &block, ("input_json_delta", "partial_json"), buffer);
            }
            ReplyPiece::ToolArguments { index, delta } => {
                if self.is_open(|kind| *kind == BlockKind::ToolUse { call: *index }) {
                    self.delta(delta, buffer);
                }
            }
            ReplyPiece::ToolCallEnd { .. } => {
                self.has_calls = true;
                self.end_block(buffer);
            }
        }
    }

    fn held_bytes(&self) -> usize {
        match &self.open {
            Some(Block {
                kind: BlockKind::Thinking { omitted },
                ..
            }) => omitted.capacity(),
            _ => 0,
        }
    }

    fn finished(&mut self, completion: &Completion, buffer: &mut BytesMut) {
        self.end_block(buffer);
        let reason = stop_reason(completion, self.has_calls, self.form.max_tokens);
        let delta = json!({
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": stopped_by(reason, completion)},
            "usage": MessageUsage::of(completion),
        });
        event("message_delta", &delta, buffer);
        buffer.put_slice(STOP);
    }

    fn keep_alive(&mut self, buffer: &mut BytesMut) {
        buffer.put_slice(PING);
    }

    fn failed(&mut self, error: &RequestError, buffer: &mut BytesMut) {
        event(
            "error",
            &AnthropicError::of(error, Some(&self.request)),
            buffer,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sent_memory_is_used_again() {
        let identity = Identity {
            id: RequestId("req_1".into()),
            created: 7,
            model: "m".into(),
            fingerprint: None,
            choice: 0,
        };
        let form = AnswerForm {
            max_tokens: 1,
            display: Display::Shown,
            prompt_tokens: None,
        };
        let mut writer = MessageWriter::new(&identity, form);
        let piece = ReplyPiece::Text("a token".to_owned());
        let mut buffer = BytesMut::new();
        let mut places = std::collections::HashSet::new();
        for _ in 0..10_000 {
            writer.piece(&piece, &mut buffer);
            places.insert(buffer.split().freeze().as_ptr() as usize / 65536);
        }
        assert!(places.len() < 16, "{} regions", places.len());
    }
}
