//! `POST /v1/embeddings`: hidden states of texts or tokens, pooled to one row an input. A row that is
//! not a finite, non-zero vector is an error: neither null nor zeros stand for what is not there.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::completions::plain_text;
use super::embedding_input::{self, EmbeddingInput};
use super::generate;
use super::messages::refuse_nul;
use crate::admission::EmbeddingRequest;
use crate::http::HttpState;
use crate::http::aside::aside;
use crate::http::error_body::ErrorBody;
use crate::http::request_body::fields;
use crate::http::request_context::RequestContext;
use crate::http::request_error::{RequestError, quote};
use crate::http::status::verdict;
use crate::library_calls::{Input, PooledRows};
use crate::models::InstalledModel;

/// What a token given as a number counts as, against the limit on the inputs' bytes.
const BYTES_PER_TOKEN: usize = 4;

/// What is to be embedded, and how.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EmbeddingParameters {
    /// Id or alias of an installed model.
    #[schema(required, nullable = false)]
    model: Option<String>,
    #[schema(schema_with = embedding_input::schema, required)]
    input: Option<EmbeddingInput>,
    /// `float` or `base64`, the latter little-endian 32-bit floats. Default `float`.
    #[schema(example = "float")]
    encoding_format: Option<String>,
    /// Dimensions to cut each embedding to; at most the model's. Default: the model's.
    #[schema(minimum = 1)]
    dimensions: Option<i64>,
    /// Not used.
    #[schema(value_type = Option<String>)]
    #[allow(
        dead_code,
        reason = "OpenAI's clients may send it; here nobody reads it"
    )]
    user: Option<Value>,
}

/// The embeddings, in the order of the inputs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<Embedding>,
    /// The model's id, also where the request named an alias.
    #[schema(value_type = String)]
    model: Arc<str>,
    usage: EmbeddingUsage,
}

/// The embedding of one input.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Embedding {
    /// Always `embedding`.
    #[schema(example = "embedding")]
    object: &'static str,
    /// Of the input, from 0.
    index: usize,
    embedding: Vector,
}

/// Numbers, or their bytes in base64.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

/// Tokens the model evaluated, as its runtime counts them; null where it did not tell.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingUsage {
    /// Of all inputs together.
    #[schema(required)]
    prompt_tokens: Option<u32>,
    /// The same.
    #[schema(required)]
    total_tokens: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Float,
    Base64,
}

/// A checked request.
struct Checked {
    model: Arc<InstalledModel>,
    inputs: Vec<Input>,
    encoding: Encoding,
    dimensions: Option<usize>,
}

/// Embed texts
///
/// The model's hidden states of each input, pooled and normalised as its `model.toml` says: by default
/// the last token's, scaled to the length 1. Inputs are evaluated one after the other, each alone.
#[utoipa::path(post, path = "/v1/embeddings", tag = "openai",
    request_body(content = EmbeddingParameters),
    responses(
        (status = 200, description = "The embeddings", body = EmbeddingList),
        (status = 400, description = "The request is wrong, or the model gives no hidden states", body = ErrorBody),
        (status = 403, description = "A foreign Host or Origin on a loopback listener", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 429, description = "The model's queue is full; see Retry-After", body = ErrorBody),
        (status = 500, description = "The model's hidden states hold what is no number", body = ErrorBody),
        (status = 503, description = "The model cannot be loaded, or its worker failed", body = ErrorBody)))]
pub(crate) async fn embeddings(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    context.is_generation(state.engine.metrics());
    let answered = answer(&state, &context, request).await;
    match &answered {
        Ok((prompt_tokens, _)) => context.embedded(*prompt_tokens),
        Err(RequestError::ClientLeft) => {}
        Err(error) => context.failed(verdict(error).code),
    }
    answered.map(|(_, response)| response)
}

/// The answer, and how many tokens were evaluated for it.
async fn answer(
    state: &Arc<HttpState>,
    context: &Arc<RequestContext>,
    request: Request,
) -> Result<(Option<u32>, Response), RequestError> {
    let mut checked = generate::parsed(state, context, request, check).await?;
    let model = &checked.model;
    let request = EmbeddingRequest {
        model: Arc::clone(&model.id),
        client: context.client.clone(),
        inputs: std::mem::take(&mut checked.inputs),
        pooling: model.embeddings.pooling,
        least_columns: checked.dimensions,
        total_deadline: state.total_deadline,
    };
    let rows = state.engine.embed(request).await;
    let rows = rows.map_err(RequestError::Embedding)?;
    let prompt_tokens = rows.prompt_tokens;
    let bytes = rows.rows.iter().map(|row| size_of_val(&**row)).sum();
    let response = aside(bytes, || {
        list(&checked, rows).map(|list| Json(list).into_response())
    })?;
    Ok((prompt_tokens, response))
}

fn list(checked: &Checked, rows: PooledRows) -> Result<EmbeddingList, RequestError> {
    let Checked {
        model,
        encoding,
        dimensions,
        ..
    } = checked;
    let data = rows
        .rows
        .into_iter()
        .enumerate()
        .map(|(index, row)| {
            let vector = finished(row, *dimensions, model.embeddings.normalize);
            let vector = vector.map_err(|reason| RequestError::NoEmbedding {
                param: format!("input[{index}]"),
                reason,
            })?;
            Ok(Embedding {
                object: "embedding",
                index,
                embedding: match encoding {
                    Encoding::Float => Vector::Float(vector),
                    Encoding::Base64 => Vector::Base64(base64_of(&vector)),
                },
            })
        })
        .collect::<Result<Vec<_>, RequestError>>()?;
    Ok(EmbeddingList {
        object: "list",
        data,
        model: Arc::clone(&model.id),
        usage: EmbeddingUsage {
            prompt_tokens: rows.prompt_tokens,
            total_tokens: rows.prompt_tokens,
        },
    })
}

/// From a body to what the runtime gets.
fn check(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Checked, RequestError> {
    let request: EmbeddingParameters = fields(body)?;
    let model = generate::installed(state, context, request.model.as_deref())?;
    let encoding = match request.encoding_format.as_deref() {
        None | Some("float") => Encoding::Float,
        Some("base64") => Encoding::Base64,
        Some(other) => {
            return Err(RequestError::out_of_range(
                "encoding_format",
                format!("must be `float` or `base64`, not `{}`", quote(other)),
            ));
        }
    };
    let dimensions = match request.dimensions {
        None => None,
        Some(asked) => Some(
            usize::try_from(asked)
                .ok()
                .filter(|asked| *asked > 0)
                .ok_or_else(|| RequestError::out_of_range("dimensions", "must be at least 1"))?,
        ),
    };
    let input = request
        .input
        .ok_or_else(|| RequestError::missing("input"))?;
    let inputs = match input {
        EmbeddingInput::Text(text) => vec![text_input(state, &model, text, || "input".to_owned())?],
        EmbeddingInput::Texts(texts) => {
            within_count(state, texts.len())?;
            let texts = texts.into_iter().enumerate();
            texts
                .map(|(index, text)| text_input(state, &model, text, || format!("input[{index}]")))
                .collect::<Result<_, _>>()?
        }
        EmbeddingInput::Tokens(tokens) => vec![Input::tokens(tokens)],
        EmbeddingInput::TokenLists(lists) => {
            within_count(state, lists.len())?;
            if let Some(index) = lists.iter().position(Vec::is_empty) {
                return Err(empty(format!("input[{index}]")));
            }
            lists.into_iter().map(Input::tokens).collect()
        }
        EmbeddingInput::Nothing => return Err(empty("input".to_owned())),
    };
    within_bytes(state, &inputs)?;
    Ok(Checked {
        model,
        inputs,
        encoding,
        dimensions,
    })
}

fn text_input(
    state: &HttpState,
    model: &InstalledModel,
    text: String,
    param: impl Fn() -> String,
) -> Result<Input, RequestError> {
    if text.is_empty() {
        return Err(empty(param()));
    }
    refuse_nul(&text, &param)?;
    let policy = state.chat.control_tokens;
    let mut text = plain_text(text, &model.control_tokens, policy, &param)?;
    text.push_str(&model.embeddings.suffix);
    Ok(Input::prompt(text))
}

fn empty(param: String) -> RequestError {
    RequestError::out_of_range(param, "must not be empty")
}

fn within_count(state: &HttpState, inputs: usize) -> Result<(), RequestError> {
    let limit = state.embeddings.max_inputs;
    if inputs > limit {
        return Err(RequestError::out_of_range(
            "input",
            format!(
                "has {inputs} inputs; `max-inputs` in the [embeddings] settings allows {limit}"
            ),
        ));
    }
    Ok(())
}

fn within_bytes(state: &HttpState, inputs: &[Input]) -> Result<(), RequestError> {
    let limit = state.embeddings.limit_bytes;
    let size = |input: &Input| {
        let text = input.prompt_input.as_ref().map_or(0, String::len);
        let tokens = input.token_input.as_ref().map_or(0, |t| t.input_ids.len());
        text + tokens * BYTES_PER_TOKEN
    };
    let bytes: usize = inputs.iter().map(size).sum();
    if bytes > limit {
        return Err(RequestError::out_of_range(
            "input",
            format!("has {bytes} bytes; `limit-bytes` in the [embeddings] settings allows {limit}"),
        ));
    }
    Ok(())
}

/// A row cut to `dimensions` and, where it is to be, scaled to the length 1.
fn finished(
    mut row: Vec<f32>,
    dimensions: Option<usize>,
    normalize: bool,
) -> Result<Vec<f32>, &'static str> {
    row.truncate(dimensions.unwrap_or(usize::MAX));
    if row.is_empty() {
        return Err("are empty");
    }
    if !row.iter().all(|value| value.is_finite()) {
        return Err("hold a value that is not a finite number");
    }
    // f64, so that no square of an f32 overflows or vanishes.
    let square = |value: &f32| f64::from(*value) * f64::from(*value);
    let length = row.iter().map(square).sum::<f64>().sqrt();
    if length == 0.0 {
        return Err("are zero in every dimension");
    }
    if normalize {
        for value in &mut row {
            *value = (f64::from(*value) / length) as f32;
        }
    }
    Ok(row)
}

/// Little-endian, 4 bytes a number, as OpenAI's clients read it.
fn base64_of(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_embedding_has_the_length_1_again() {
        let cut = finished(vec![3.0, 4.0, 12.0], Some(2), true);
        assert_eq!(cut, Ok(vec![0.6, 0.8]));
        let whole = finished(vec![3.0, 4.0, 12.0], None, false);
        assert_eq!(whole, Ok(vec![3.0, 4.0, 12.0]));
    }

    #[test]
    fn what_is_no_vector_is_refused() {
        assert!(finished(vec![0.0, 0.0, 1.0], Some(2), false).is_err());
        assert!(finished(vec![1.0, f32::NAN], None, true).is_err());
        assert!(finished(vec![1.0, f32::INFINITY], None, false).is_err());
        assert!(finished(Vec::new(), None, true).is_err());
    }

    #[test]
    fn the_largest_and_the_smallest_numbers_are_scaled_exactly() {
        for value in [f32::MAX, f32::MIN_POSITIVE] {
            assert_eq!(finished(vec![value, 0.0], None, true), Ok(vec![1.0, 0.0]));
        }
    }
}
