//! Everything that can be wrong with a request before or while it is answered.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use axum::http::StatusCode;

use crate::admission::EmbeddingError;
use crate::constraint::Unenforceable;
use crate::generation::GenerationError;
use crate::http::request::content_coding;
use crate::hub::PullError;
use crate::memory::OverBudget;
use crate::reader::ReaderError;

/// Why a request gets an error instead of its answer. `param` is the path of the offending field in
/// the request body, such as `messages[2].content`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the body is not valid JSON: {reason} (line {line}, column {column})")]
    MalformedJson {
        line: usize,
        column: usize,
        reason: String,
    },
    #[error("the body must be a JSON object")]
    NotAnObject,
    #[error("`{param}` has the wrong type: {reason}")]
    WrongType { param: String, reason: String },
    #[error("`{param}` is required")]
    Missing { param: String },
    #[error("`{param}` {requirement}")]
    OutOfRange {
        param: String,
        requirement: Cow<'static, str>,
    },
    /// Of its objects of any values together, `param` is the one that had no room.
    #[error("`{param}` is too much: `max-values` in the [chat] settings allows {most} values")]
    TooManyValues { param: String, most: usize },
    #[error("`{param}` is not supported: {reason}")]
    Unsupported {
        param: String,
        reason: Cow<'static, str>,
    },
    #[error("the body is larger than {limit_bytes} bytes")]
    BodyTooLarge { limit_bytes: usize },
    #[error("no further byte of the body arrived for {seconds} s")]
    BodyStalled { seconds: u64 },
    #[error("the body arrived at less than {bytes_per_second} bytes a second")]
    BodyTooSlow { bytes_per_second: u32 },
    #[error(
        "bodies of the content coding `{coding}` are not read, only those of {}",
        content_coding::ACCEPTED
    )]
    UnknownCoding { coding: String },
    #[error("of transfer codings only `chunked` is read, and this body comes in `{codings}`")]
    UnknownTransferCoding { codings: String },
    #[error("the body could not be read: {reason}")]
    BodyBroken { reason: String },
    /// No client will read this.
    #[error("the client left before its request was whole")]
    ClientLeft,
    #[error("the model `{model}` does not exist; GET /v1/models lists what is installed")]
    UnknownModel { model: String },
    /// `param` is the request's field that names it; `None`: its path does.
    #[error(
        "the response `{id}` is not kept: there never was one, it has been deleted, or it has made place for newer \
         ones; the [responses] settings say how many are kept, and for how long"
    )]
    UnknownResponse {
        id: String,
        param: Option<&'static str>,
    },
    #[error("the model `{model}` is loading, in use or waited for, so it stays")]
    ModelInUse { model: String },
    #[error("the model `{model}` has no chat template: {advice}")]
    NoChatTemplate { model: String, advice: String },
    #[error("{reason}")]
    TemplateRefused { reason: String, param: &'static str },
    #[error("the chat template of `{model}` cannot be rendered: {reason}")]
    TemplateBroken { model: String, reason: String },
    #[error("`{param}` contains the control token `{token}`")]
    ControlToken { param: String, token: String },
    #[error("there is no {path} here; GET /openapi.json describes what there is")]
    UnknownPath { path: String },
    #[error("{path} is not offered: {instead}")]
    NotOffered { path: String, instead: &'static str },
    #[error("{path} does not answer {method}; the `allow` header says what it answers")]
    MethodNotAllowed { method: String, path: String },
    #[error(
        "HTTP/2 is not spoken here: use HTTP/1.1, or put a proxy in front that speaks HTTP/2 to its \
         clients"
    )]
    Http2,
    #[error("{}", not_http(*status))]
    NotHttp { status: StatusCode },
    #[error("{reason}")]
    BadHost { reason: &'static str },
    #[error(
        "{header} `{value}` is foreign to a listener on {address}, which answers local names only; \
         `allowed-hosts` in the [http] settings admits further ones"
    )]
    ForeignHost {
        header: &'static str,
        value: String,
        address: IpAddr,
    },
    #[error(
        "a page of `{origin}` may change nothing here, be it only what is loaded; `cors-origins` in the \
         [http] settings admits pages"
    )]
    ForeignPage { origin: String },
    #[error(
        "{path} is for admins, and this listener asks no client for a key; `open-admin` in the [http] \
         settings lets all of them"
    )]
    AdminNotOpen { path: String },
    #[error("a key is needed: send it as `Authorization: Bearer KEY` or as `X-API-Key: KEY`")]
    MissingKey,
    #[error("the key is not valid: it is not known, was revoked, or two different ones were sent")]
    InvalidKey,
    #[error("{path} is for admins, and the key `{key}` is a user's")]
    RoleNotAllowed { key: String, path: String },
    #[error(
        "the key `{key}` may not use the model `{model}`; GET /v1/models lists what it may use"
    )]
    ModelNotAllowed { key: String, model: String },
    #[error("an administrator has ended this request")]
    Aborted,
    /// Of a response in the background. No client is told so: it has asked for it.
    #[error("its client has cancelled this response")]
    Cancelled,
    #[error(
        "{most} responses are made in the background for this key already: `max-background-per-key` in the \
         [responses] settings; wait for one, or cancel it"
    )]
    TooManyInBackground { most: usize },
    /// On a WebSocket.
    #[error(
        "a response is made on this connection, which makes one at a time: wait for its end, or use another \
         connection; a message with a `stream_id` waits itself, as long as few do"
    )]
    ResponseInFlight,
    #[error("`stream_id` must be 1 to 256 characters long, of letters, digits, `_`, `-` and `.`")]
    BadStreamName,
    #[error(
        "this connection has named {most} streams, as many as one may: name one of these, or use another connection \
         (`max-streams-per-socket` in the [responses] settings)"
    )]
    TooManyStreams { most: usize },
    #[error(
        "this connection is {} s old, the oldest that one may be: open another (`max-socket-age` in the [responses] \
         settings)", limit.as_secs()
    )]
    SocketTooOld { limit: Duration },
    #[error("no request `{id}` is served now; GET /v1/admin/requests lists those that are")]
    UnknownRequest { id: String },
    #[error("there is no key named `{name}`; GET /v1/admin/keys lists what there is")]
    UnknownKey { name: String },
    #[error("there is a key named `{name}` already; revoke it first, or choose another name")]
    KeyNameTaken { name: String },
    #[error(
        "`{name}` is the last key of an admin, without which nobody could manage keys here; \
         `rkllmd keys revoke {name}` revokes it all the same"
    )]
    LastAdminKey { name: String },
    #[error("the keys cannot be changed from here: {reason}; `rkllmd keys` may be able to")]
    KeysNotWritable { reason: String },
    #[error("the keys cannot be read or changed now: {reason}")]
    KeysUnavailable { reason: String },
    #[error(
        "{most} clients follow the daemon's events already: `max-event-streams` in the [admin] settings"
    )]
    TooManyEventStreams { most: usize },
    #[error("{reason}")]
    NotReady {
        reason: String,
        retry_after_s: Option<u64>,
    },
    #[error("`total_deadline_ms` of {} ms passed before there was an answer", limit.as_millis())]
    OwnDeadline { limit: Duration },
    #[error("{0}")]
    OverBudget(#[from] OverBudget),
    /// `param` is the field that its input came from.
    #[error("{error}")]
    Embedding {
        error: EmbeddingError,
        param: String,
    },
    #[error("the model's hidden states of `{param}` {reason}, so there is no embedding of it")]
    NoEmbedding { param: String, reason: &'static str },
    #[error(
        "the model `{model}` is no reranker: one that was made to judge documents has `[rerank]` in its \
         model.toml"
    )]
    NotAReranker { model: String },
    #[error("what the model answers to `{param}` is no number, so there is no score of it")]
    NoScore { param: String },
    #[error(
        "the tokens of `{model}` are not known, so its answers cannot be kept to a format: put its \
         `tokenizer.json` beside the model's file, in a folder of the model's own"
    )]
    NoTokenizer { model: String },
    #[error("`{param}`: {error}")]
    Unenforceable { error: Unenforceable, param: String },
    #[error("{}", GenerationError::CannotConstrain)]
    CannotConstrain { param: &'static str },
    #[error("`{param}` takes more time or memory than a grammar may")]
    FormatTooComplex { param: &'static str },
    #[error("{0}")]
    Reader(#[from] ReaderError),
    #[error("{0}")]
    Pull(#[from] PullError),
    /// A failure of the generation itself; `prompt_param` is the field its prompt came from.
    #[error("{error}")]
    Generation {
        error: GenerationError,
        prompt_param: &'static str,
    },
}

impl RequestError {
    pub fn out_of_range(param: impl Into<String>, must: impl Into<Cow<'static, str>>) -> Self {
        Self::OutOfRange {
            param: param.into(),
            requirement: must.into(),
        }
    }

    pub fn unsupported(param: impl Into<String>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Unsupported {
            param: param.into(),
            reason: reason.into(),
        }
    }

    pub fn missing(param: impl Into<String>) -> Self {
        Self::Missing {
            param: param.into(),
        }
    }
}

/// What is wrong with a request that could not be read.
fn not_http(status: StatusCode) -> &'static str {
    match status {
        StatusCode::URI_TOO_LONG => "the request's target is too long",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            "the request's header is larger than 32 KiB or has more than 100 fields"
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            "the request's `content-length` is larger than any body may be"
        }
        StatusCode::HTTP_VERSION_NOT_SUPPORTED => "only HTTP/1.1 and HTTP/1.0 are spoken here",
        _ => {
            "what came is no request of HTTP/1.1: its first line or one of its header's fields is malformed"
        }
    }
}

/// Text of a client that is quoted in an error message: short, so that no error repeats a megabyte.
pub(crate) fn quote(text: &str) -> String {
    const MOST_CHARS: usize = 200;
    match text.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
