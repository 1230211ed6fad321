//! Writes the events of one stream. Whatever is the same in each event is rendered once, at the
//! stream's start; a token costs two copies and the escaping of its own text.

mod text;

pub(crate) use text::TextWriter;

use bytes::{BufMut, BytesMut};
use serde::Serialize;

use super::answer::{CallForm, ChatForm, ThoughtFields, UsageBody, chat_finish_reason};
use super::logprobs::ChatLogprobs;
use crate::conversation::{ReplyPiece, ScoredText};
use crate::generation::Completion;
use crate::http::dialects::chat_dialect::Identity;
use crate::http::dialects::parameters::SharedParameters;
use crate::http::dialects::timings::TimingsBody;
use crate::http::request::error::RequestError;
use crate::http::request::id;
use crate::http::response::append_json::append_json;
use crate::http::response::event_writer::EventWriter;
use crate::http::response::sse;

const DONE: &[u8] = b"data: [DONE]\n\n";

/// Whether a stream ends with a chunk of token counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsageChunk {
    Wanted,
    NotWanted,
}

/// What the chunks of a stream have in common.
struct Frame {
    usage: UsageChunk,
    object: &'static str,
    identity: Identity,
    /// `data: {"id":…,"model":…,"choices":[`
    head: Box<[u8]>,
    /// `data: {…,"choices":[{"index":…,`
    choice: Box<[u8]>,
}

/// What stands around the text of a token's chunk.
struct AroundText {
    /// From `data:` to the text's opening quote …
    before: Box<[u8]>,
    /// … from its closing quote to where it comes again, if it does …
    again: Option<&'static [u8]>,
    /// … and from behind its closing quote to the blank line.
    after: Box<[u8]>,
}

/// Writes the chunks of a chat.
pub(crate) struct ChatWriter {
    frame: Frame,
    content: AroundText,
    reasoning: AroundText,
    form: ChatForm,
    /// One is whole.
    has_calls: bool,
}

impl Frame {
    fn new(identity: &Identity, object: &'static str, usage: UsageChunk) -> Self {
        Self::of_resumed(identity, object, usage, 0)
    }

    /// For an answer that has gone on with another worker so often.
    fn of_resumed(
        identity: &Identity,
        object: &'static str,
        usage: UsageChunk,
        resumptions: u32,
    ) -> Self {
        #[derive(Serialize)]
        struct Head<'a> {
            id: &'a str,
            object: &'static str,
            created: u64,
            model: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            system_fingerprint: Option<String>,
        }
        let mut head = b"data: ".to_vec();
        append_json(
            &mut head,
            &Head {
                id: &identity.id.0,
                object,
                created: identity.created,
                model: &identity.model,
                system_fingerprint: identity.fingerprint(resumptions),
            },
        );
        // The object goes on.
        head.pop();
        head.extend_from_slice(b",\"choices\":[");
        let index = format!("{{\"index\":{},", identity.choice);
        Self {
            usage,
            object,
            identity: identity.clone(),
            choice: [&head, index.as_bytes()].concat().into(),
            head: head.into(),
        }
    }

    /// Chunks whose one choice is a text between `before` and `after`.
    fn around(&self, before: &[u8], after: &[u8]) -> AroundText {
        AroundText {
            before: [&self.choice, before].concat().into(),
            again: None,
            after: [after, b"]", self.usage.null_field(), b"}\n\n"]
                .concat()
                .into(),
        }
    }

    /// `choice` goes on behind its index.
    fn chunk(&self, choice: &[u8], timings: Option<&TimingsBody>, buffer: &mut BytesMut) {
        buffer.put_slice(&self.choice);
        buffer.put_slice(choice);
        buffer.put_slice(b"]");
        buffer.put_slice(self.usage.null_field());
        if let Some(timings) = timings {
            buffer.put_slice(b",\"timings\":");
            append_json(buffer, timings);
        }
        buffer.put_slice(b"}\n\n");
    }

    /// The chunk of the choice's end.
    fn finished(&self, choice: &str, completion: &Completion, buffer: &mut BytesMut) {
        let timings = TimingsBody::of(&completion.timings);
        match completion.timings.resumptions {
            0 => self.chunk(choice.as_bytes(), timings.as_ref(), buffer),
            resumptions => {
                Self::of_resumed(&self.identity, self.object, self.usage, resumptions).chunk(
                    choice.as_bytes(),
                    timings.as_ref(),
                    buffer,
                );
            }
        }
    }

    /// The usage chunk if it is wanted, and the end mark.
    fn end(&self, all: &Completion, buffer: &mut BytesMut) {
        if self.usage == UsageChunk::Wanted {
            match all.timings.resumptions {
                0 => buffer.put_slice(&self.head),
                resumptions => {
                    let usage = self.usage;
                    let resumed = Self::of_resumed(&self.identity, self.object, usage, resumptions);
                    buffer.put_slice(&resumed.head);
                }
            }
            buffer.put_slice(b"],\"usage\":");
            append_json(buffer, &all.usage.map(UsageBody::of));
            buffer.put_slice(b"}\n\n");
        }
        buffer.put_slice(DONE);
    }
}

impl Frame {
    /// A chunk whose one choice is a text between `before` and `after`, and log probabilities.
    fn scored(
        &self,
        (before, after): (&[u8], &[u8]),
        text: &str,
        logprobs: &impl Serialize,
        buffer: &mut BytesMut,
    ) {
        buffer.put_slice(&self.choice);
        buffer.put_slice(before);
        append_json(buffer, text);
        buffer.put_slice(after);
        buffer.put_slice(b"\"logprobs\":");
        append_json(buffer, logprobs);
        buffer.put_slice(b",\"finish_reason\":null}]");
        buffer.put_slice(self.usage.null_field());
        buffer.put_slice(b"}\n\n");
    }
}

impl AroundText {
    fn write(&self, text: &str, buffer: &mut BytesMut) {
        buffer.reserve(self.before.len() + text.len() + 2 + self.after.len());
        buffer.put_slice(&self.before);
        append_json(buffer, text);
        if let Some(again) = self.again {
            buffer.put_slice(again);
            append_json(buffer, text);
        }
        buffer.put_slice(&self.after);
    }
}

impl UsageChunk {
    pub fn of(shared: &SharedParameters) -> Self {
        match shared.wants_usage() {
            true => Self::Wanted,
            false => Self::NotWanted,
        }
    }

    /// In every chunk but the usage chunk itself.
    fn null_field(self) -> &'static [u8] {
        match self {
            Self::Wanted => b",\"usage\":null",
            Self::NotWanted => b"",
        }
    }
}

#[derive(Serialize)]
struct CallDelta<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: FunctionDelta<'a>,
}

#[derive(Serialize)]
struct FunctionDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

impl ChatWriter {
    pub fn new(identity: &Identity, usage: UsageChunk, form: ChatForm) -> Self {
        let frame = Frame::new(identity, "chat.completion.chunk", usage);
        let content = frame.around(b"\"delta\":{\"content\":", b"},\"finish_reason\":null}");
        let reasoning = AroundText {
            again: match form.thoughts {
                ThoughtFields::ReasoningContent => None,
                ThoughtFields::Both => Some(b",\"reasoning\":"),
            },
            ..frame.around(
                b"\"delta\":{\"reasoning_content\":",
                b"},\"finish_reason\":null}",
            )
        };
        Self {
            frame,
            content,
            reasoning,
            form,
            has_calls: false,
        }
    }

    /// A chunk of a call, between the brackets of `tool_calls` or as `function_call`.
    fn call(&mut self, call: &impl Serialize, buffer: &mut BytesMut) {
        let (open, close): (&[u8], &[u8]) = match self.form.calls {
            CallForm::Tools => (b"\"tool_calls\":[", b"]"),
            CallForm::Old => (b"\"function_call\":", b""),
        };
        buffer.put_slice(&self.frame.choice);
        buffer.put_slice(b"\"delta\":{");
        buffer.put_slice(open);
        append_json(buffer, call);
        buffer.put_slice(close);
        buffer.put_slice(b"},\"finish_reason\":null}]");
        buffer.put_slice(self.frame.usage.null_field());
        buffer.put_slice(b"}\n\n");
    }

    fn begin_call(&mut self, index: u32, id: Option<&str>, name: &str, buffer: &mut BytesMut) {
        let function = FunctionDelta {
            name: Some(name),
            arguments: "",
        };
        match self.form.calls {
            CallForm::Tools => {
                let call = CallDelta {
                    index,
                    id: Some(id.map_or_else(id::for_call, str::to_owned)),
                    r#type: Some("function"),
                    function,
                };
                self.call(&call, buffer);
            }
            // The older form has no second call.
            CallForm::Old if index == 0 => self.call(&function, buffer),
            CallForm::Old => {}
        }
    }

    fn arguments(&mut self, index: u32, delta: &str, buffer: &mut BytesMut) {
        let function = FunctionDelta {
            name: None,
            arguments: delta,
        };
        match self.form.calls {
            CallForm::Tools => {
                let call = CallDelta {
                    index,
                    id: None,
                    r#type: None,
                    function,
                };
                self.call(&call, buffer);
            }
            CallForm::Old if index == 0 => self.call(&function, buffer),
            CallForm::Old => {}
        }
    }
}

impl EventWriter for ChatWriter {
    fn opening(&mut self, buffer: &mut BytesMut) {
        self.frame.chunk(
            b"\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}",
            None,
            buffer,
        );
    }

    fn piece(&mut self, piece: &ReplyPiece, buffer: &mut BytesMut) {
        match piece {
            ReplyPiece::Text(text) => self.content.write(text, buffer),
            ReplyPiece::ScoredText(ScoredText { text, tokens }) => self.frame.scored(
                (b"\"delta\":{\"content\":", b"},"),
                text,
                &ChatLogprobs::of(tokens),
                buffer,
            ),
            // A conversation is not answered with what was said.
            ReplyPiece::PromptLogprobs(_) => {}
            ReplyPiece::Reasoning(text) => self.reasoning.write(text, buffer),
            ReplyPiece::ToolCall { index, id, name } => {
                self.begin_call(*index, id.as_deref(), name, buffer);
            }
            ReplyPiece::ToolArguments { index, delta } => self.arguments(*index, delta, buffer),
            ReplyPiece::ToolCallEnd { .. } => self.has_calls = true,
        }
    }

    fn finished(&mut self, completion: &Completion, buffer: &mut BytesMut) {
        let reason = chat_finish_reason(completion.reason, self.has_calls, self.form);
        let choice = format!("\"delta\":{{}},\"finish_reason\":\"{reason}\"}}");
        self.frame.finished(&choice, completion, buffer);
    }

    fn end(&mut self, all: &Completion, buffer: &mut BytesMut) {
        self.frame.end(all, buffer);
    }

    fn keep_alive(&mut self, buffer: &mut BytesMut) {
        buffer.put_slice(sse::KEEP_ALIVE);
    }

    fn failed(&mut self, error: &RequestError, buffer: &mut BytesMut) {
        sse::write_error(error, buffer);
    }
}

#[cfg(test)]
mod tests;
