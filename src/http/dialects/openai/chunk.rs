//! Writes the events of one stream. Whatever is the same in each event is rendered once, at the
//! stream's start; a token costs two copies and the escaping of its own text.

use bytes::{BufMut, BytesMut};
use serde::Serialize;

use super::answer::{
    CallForm, ChatForm, ThoughtFields, TimingsBody, UsageBody, chat_finish_reason, finish_reason,
};
use crate::conversation::ReplyPiece;
use crate::generation::Completion;
use crate::http::dialects::chat_dialect::Identity;
use crate::http::request::error::RequestError;
use crate::http::request::id;
use crate::http::response::error_body::ErrorBody;
use crate::http::response::event_writer::EventWriter;

const DONE: &[u8] = b"data: [DONE]\n\n";
/// No blank line after it: to a reader of events it is a part of the next one.
const KEEP_ALIVE: &[u8] = b": keep-alive\n";

/// Whether a stream ends with a chunk of token counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsageChunk {
    Wanted,
    NotWanted,
}

/// What the chunks of a stream have in common.
struct Frame {
    usage: UsageChunk,
    /// `data: {"id":…,"model":…,"choices":[`
    head: Box<[u8]>,
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
    form: CallForm,
    /// One is whole.
    has_calls: bool,
}

/// Writes the chunks of a continued text.
pub(crate) struct TextWriter {
    frame: Frame,
    text: AroundText,
}

impl Frame {
    fn new(identity: &Identity, object: &'static str, usage: UsageChunk) -> Self {
        #[derive(Serialize)]
        struct Head<'a> {
            id: &'a str,
            object: &'static str,
            created: u64,
            model: &'a str,
        }
        let mut head = b"data: ".to_vec();
        append_json(
            &mut head,
            &Head {
                id: &identity.id.0,
                object,
                created: identity.created,
                model: &identity.model,
            },
        );
        // The object goes on.
        head.pop();
        head.extend_from_slice(b",\"choices\":[");
        Self {
            usage,
            head: head.into(),
        }
    }

    /// Chunks whose one choice is a text between `before` and `after`.
    fn around(&self, before: &[u8], after: &[u8]) -> AroundText {
        AroundText {
            before: [&self.head, before].concat().into(),
            again: None,
            after: [after, b"]", self.usage.null_field(), b"}\n\n"]
                .concat()
                .into(),
        }
    }

    fn chunk(&self, choice: &[u8], timings: Option<&TimingsBody>, buffer: &mut BytesMut) {
        buffer.put_slice(&self.head);
        buffer.put_slice(choice);
        buffer.put_slice(b"]");
        buffer.put_slice(self.usage.null_field());
        if let Some(timings) = timings {
            buffer.put_slice(b",\"timings\":");
            append_json(buffer, timings);
        }
        buffer.put_slice(b"}\n\n");
    }

    /// The chunk of the last choice, the usage chunk if it is wanted, and the end mark.
    fn end(&self, choice: &str, completion: &Completion, buffer: &mut BytesMut) {
        let timings = TimingsBody::of(&completion.timings);
        self.chunk(choice.as_bytes(), timings.as_ref(), buffer);
        if self.usage == UsageChunk::Wanted {
            buffer.put_slice(&self.head);
            buffer.put_slice(b"],\"usage\":");
            append_json(buffer, &completion.usage.map(UsageBody::of));
            buffer.put_slice(b"}\n\n");
        }
        buffer.put_slice(DONE);
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
        let content = frame.around(
            b"{\"index\":0,\"delta\":{\"content\":",
            b"},\"finish_reason\":null}",
        );
        let reasoning = AroundText {
            again: match form.thoughts {
                ThoughtFields::ReasoningContent => None,
                ThoughtFields::Both => Some(b",\"reasoning\":"),
            },
            ..frame.around(
                b"{\"index\":0,\"delta\":{\"reasoning_content\":",
                b"},\"finish_reason\":null}",
            )
        };
        Self {
            frame,
            content,
            reasoning,
            form: form.calls,
            has_calls: false,
        }
    }

    /// A chunk of a call, between the brackets of `tool_calls` or as `function_call`.
    fn call(&mut self, call: &impl Serialize, buffer: &mut BytesMut) {
        let (open, close): (&[u8], &[u8]) = match self.form {
            CallForm::Tools => (b"\"tool_calls\":[", b"]"),
            CallForm::Old => (b"\"function_call\":", b""),
        };
        buffer.put_slice(&self.frame.head);
        buffer.put_slice(b"{\"index\":0,\"delta\":{");
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
        match self.form {
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
        match self.form {
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
            b"{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}",
            None,
            buffer,
        );
    }

    fn piece(&mut self, piece: &ReplyPiece, buffer: &mut BytesMut) {
        match piece {
            ReplyPiece::Text(text) => self.content.write(text, buffer),
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
        let choice = format!("{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"{reason}\"}}");
        self.frame.end(&choice, completion, buffer);
    }

    fn keep_alive(&mut self, buffer: &mut BytesMut) {
        buffer.put_slice(KEEP_ALIVE);
    }

    fn failed(&mut self, error: &RequestError, buffer: &mut BytesMut) {
        write_error(error, buffer);
    }
}

impl TextWriter {
    pub fn new(identity: &Identity, usage: UsageChunk) -> Self {
        let frame = Frame::new(identity, "text_completion", usage);
        let text = frame.around(
            b"{\"index\":0,\"text\":",
            b",\"logprobs\":null,\"finish_reason\":null}",
        );
        Self { frame, text }
    }
}

impl EventWriter for TextWriter {
    fn opening(&mut self, _buffer: &mut BytesMut) {}

    fn piece(&mut self, piece: &ReplyPiece, buffer: &mut BytesMut) {
        // Of a text that is no conversation there are no other pieces.
        if let ReplyPiece::Text(text) = piece {
            self.text.write(text, buffer);
        }
    }

    fn finished(&mut self, completion: &Completion, buffer: &mut BytesMut) {
        let reason = finish_reason(completion.reason);
        let choice = format!(
            "{{\"index\":0,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"{reason}\"}}"
        );
        self.frame.end(&choice, completion, buffer);
    }

    fn keep_alive(&mut self, buffer: &mut BytesMut) {
        buffer.put_slice(KEEP_ALIVE);
    }

    fn failed(&mut self, error: &RequestError, buffer: &mut BytesMut) {
        write_error(error, buffer);
    }
}

fn write_error(error: &RequestError, buffer: &mut BytesMut) {
    buffer.put_slice(b"data: ");
    append_json(buffer, &ErrorBody::of(error));
    buffer.put_slice(b"\n\n");
}

fn append_json<T: Serialize + ?Sized>(buffer: &mut (impl BufMut + ?Sized), value: &T) {
    serde_json::to_writer(buffer.writer(), value)
        .expect("a buffer in memory takes everything, and these types have JSON forms");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::RequestId;

    fn writer(model: &str) -> ChatWriter {
        let identity = Identity {
            id: RequestId("chatcmpl-1".into()),
            created: 7,
            model: model.into(),
        };
        let form = ChatForm {
            calls: CallForm::Tools,
            thoughts: ThoughtFields::ReasoningContent,
        };
        ChatWriter::new(&identity, UsageChunk::NotWanted, form)
    }

    #[test]
    fn whatever_is_in_names_and_texts_the_json_holds() {
        let mut writer = writer("we\"ird\\na\nme");
        let text = "\"quoted\" \\ back\nline\u{0}\u{7f}\u{2028}😀";
        let mut buffer = BytesMut::new();
        writer.piece(&ReplyPiece::Text(text.to_owned()), &mut buffer);
        let event = String::from_utf8(buffer.to_vec()).unwrap();
        let data = event.strip_prefix("data: ").unwrap();
        let data = data.strip_suffix("\n\n").unwrap();
        assert!(!data.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(value["choices"][0]["delta"]["content"], text);
        assert_eq!(value["model"], "we\"ird\\na\nme");
    }

    #[test]
    fn sent_memory_is_used_again() {
        let mut writer = writer("m");
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
