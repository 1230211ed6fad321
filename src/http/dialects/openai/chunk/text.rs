//! Writes the events of a text that is continued.

use bytes::{BufMut, BytesMut};

use super::{AroundText, Frame, UsageChunk};
use crate::conversation::{ReplyPiece, ScoredText, TokenLogprobs};
use crate::generation::Completion;
use crate::http::dialects::chat_dialect::Identity;
use crate::http::dialects::openai::answer::{TextForm, finish_reason};
use crate::http::dialects::openai::logprobs::{Offset, TextLogprobs};
use crate::http::request::error::RequestError;
use crate::http::response::event_writer::EventWriter;
use crate::http::response::sse;

/// Writes the chunks of a continued text.
pub(crate) struct TextWriter {
    frame: Frame,
    text: AroundText,
    form: TextForm,
    /// Where the next token begins.
    offset: Offset,
}

impl TextWriter {
    pub fn new(identity: &Identity, usage: UsageChunk, form: TextForm) -> Self {
        let frame = Frame::new(identity, "text_completion", usage);
        let text = frame.around(b"\"text\":", b",\"logprobs\":null,\"finish_reason\":null}");
        Self {
            frame,
            text,
            form,
            offset: Offset::default(),
        }
    }

    fn scored(&mut self, text: &str, tokens: &[TokenLogprobs], buffer: &mut BytesMut) {
        let mut logprobs = TextLogprobs::default();
        logprobs.push(tokens, &mut self.offset);
        let around: (&[u8], &[u8]) = (b"\"text\":", b",");
        self.frame.scored(around, text, &logprobs, buffer);
    }

    /// What of the prompt stands before the answer and was not told.
    fn rest_of_echo(&mut self, buffer: &mut BytesMut) {
        let Some(mut echo) = self.form.echo.take() else {
            return;
        };
        let rest = echo.rest();
        if !rest.is_empty() {
            self.text.write(rest, buffer);
        }
        self.offset = Offset::behind(echo.prompt());
    }
}

impl EventWriter for TextWriter {
    fn opening(&mut self, buffer: &mut BytesMut) {
        if !self.form.tells_logprobs {
            self.rest_of_echo(buffer);
        }
    }

    fn piece(&mut self, piece: &ReplyPiece, buffer: &mut BytesMut) {
        if let ReplyPiece::PromptLogprobs(tokens) = piece {
            let mut tokens = tokens.clone();
            let echo = self.form.echo.as_mut();
            let text = echo.map(|echo| echo.next(&mut tokens).to_owned());
            self.scored(&text.unwrap_or_default(), &tokens, buffer);
            return;
        }
        self.rest_of_echo(buffer);
        match piece {
            ReplyPiece::Text(text) => self.text.write(text, buffer),
            ReplyPiece::ScoredText(ScoredText { text, tokens }) => {
                self.scored(text, tokens, buffer);
            }
            // Of a text that is no conversation there are no other pieces.
            _ => {}
        }
    }

    fn finished(&mut self, completion: &Completion, buffer: &mut BytesMut) {
        self.rest_of_echo(buffer);
        let reason = finish_reason(completion.reason);
        let choice = format!("\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"{reason}\"}}");
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
