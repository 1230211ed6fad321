//! Writes the lines of one stream. Whatever is the same in each line is rendered once, at the stream's
//! start; a token costs three copies, nine digits and the escaping of its own text. Only calls are held
//! back until they are whole, because clients take them in one piece.

use std::marker::PhantomData;

use bytes::{BufMut, BytesMut};
use serde::Serialize;

use super::answer::{Begun, ChatAnswer, Figures, TextAnswer, done_reason};
use super::error::OllamaError;
use super::told_calls::ToldCall;
use crate::chat::WholeCall;
use crate::conversation::{ReplyPiece, ScoredText};
use crate::generation::Completion;
use crate::http::dialects::logprobs::ContentLogprob;
use crate::http::dialects::whole_calls::as_content;
use crate::http::request::error::RequestError;
use crate::http::response::append_json::append_json;
use crate::http::response::clock::Clock;
use crate::http::response::event_writer::EventWriter;

/// White space before a line means nothing to who reads JSON, and an empty line is none.
const KEEP_ALIVE: &[u8] = b" ";
const END: &[u8] = b",\"done\":false}\n";

/// What lines of an endpoint are made of, around their texts.
pub(crate) trait LineShape: Send + Unpin + 'static {
    /// Behind the time, up to the content …
    const CONTENT: &'static [u8];
    /// … and up to a thought …
    const THINKING: &'static [u8];
    /// … and what closes both.
    const CLOSE: &'static [u8];

    type Last: Serialize;

    /// The last line.
    fn last(begun: &Begun, completion: &Completion) -> Self::Last;
}

/// Lines of `/api/chat`.
pub(crate) struct ChatLines;

/// Lines of `/api/generate`.
pub(crate) struct TextLines;

impl LineShape for ChatLines {
    const CONTENT: &'static [u8] = b"\",\"message\":{\"role\":\"assistant\",\"content\":";
    const THINKING: &'static [u8] =
        b"\",\"message\":{\"role\":\"assistant\",\"content\":\"\",\"thinking\":";
    const CLOSE: &'static [u8] = b"}";

    type Last = ChatAnswer;

    fn last(begun: &Begun, completion: &Completion) -> ChatAnswer {
        let figures = Figures::of(begun, completion);
        ChatAnswer::ended(begun, done_reason(completion.reason), figures)
    }
}

impl LineShape for TextLines {
    const CONTENT: &'static [u8] = b"\",\"response\":";
    const THINKING: &'static [u8] = b"\",\"response\":\"\",\"thinking\":";
    const CLOSE: &'static [u8] = b"";

    type Last = TextAnswer;

    fn last(begun: &Begun, completion: &Completion) -> TextAnswer {
        let figures = Figures::of(begun, completion);
        TextAnswer::ended(begun, done_reason(completion.reason), figures)
    }
}

pub(crate) struct LineWriter<S> {
    begun: Begun,
    /// `{"model":…,"created_at":"`
    head: Box<[u8]>,
    clock: Clock,
    /// The call that is being made.
    call: Option<WholeCall>,
    /// So many were told.
    told: usize,
    shape: PhantomData<S>,
}

impl<S: LineShape> LineWriter<S> {
    pub fn new(begun: Begun) -> Self {
        let mut head = BytesMut::from(&b"{\"model\":"[..]);
        append_json(&mut head, &*begun.model);
        head.put_slice(b",\"created_at\":\"");
        Self {
            begun,
            head: head.to_vec().into(),
            clock: Clock::default(),
            call: None,
            told: 0,
            shape: PhantomData,
        }
    }

    /// A line with `text` behind `before`.
    fn text(&mut self, before: &[u8], text: &str, buffer: &mut BytesMut) {
        buffer.reserve(self.head.len() + 32 + before.len() + text.len() + 4 + END.len());
        buffer.put_slice(&self.head);
        self.clock.write_now(buffer);
        buffer.put_slice(before);
        append_json(buffer, text);
        buffer.put_slice(S::CLOSE);
        buffer.put_slice(END);
    }

    /// A line with a text and how likely its tokens were.
    fn scored(&mut self, ScoredText { text, tokens }: &ScoredText, buffer: &mut BytesMut) {
        let logprobs: Vec<ContentLogprob> = tokens.iter().map(ContentLogprob::of).collect();
        buffer.put_slice(&self.head);
        self.clock.write_now(buffer);
        buffer.put_slice(S::CONTENT);
        append_json(buffer, text);
        buffer.put_slice(S::CLOSE);
        buffer.put_slice(b",\"logprobs\":");
        append_json(buffer, &logprobs);
        buffer.put_slice(END);
    }

    /// A call that did not come to its end is content.
    fn leave_call(&mut self, buffer: &mut BytesMut) {
        if let Some(call) = self.call.take() {
            self.text(S::CONTENT, &as_content(&call), buffer);
        }
    }

    fn tell(&mut self, call: &ToldCall, buffer: &mut BytesMut) {
        self.told += 1;
        buffer.put_slice(&self.head);
        self.clock.write_now(buffer);
        buffer.put_slice(S::CONTENT);
        buffer.put_slice(b"\"\",\"tool_calls\":[");
        append_json(buffer, call);
        buffer.put_slice(b"]");
        buffer.put_slice(S::CLOSE);
        buffer.put_slice(END);
    }
}

impl<S: LineShape> EventWriter for LineWriter<S> {
    fn opening(&mut self, _buffer: &mut BytesMut) {}

    fn piece(&mut self, piece: &ReplyPiece, buffer: &mut BytesMut) {
        match piece {
            ReplyPiece::Text(text) => self.text(S::CONTENT, text, buffer),
            ReplyPiece::ScoredText(scored) => self.scored(scored, buffer),
            ReplyPiece::PromptLogprobs(_) => {}
            ReplyPiece::Reasoning(text) => self.text(S::THINKING, text, buffer),
            ReplyPiece::ToolCall { id, name, .. } => {
                self.leave_call(buffer);
                self.call = Some(WholeCall {
                    id: id.clone(),
                    name: name.clone(),
                    arguments: String::new(),
                    is_whole: false,
                });
            }
            ReplyPiece::ToolArguments { delta, .. } => {
                if let Some(call) = &mut self.call {
                    call.arguments.push_str(delta);
                }
            }
            ReplyPiece::ToolCallEnd { .. } => {
                let Some(call) = self.call.take() else {
                    return;
                };
                match ToldCall::of(self.told, call) {
                    Ok(call) => self.tell(&call, buffer),
                    Err(text) => self.text(S::CONTENT, &text, buffer),
                }
            }
        }
    }

    fn held_bytes(&self) -> usize {
        self.call
            .as_ref()
            .map_or(0, |call| call.arguments.capacity())
    }

    fn finished(&mut self, completion: &Completion, buffer: &mut BytesMut) {
        self.leave_call(buffer);
        append_json(buffer, &S::last(&self.begun, completion));
        buffer.put_u8(b'\n');
    }

    fn keep_alive(&mut self, buffer: &mut BytesMut) {
        buffer.put_slice(KEEP_ALIVE);
    }

    fn failed(&mut self, error: &RequestError, buffer: &mut BytesMut) {
        append_json(buffer, &OllamaError::of(error));
        buffer.put_u8(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::Value;

    use super::super::context::NextContext;
    use super::*;

    fn writer<S: LineShape>(model: &str) -> LineWriter<S> {
        LineWriter::new(Begun {
            model: model.into(),
            at: Instant::now(),
            context: NextContext::default(),
        })
    }

    fn line<S: LineShape>(writer: &mut LineWriter<S>, piece: ReplyPiece) -> Value {
        let mut buffer = BytesMut::new();
        writer.piece(&piece, &mut buffer);
        let line = String::from_utf8(buffer.to_vec()).expect("a text");
        let line = line.strip_suffix('\n').expect("a line");
        assert!(!line.contains('\n'), "{line}");
        serde_json::from_str(line).expect("JSON")
    }

    #[test]
    fn whatever_is_in_names_and_texts_the_json_holds() {
        let model = "we\"ird\\na\nme";
        let text = "\"quoted\" \\ back\nline\u{0}\u{7f}\u{2028}😀";
        let mut chat = writer::<ChatLines>(model);
        let said = line(&mut chat, ReplyPiece::Text(text.to_owned()));
        assert_eq!(
            (&said["model"], &said["done"]),
            (&model.into(), &false.into())
        );
        assert_eq!(said["message"]["content"], text);
        let thought = line(&mut chat, ReplyPiece::Reasoning(text.to_owned()));
        assert_eq!(thought["message"]["content"], "");
        assert_eq!(thought["message"]["thinking"], text);
        let mut generate = writer::<TextLines>(model);
        let said = line(&mut generate, ReplyPiece::Text(text.to_owned()));
        assert_eq!(said["response"], text);
        let thought = line(&mut generate, ReplyPiece::Reasoning(text.to_owned()));
        assert_eq!(
            (&thought["response"], &thought["thinking"]),
            (&"".into(), &text.into())
        );
    }

    #[test]
    fn a_call_comes_in_one_line_when_it_is_whole() {
        let mut chat = writer::<ChatLines>("m");
        let mut buffer = BytesMut::new();
        let begin = ReplyPiece::ToolCall {
            index: 1,
            id: None,
            name: "f".to_owned(),
        };
        chat.piece(&begin, &mut buffer);
        for delta in ["{\n\"a\": ", "1}"] {
            let delta = delta.to_owned();
            chat.piece(&ReplyPiece::ToolArguments { index: 1, delta }, &mut buffer);
        }
        assert!(buffer.is_empty());
        let told = line(&mut chat, ReplyPiece::ToolCallEnd { index: 1 });
        let call = &told["message"]["tool_calls"][0];
        assert_eq!(told["message"]["content"], "");
        assert!(
            call["id"]
                .as_str()
                .is_some_and(|id| id.starts_with("call_"))
        );
        assert_eq!(
            call["function"],
            serde_json::json!({"index": 0, "name": "f", "arguments": {"a": 1}})
        );
    }

    #[test]
    fn sent_memory_is_used_again() {
        let mut writer = writer::<ChatLines>("m");
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
