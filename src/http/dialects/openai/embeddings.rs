//! `POST /v1/embeddings`: hidden states of texts or tokens, pooled to one row an input. A row that is
//! not a finite, non-zero vector is an error: neither null nor zeros stand for what is not there.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

use super::embedding_input::{self, EmbeddingInput};
use super::ignored::Ignored;
use crate::admission::{EmbeddingError, EmbeddingRequest};
use crate::chat::{ContextLimit, Follows};
use crate::generation::GenerationError;
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::plain_error;
use crate::http::request::aside::aside;
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::installed::installed;
use crate::http::request::nul::refuse_nul;
use crate::http::request::parsed::parsed;
use crate::http::request::together::{Together, fields_of};
use crate::http::response::error_body::ErrorBody;
use crate::http::response::notices::add_notices;
use crate::http::status::PublicError;
use crate::library_calls::{Input, LibraryError, PooledRows};
use crate::models::InstalledModel;

/// What a token given as a number counts as, against the limit on the inputs' bytes.
const BYTES_PER_TOKEN: usize = 4;

/// What is to be embedded, and how.
#[derive(Debug, Default, ToSchema)]
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
}

fields_of!(EmbeddingParameters {
    model,
    input,
    encoding_format,
    dimensions
});

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

/// A number of four bytes as JSON, while the text of all of them grows.
const BYTES_PER_NUMBER: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Float,
    Base64,
}

/// A checked request.
struct Checked {
    model: Arc<InstalledModel>,
    inputs: Vec<Input>,
    is_list: bool,
    encoding: Encoding,
    dimensions: Option<usize>,
    ignored: Vec<&'static str>,
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
        Err(error) => context.failed(PublicError::of(error).code),
    }
    answered.map(|(_, response)| response)
}

/// The answer, and how many tokens were evaluated for it.
async fn answer(
    state: &Arc<HttpState>,
    context: &Arc<RequestContext>,
    request: Request,
) -> Result<(Option<u32>, Response), RequestError> {
    let mut checked = parsed(state, context, request, check).await?;
    let model = &checked.model;
    let inputs = std::mem::take(&mut checked.inputs);
    let (inputs, neutralised) = plain(state, model, inputs, checked.is_list).await?;
    let request = EmbeddingRequest {
        model: Arc::clone(&model.id),
        client: context.client.clone(),
        inputs,
        pooling: model.facts.embeddings.pooling,
        least_columns: checked.dimensions,
        total_deadline: state.total_deadline,
        account: Some(context.account()),
    };
    let rows = state.engine.embed(request).await;
    let rows = rows.map_err(|error| {
        failed(
            context.caller.may_read_of_embeddings(error),
            checked.is_list,
        )
    })?;
    let prompt_tokens = rows.prompt_tokens;
    let bytes = rows.rows.iter().map(|row| size_of_val(&**row)).sum();
    // The rows are there, and go; what they become is at most so many times as large.
    let times = match checked.encoding {
        Encoding::Float => BYTES_PER_NUMBER,
        Encoding::Base64 => 2,
    };
    context.hold(bytes * times)?;
    let mut response = aside(bytes, || {
        list(&checked, rows).map(|list| Json(list).into_response())
    })?;
    let neutralised = neutralised.then_some("input");
    add_notices(&mut response, checked.ignored, neutralised);
    Ok((prompt_tokens, response))
}

fn list(checked: &Checked, rows: PooledRows) -> Result<EmbeddingList, RequestError> {
    let Checked {
        model,
        is_list,
        encoding,
        dimensions,
        ..
    } = checked;
    let data = rows
        .rows
        .into_iter()
        .enumerate()
        .map(|(index, row)| {
            let is_cut = dimensions.is_some_and(|dimensions| dimensions < row.len());
            let has_more = is_cut && row.iter().any(|value| *value != 0.0);
            let vector = finished(row, *dimensions, model.facts.embeddings.normalize);
            let vector = vector.map_err(|reason| {
                let param = input_param(*is_list, index);
                match reason {
                    ZERO if has_more => RequestError::out_of_range(
                        "dimensions",
                        format!("leaves nothing but zeros of the embedding of `{param}`"),
                    ),
                    _ => RequestError::NoEmbedding { param, reason },
                }
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
    let Together(request, Ignored(ignored)): Together<EmbeddingParameters, _> = fields(body)?;
    let model = installed(state, context, request.model.as_deref())?;
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
    let is_list = matches!(
        input,
        EmbeddingInput::Texts(_) | EmbeddingInput::TokenLists(_)
    );
    let inputs = match input {
        EmbeddingInput::Text(text) => vec![text_input(text, || "input".to_owned())?],
        EmbeddingInput::Texts(texts) => {
            within_count(state, texts.len())?;
            let texts = texts.into_iter().enumerate();
            texts
                .map(|(index, text)| text_input(text, || format!("input[{index}]")))
                .collect::<Result<_, _>>()?
        }
        EmbeddingInput::Tokens(tokens) => {
            check_tokens(&model, &tokens, "input")?;
            vec![Input::tokens(tokens)]
        }
        EmbeddingInput::TokenLists(lists) => {
            within_count(state, lists.len())?;
            if let Some(index) = lists.iter().position(Vec::is_empty) {
                return Err(empty(format!("input[{index}]")));
            }
            for (index, tokens) in lists.iter().enumerate() {
                check_tokens(&model, tokens, &format!("input[{index}]"))?;
            }
            lists.into_iter().map(Input::tokens).collect()
        }
        EmbeddingInput::Nothing => return Err(empty("input".to_owned())),
    };
    within_bytes(state, &inputs)?;
    Ok(Checked {
        ignored,
        model,
        inputs,
        is_list,
        encoding,
        dimensions,
    })
}

fn text_input(text: String, param: impl Fn() -> String) -> Result<Input, RequestError> {
    if text.is_empty() {
        return Err(empty(param()));
    }
    refuse_nul(&text, &param)?;
    Ok(Input::prompt(text))
}

/// Refused before the model is loaded or waited for, where its vocabulary is known.
fn check_tokens(model: &InstalledModel, tokens: &[i32], param: &str) -> Result<(), RequestError> {
    let checked = model.facts.shape.check_tokens(tokens);
    checked.map_err(|(index, why)| {
        RequestError::out_of_range(
            format!("{param}[{index}]"),
            format!("is out of range: {why}"),
        )
    })
}

/// Texts as the runtime gets them, if they fit its context: control tokens in them stay text, and the
/// model's suffix follows. And whether any of them was changed.
async fn plain(
    state: &HttpState,
    model: &InstalledModel,
    mut inputs: Vec<Input>,
    is_list: bool,
) -> Result<(Vec<Input>, bool), RequestError> {
    // Texts or token ids, never both.
    let limit = ContextLimit::of(&*state.engine, model);
    for (index, input) in inputs.iter().enumerate() {
        let tokens = input.token_input.as_ref();
        let tokens = tokens.map_or(0, |tokens| tokens.input_ids.len());
        let text = input.prompt_input.as_ref().map_or(0, String::len);
        limit
            .check_text(text)
            .and_then(|()| limit.check_tokens(tokens, Follows::Nothing))
            .map_err(|error| too_long(index, error, is_list))?;
    }
    let texts: Vec<String> = inputs
        .iter_mut()
        .filter_map(|input| input.prompt_input.take())
        .collect();
    if texts.is_empty() {
        return Ok((inputs, false));
    }
    let policy = Some(state.chat.control_tokens);
    let counted = texts.iter().any(|text| limit.may_be_passed_by(text.len()));
    let prompts = state.engine.plain(model, texts, policy, counted).await;
    let prompts =
        prompts.map_err(|error| plain_error(error, |index| input_param(is_list, index)))?;
    for (index, prompt) in prompts.iter().enumerate() {
        let tokens = prompt.tokens.as_ref().map_or(0, Vec::len);
        limit
            .check_tokens(tokens, Follows::Nothing)
            .map_err(|error| too_long(index, error, is_list))?;
    }
    let suffix = &model.facts.embeddings.suffix;
    let neutralised = prompts.iter().any(|prompt| prompt.neutralised);
    let inputs = prompts
        .into_iter()
        .map(|prompt| Input::prompt(prompt.text + suffix))
        .collect();
    Ok((inputs, neutralised))
}

fn too_long(index: usize, error: GenerationError, is_list: bool) -> RequestError {
    let error = LibraryError::Unavailable(error);
    failed(EmbeddingError::Input { index, error }, is_list)
}

fn failed(error: EmbeddingError, is_list: bool) -> RequestError {
    let param = match &error {
        EmbeddingError::Input { index, .. } | EmbeddingError::Refused { index, .. } => {
            input_param(is_list, *index)
        }
        _ => "input".to_owned(),
    };
    RequestError::Embedding { error, param }
}

/// The field that an input came from.
fn input_param(is_list: bool, index: usize) -> String {
    match is_list {
        true => format!("input[{index}]"),
        false => "input".to_owned(),
    }
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

const ZERO: &str = "are zero in every dimension";

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
        return Err(ZERO);
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
