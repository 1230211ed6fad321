//! `POST /tokenize` and `POST /detokenize`: texts as the model's tokens, and back.

use std::io;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use super::named::this_or_the_only;
use crate::aside::aside;
use crate::generation::GenerationError;
use crate::http::HttpState;
use crate::http::dialects::ended;
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::parsed::parsed;
use crate::http::response::error_body::ErrorBody;
use crate::models::InstalledModel;
use crate::reader::{Encoded, Encoding};

/// What a token given as a number counts as, against the limit on a text's bytes.
const BYTES_PER_TOKEN: usize = 4;
/// What the reader's answer takes at most for each byte of a text, where a byte is a token: its id, and in
/// the frame a byte or more. As much again with pieces, for their lengths and bytes.
const DECODED_BYTES_PER_BYTE: usize = 6;
/// What a token's text takes at most in vocabularies that were not made to harm. Of others it is charged
/// when it is there.
const TEXT_BYTES_PER_TOKEN: usize = 64;

/// A text to be made into tokens.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct TokenizeRequest {
    /// Id or alias of an installed model; may be left out where one is installed.
    model: Option<String>,
    /// The text. Texts of special tokens in it become those tokens.
    #[schema(required, nullable = false)]
    content: Option<String>,
    /// Add the special tokens that belong around a text. Default false.
    add_special: Option<bool>,
    /// Whether texts of special tokens become those tokens; only true.
    #[schema(default = true)]
    parse_special: Option<bool>,
    /// Answer each token with its text. Default false.
    with_pieces: Option<bool>,
}

/// The tokens of a text.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "it describes what is written from what the reader sent"
)]
pub(crate) struct Tokenized {
    tokens: Tokens,
}

/// Ids, or with `with_pieces` ids with their texts.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "likewise")]
pub(crate) enum Tokens {
    Ids(Vec<u32>),
    Pieces(Vec<TokenPiece>),
}

/// A token and what it stands for.
#[derive(ToSchema)]
#[expect(dead_code, reason = "likewise")]
pub(crate) struct TokenPiece {
    /// The token's id.
    id: u32,
    piece: Piece,
}

/// A token's text, or its bytes where they are part of a character.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "likewise")]
pub(crate) enum Piece {
    Text(String),
    Bytes(Vec<u8>),
}

/// Tokens to be made into a text.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct DetokenizeRequest {
    /// Id or alias of an installed model; may be left out where one is installed.
    model: Option<String>,
    /// Token ids, in order.
    #[schema(required, nullable = false)]
    tokens: Option<Vec<u32>>,
}

/// The text of tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Detokenized {
    /// Special tokens are in it; bytes that are no UTF-8 are U+FFFD.
    content: String,
}

/// A [`Tokenized`] that makes nothing of its tokens before they are written.
#[derive(Serialize)]
struct Written<'a> {
    tokens: WrittenTokens<'a>,
}

struct WrittenTokens<'a>(&'a Encoded);

impl Serialize for WrittenTokens<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Token<'a> {
            id: u32,
            piece: Part<'a>,
        }
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Part<'a> {
            Text(&'a str),
            Bytes(&'a [u8]),
        }
        let Encoded { tokens, pieces } = self.0;
        let Some(pieces) = pieces else {
            return tokens.serialize(serializer);
        };
        serializer.collect_seq(tokens.iter().zip(pieces.iter()).map(|(id, bytes)| Token {
            id: *id,
            piece: match std::str::from_utf8(bytes) {
                Ok(text) => Part::Text(text),
                Err(_) => Part::Bytes(bytes),
            },
        }))
    }
}

/// The answer, which may be many times what it is made of, with its bytes charged before there are any.
/// `held_bytes`: of what it is made of, which goes when it is written.
fn written(
    context: &RequestContext,
    answer: &impl Serialize,
    held_bytes: usize,
) -> Result<Response, RequestError> {
    aside(held_bytes, || {
        let mut count = Count(0);
        let internal = |error: serde_json::Error| RequestError::Generation {
            error: GenerationError::Internal(error.to_string()),
            prompt_param: "",
        };
        serde_json::to_writer(&mut count, answer).map_err(internal)?;
        context.hold(held_bytes + count.0)?;
        let mut text = Vec::with_capacity(count.0);
        serde_json::to_writer(&mut text, &answer).map_err(internal)?;
        let content_type = HeaderValue::from_static("application/json");
        Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
    })
}

/// Counts what is written to it.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Make tokens of a text
///
/// Needs the model's `tokenizer.json` beside its file. The model is not loaded, and the answer does
/// not wait for those that are being generated.
#[utoipa::path(post, path = "/tokenize", tag = "llama-server",
    request_body(content = TokenizeRequest),
    responses(
        (status = 200, description = "The tokens", body = Tokenized),
        (status = 400, description = "The request is wrong, or the model's tokenizer is not known", body = ErrorBody),
        (status = 403, description = "A foreign Host or Origin on a loopback listener", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 429, description = "Too many requests wait for this tokenizer", body = ErrorBody),
        (status = 503, description = "The tokenizer did not answer in time", body = ErrorBody)))]
pub(crate) async fn tokenize(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    let tokenized = async {
        let (model, text, how) = parsed(&state, &context, request, text).await?;
        // What comes from the reader, and what is made of it.
        let each = match how.with_pieces {
            true => 2 * DECODED_BYTES_PER_BYTE,
            false => DECODED_BYTES_PER_BYTE,
        };
        context.hold(context.held() + text.len() * each)?;
        let encoded = state.engine.encode(&model, text, how).await?;
        let answer = Written {
            tokens: WrittenTokens(&encoded),
        };
        written(&context, &answer, encoded.bytes())
    };
    ended(&context, tokenized.await)
}

/// Make a text of tokens
///
/// Needs the model's `tokenizer.json` beside its file. The model is not loaded, and the answer does
/// not wait for those that are being generated.
#[utoipa::path(post, path = "/detokenize", tag = "llama-server",
    request_body(content = DetokenizeRequest),
    responses(
        (status = 200, description = "The text", body = Detokenized),
        (status = 400, description = "The request is wrong, or the model's tokenizer is not known", body = ErrorBody),
        (status = 403, description = "A foreign Host or Origin on a loopback listener", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 429, description = "Too many requests wait for this tokenizer", body = ErrorBody),
        (status = 503, description = "The tokenizer did not answer in time", body = ErrorBody)))]
pub(crate) async fn detokenize(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    let detokenized = async {
        let (model, tokens) = parsed(&state, &context, request, tokens).await?;
        // The text comes twice, in its frame too.
        let text = 2 * TEXT_BYTES_PER_TOKEN * tokens.len();
        context.hold(context.held() + text)?;
        let content = state.engine.decode(&model, tokens).await?;
        let bytes = content.len();
        written(&context, &Detokenized { content }, bytes)
    };
    ended(&context, detokenized.await)
}

fn text(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<(Arc<InstalledModel>, String, Encoding), RequestError> {
    let request: TokenizeRequest = fields(body)?;
    let model = this_or_the_only(state, context, request.model.as_deref())?;
    let content = request
        .content
        .ok_or_else(|| RequestError::missing("content"))?;
    within_limit(state, "content", content.len())?;
    if request.parse_special == Some(false) {
        return Err(RequestError::unsupported("parse_special", "only true"));
    }
    let how = Encoding {
        add_special: request.add_special == Some(true),
        with_pieces: request.with_pieces == Some(true),
    };
    Ok((model, content, how))
}

fn tokens(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<(Arc<InstalledModel>, Vec<u32>), RequestError> {
    let request: DetokenizeRequest = fields(body)?;
    let model = this_or_the_only(state, context, request.model.as_deref())?;
    let tokens = request
        .tokens
        .ok_or_else(|| RequestError::missing("tokens"))?;
    within_limit(state, "tokens", tokens.len() * BYTES_PER_TOKEN)?;
    Ok((model, tokens))
}

fn within_limit(state: &HttpState, param: &'static str, bytes: usize) -> Result<(), RequestError> {
    let limit = state.tokenizer.limit_bytes;
    if bytes > limit {
        return Err(RequestError::out_of_range(
            param,
            format!("has {bytes} bytes; `limit-bytes` in the [tokenizer] settings allows {limit}"),
        ));
    }
    Ok(())
}
