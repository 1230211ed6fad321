//! `POST /tokenize` and `POST /detokenize`: texts as the model's tokens, and back.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::generation::ModelId;
use crate::http::HttpState;
use crate::http::error_body::ErrorBody;
use crate::http::openai::generate;
use crate::http::request_body::fields;
use crate::http::request_context::RequestContext;
use crate::http::request_error::RequestError;
use crate::tokenizers::{Encoded, Encoding};

/// What a token given as a number counts as, against the limit on a text's bytes.
const BYTES_PER_TOKEN: usize = 4;

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
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tokenized {
    tokens: Tokens,
}

/// Ids, or with `with_pieces` ids with their texts.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Tokens {
    Ids(Vec<u32>),
    Pieces(Vec<TokenPiece>),
}

/// A token and what it stands for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenPiece {
    /// The token's id.
    id: u32,
    piece: Piece,
}

/// A token's text, or its bytes where they are part of a character.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
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

impl From<Encoded> for Tokens {
    fn from(encoded: Encoded) -> Self {
        let Some(pieces) = encoded.pieces else {
            return Self::Ids(encoded.tokens);
        };
        let with_pieces = encoded.tokens.into_iter().zip(pieces);
        Self::Pieces(
            with_pieces
                .map(|(id, bytes)| TokenPiece {
                    id,
                    piece: match String::from_utf8(bytes) {
                        Ok(text) => Piece::Text(text),
                        Err(error) => Piece::Bytes(error.into_bytes()),
                    },
                })
                .collect(),
        )
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
) -> Result<Json<Tokenized>, RequestError> {
    let context = RequestContext::of(request.extensions());
    let tokenized = async {
        let (model, text, how) = generate::parsed(&state, &context, request, text).await?;
        let encoded = state.engine.encode(&model, text, how).await?;
        let tokens = Tokens::from(encoded);
        Ok(Json(Tokenized { tokens }))
    };
    super::ended(&context, tokenized.await)
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
) -> Result<Json<Detokenized>, RequestError> {
    let context = RequestContext::of(request.extensions());
    let detokenized = async {
        let (model, tokens) = generate::parsed(&state, &context, request, tokens).await?;
        let content = state.engine.decode(&model, tokens).await?;
        Ok(Json(Detokenized { content }))
    };
    super::ended(&context, detokenized.await)
}

fn text(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<(ModelId, String, Encoding), RequestError> {
    let request: TokenizeRequest = fields(body)?;
    let model = model(state, context, request.model.as_deref())?;
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
) -> Result<(ModelId, Vec<u32>), RequestError> {
    let request: DetokenizeRequest = fields(body)?;
    let model = model(state, context, request.model.as_deref())?;
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

/// The model of this id or alias; without one, the only model there is.
fn model(
    state: &HttpState,
    context: &RequestContext,
    name: Option<&str>,
) -> Result<ModelId, RequestError> {
    let catalog = state.engine.catalog();
    let only = match catalog.models() {
        [only] => Some(&*only.id),
        _ => None,
    };
    let name = name.filter(|name| !name.is_empty()).or(only);
    let model = generate::installed(state, context, name)?;
    Ok(ModelId::clone(&model.id))
}
