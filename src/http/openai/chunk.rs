//! Writes the events of one stream. Whatever is the same in each event is rendered once, at the
//! stream's start; a token costs two copies and the escaping of its own text.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use utoipa::ToSchema;

use super::Endpoint;
use super::answer::{Identity, TextChoice, TimingsBody, UsageBody, finish_reason};
use crate::generation::Completion;
use crate::http::error_body::ErrorBody;
use crate::http::request_error::RequestError;

const DONE: &[u8] = b"data: [DONE]\n\n";
/// No blank line after it: to a reader of events it is a part of the next one.
const KEEP_ALIVE: &[u8] = b": keep-alive\n";

/// An event of a streamed chat answer.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "describes in the OpenAPI document what the writer writes"
)]
pub(crate) struct ChatChunk {
    /// The same in every chunk of a stream.
    id: String,
    /// Always `chat.completion.chunk`.
    #[schema(example = "chat.completion.chunk")]
    object: String,
    /// Seconds since the epoch, the same in every chunk.
    created: u64,
    /// Id of the model that answers.
    model: String,
    /// One, or none in the usage chunk.
    choices: Vec<ChunkChoice>,
    /// Only with `stream_options.include_usage`: null in every chunk but the last.
    #[schema(required = false)]
    usage: Option<UsageBody>,
    /// In the chunk with a finish reason.
    #[schema(required = false)]
    timings: Option<TimingsBody>,
}

/// A piece of the answer.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "describes in the OpenAPI document what the writer writes"
)]
pub(crate) struct ChunkChoice {
    /// Always 0.
    index: u32,
    delta: Delta,
    /// Null in all chunks but the last one with a choice: `stop` or `length`.
    #[schema(required, example = "stop")]
    finish_reason: Option<String>,
}

/// What is new.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "describes in the OpenAPI document what the writer writes"
)]
pub(crate) struct Delta {
    /// In the first chunk: `assistant`.
    #[schema(required = false)]
    role: Option<String>,
    /// One token's text, or empty in the first chunk.
    #[schema(required = false)]
    content: Option<String>,
}

/// An event of a streamed `/v1/completions` answer.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "describes in the OpenAPI document what the writer writes"
)]
pub(crate) struct TextChunk {
    /// The same in every chunk of a stream.
    id: String,
    /// Always `text_completion`.
    #[schema(example = "text_completion")]
    object: String,
    /// Seconds since the epoch, the same in every chunk.
    created: u64,
    /// Id of the model that answers.
    model: String,
    /// One, or none in the usage chunk.
    choices: Vec<TextChoice>,
    /// Only with `stream_options.include_usage`: null in every chunk but the last.
    #[schema(required = false)]
    usage: Option<UsageBody>,
    /// In the chunk with a finish reason.
    #[schema(required = false)]
    timings: Option<TimingsBody>,
}

/// Whether a stream ends with a chunk of token counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UsageChunk {
    Wanted,
    NotWanted,
}

/// Appends events to a buffer that is taken as often as the socket can take it.
pub(super) struct ChunkWriter {
    endpoint: Endpoint,
    usage: UsageChunk,
    /// `data: {"id":…,"model":…,"choices":[`
    head: Box<[u8]>,
    /// From `data:` to the quote before a token's text …
    before_text: Box<[u8]>,
    /// … and from the quote behind it to the blank line.
    after_text: Box<[u8]>,
    buffer: BytesMut,
}

impl ChunkWriter {
    pub fn new(identity: &Identity, usage: UsageChunk) -> Self {
        #[derive(Serialize)]
        struct Head<'a> {
            id: &'a str,
            object: &'static str,
            created: u64,
            model: &'a str,
        }
        let object = match identity.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Text => "text_completion",
        };
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
        let (before, after): (&[u8], &[u8]) = match identity.endpoint {
            Endpoint::Chat => (
                b"{\"index\":0,\"delta\":{\"content\":",
                b"},\"finish_reason\":null}]",
            ),
            Endpoint::Text => (
                b"{\"index\":0,\"text\":",
                b",\"logprobs\":null,\"finish_reason\":null}]",
            ),
        };
        let before_text = [&head, before].concat().into();
        let after_text = [after, usage.null_field(), b"}\n\n"].concat().into();
        Self {
            endpoint: identity.endpoint,
            usage,
            head: head.into(),
            before_text,
            after_text,
            buffer: BytesMut::new(),
        }
    }

    /// What a stream begins with; nothing for a text completion.
    pub fn opening(&mut self) {
        if self.endpoint == Endpoint::Chat {
            self.chunk(
                b"{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}",
                None,
            );
        }
    }

    /// One token's text as one event.
    pub fn text(&mut self, text: &str) {
        self.buffer
            .reserve(self.before_text.len() + text.len() + 2 + self.after_text.len());
        self.buffer.put_slice(&self.before_text);
        append_json(&mut self.buffer, text);
        self.buffer.put_slice(&self.after_text);
    }

    /// The final chunk, the usage chunk if it is wanted, and the end mark.
    pub fn finish(&mut self, completion: &Completion) {
        let reason = finish_reason(completion.reason);
        let choice = match self.endpoint {
            Endpoint::Chat => {
                format!("{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"{reason}\"}}")
            }
            Endpoint::Text => format!(
                "{{\"index\":0,\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"{reason}\"}}"
            ),
        };
        self.chunk(
            choice.as_bytes(),
            TimingsBody::of(&completion.timings).as_ref(),
        );
        if self.usage == UsageChunk::Wanted {
            self.buffer.put_slice(&self.head);
            self.buffer.put_slice(b"],\"usage\":");
            append_json(&mut self.buffer, &completion.usage.map(UsageBody::of));
            self.buffer.put_slice(b"}\n\n");
        }
        self.buffer.put_slice(DONE);
    }

    /// An error is the last event of its stream.
    pub fn error(&mut self, error: &RequestError) {
        self.buffer.put_slice(b"data: ");
        append_json(&mut self.buffer, &ErrorBody::of(error));
        self.buffer.put_slice(b"\n\n");
    }

    pub fn keep_alive(&mut self) {
        self.buffer.put_slice(KEEP_ALIVE);
    }

    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// What was written since the last call. Once it has been sent its memory is used again.
    pub fn take(&mut self) -> Bytes {
        self.buffer.split().freeze()
    }

    fn chunk(&mut self, choice: &[u8], timings: Option<&TimingsBody>) {
        self.buffer.put_slice(&self.head);
        self.buffer.put_slice(choice);
        self.buffer.put_slice(b"]");
        self.buffer.put_slice(self.usage.null_field());
        if let Some(timings) = timings {
            self.buffer.put_slice(b",\"timings\":");
            append_json(&mut self.buffer, timings);
        }
        self.buffer.put_slice(b"}\n\n");
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

fn append_json<T: Serialize + ?Sized>(buffer: &mut (impl BufMut + ?Sized), value: &T) {
    serde_json::to_writer(buffer.writer(), value)
        .expect("a buffer in memory takes everything, and these types have JSON forms");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::RequestId;

    #[test]
    fn whatever_is_in_names_and_texts_the_json_holds() {
        let identity = Identity {
            endpoint: Endpoint::Chat,
            id: RequestId("chatcmpl-1".into()),
            created: 7,
            model: "we\"ird\\na\nme".into(),
        };
        let mut writer = ChunkWriter::new(&identity, UsageChunk::NotWanted);
        let text = "\"quoted\" \\ back\nline\u{0}\u{7f}\u{2028}😀";
        writer.text(text);
        let event = String::from_utf8(writer.take().to_vec()).unwrap();
        let data = event.strip_prefix("data: ").unwrap();
        let data = data.strip_suffix("\n\n").unwrap();
        assert!(!data.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(value["choices"][0]["delta"]["content"], text);
        assert_eq!(value["model"], "we\"ird\\na\nme");
    }

    #[test]
    fn sent_memory_is_used_again() {
        let identity = Identity {
            endpoint: Endpoint::Chat,
            id: RequestId("chatcmpl-1".into()),
            created: 7,
            model: "m".into(),
        };
        let mut writer = ChunkWriter::new(&identity, UsageChunk::NotWanted);
        let mut places = std::collections::HashSet::new();
        for _ in 0..10_000 {
            writer.text("a token");
            places.insert(writer.take().as_ptr() as usize / 65536);
        }
        assert!(places.len() < 16, "{} regions", places.len());
    }
}
