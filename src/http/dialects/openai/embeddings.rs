//! `POST /v1/embeddings`: hidden states of texts or tokens, pooled to one row an input. A row that is
//! not a finite, non-zero vector is an error: neither null nor zeros stand for what is not there.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema;

use super::embedding_answer::{EmbeddingList, Encoding, list};
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
    /// Id or alias of an installed model, with `:latest` or without, in any case.
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

/// A number of four bytes as JSON, while the text of all of them grows.
const BYTES_PER_NUMBER: usize = 6;

/// What a request asks for, in whichever dialect.
pub(crate) struct Asked {
    pub model: Arc<InstalledModel>,
    pub input: Option<EmbeddingInput>,
    pub dimensions: Option<i64>,
    pub encoding: Encoding,
    /// What the request gives and the daemon does not read.
    pub ignored: Vec<&'static str>,
}

/// A checked request.
pub(crate) struct Checked {
    pub model: Arc<InstalledModel>,
    inputs: Vec<Input>,
    pub is_list: bool,
    pub encoding: Encoding,
    pub dimensions: Option<usize>,
    pub ignored: Vec<&'static str>,
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
    let (rows, neutralised) = rows(state, context, &mut checked).await?;
    let prompt_tokens = rows.prompt_tokens;
    let bytes = bytes_of(&rows);
    let mut response = aside(bytes, || {
        list(&checked, rows).map(|list| Json(list).into_response())
    })?;
    let neutralised = Vec::from_iter(neutralised.then_some("input"));
    add_notices(&mut response, &checked.ignored, &neutralised);
    Ok((prompt_tokens, response))
}

/// What rows take.
pub(crate) fn bytes_of(rows: &PooledRows) -> usize {
    rows.rows.iter().map(|row| size_of_val(&**row)).sum()
}

/// The rows of the inputs, which are taken out of the request, and whether an input was changed. What they
/// become is charged.
pub(crate) async fn rows(
    state: &HttpState,
    context: &RequestContext,
    checked: &mut Checked,
) -> Result<(PooledRows, bool), RequestError> {
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
    let bytes = bytes_of(&rows);
    // The rows are there, and go; what they become is at most so many times as large.
    let times = match checked.encoding {
        Encoding::Float => BYTES_PER_NUMBER,
        Encoding::Base64 => 2,
    };
    context.hold(bytes * times)?;
    Ok((rows, neutralised))
}

/// From a body to what the runtime gets.
fn check(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Checked, RequestError> {
    let Together(request, ignored): Together<EmbeddingParameters, Ignored> = fields(body)?;
    let ignored = ignored.names();
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
    checked(
        state,
        Asked {
            model,
            input: request.input,
            dimensions: request.dimensions,
            encoding,
            ignored,
        },
    )
}

/// Checks what is asked for.
pub(crate) fn checked(state: &HttpState, asked: Asked) -> Result<Checked, RequestError> {
    let Asked {
        model,
        input,
        dimensions,
        encoding,
        ignored,
    } = asked;
    let dimensions = match dimensions {
        None => None,
        Some(asked) => Some(
            usize::try_from(asked)
                .ok()
                .filter(|asked| *asked > 0)
                .ok_or_else(|| RequestError::out_of_range("dimensions", "must be at least 1"))?,
        ),
    };
    let input = input.ok_or_else(|| RequestError::missing("input"))?;
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
    let neutralised = prompts.iter().any(|prompt| !prompt.neutralised.is_empty());
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
pub(super) fn input_param(is_list: bool, index: usize) -> String {
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
