//! What every dialect does with a request for embeddings: have it checked, its rows made, and answer them.
//! How a dialect asks for them and writes them is its own.

pub(crate) mod input;
mod rows;
mod shortened;
mod vectors;

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{failed, permission};
use crate::admission::EmbeddingError;
use crate::aside::aside;
use crate::generation::{GenerationError, KeepAlive};
use crate::http::HttpState;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::nul::refuse_nul;
use crate::http::request::parsed::{Parse, parsed};
use crate::http::response::notices::{add_notices, tell_truncated};
use crate::library_calls::{Input, LibraryError};
use crate::models::InstalledModel;
use input::EmbeddingInput;
use rows::{bytes_of, rows};
use vectors::vectors;

/// What a token given as a number counts as, against the limit on the inputs' bytes.
const BYTES_PER_TOKEN: usize = 4;

/// How the numbers of an embedding are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Float,
    Base64,
}

/// What becomes of inputs that do not fit the model's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LongInputs {
    AreRefused,
    /// Their beginnings are embedded; the request itself asked for it, or said nothing.
    AreCut {
        as_asked: bool,
    },
}

/// What a request asks for, in whichever dialect.
pub(crate) struct Asked {
    pub model: Arc<InstalledModel>,
    pub input: Option<EmbeddingInput>,
    pub dimensions: Option<i64>,
    pub encoding: Encoding,
    /// What becomes of inputs that are too long.
    pub long_inputs: LongInputs,
    /// For how long the model is to stay loaded after it. `None`: as the model's setting says.
    pub keep_alive: Option<KeepAlive>,
    /// What the request gives and the daemon does not read.
    pub ignored: Vec<&'static str>,
    /// Likewise, by names that only the client knows.
    pub unread: Vec<String>,
}

/// A checked request.
pub(crate) struct Checked {
    pub model: Arc<InstalledModel>,
    inputs: Vec<Input>,
    pub is_list: bool,
    pub encoding: Encoding,
    pub dimensions: Option<usize>,
    long_inputs: LongInputs,
    keep_alive: Option<KeepAlive>,
    pub ignored: Vec<&'static str>,
    unread: Vec<String>,
}

/// Answers a request for embeddings. `parse` gives what the dialect keeps of the request beside what is checked,
/// and `told` makes the answer of it and of the embeddings, whose prompts had so many tokens.
pub(crate) async fn answer<B: Send + 'static, A: Serialize>(
    state: Arc<HttpState>,
    request: Request,
    parse: impl Parse<(B, Checked)>,
    told: impl FnOnce(B, &Checked, Vec<Vec<f32>>, Option<u32>) -> A,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    context.is_generation(state.engine.metrics());
    let may_load = permission::may_load(&state, &context, &request);
    let answered = async {
        let (kept, mut checked) = parsed(&state, &context, request, parse).await?;
        permission::permit(&may_load, &mut checked.keep_alive, &mut checked.ignored);
        let (rows, changed) = rows(&state, &context, &mut checked).await?;
        let tokens = rows.prompt_tokens;
        let mut response = aside(bytes_of(&rows), || {
            let vectors = vectors(&checked, rows)?;
            let answer = told(kept, &checked, vectors, tokens);
            Ok::<_, RequestError>(Json(answer).into_response())
        })?;
        let neutralised = Vec::from_iter(changed.is_neutralised.then_some("input"));
        let ignored = checked.ignored.iter().map(|name| Cow::from(*name));
        let unread = checked.unread.iter().map(Cow::from);
        let names: Vec<Cow<'_, str>> = ignored.chain(unread).collect();
        add_notices(&mut response, &names, &neutralised);
        tell_truncated(&mut response, changed.cut);
        Ok((tokens, response))
    };
    match answered.await {
        Ok((tokens, response)) => {
            context.embedded(tokens);
            Ok(response)
        }
        Err(error) => Err(failed(&context, error)),
    }
}

/// Checks what is asked for.
pub(crate) fn checked(state: &HttpState, asked: Asked) -> Result<Checked, RequestError> {
    let Asked {
        model,
        input,
        dimensions,
        encoding,
        long_inputs,
        keep_alive,
        ignored,
        unread,
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
        EmbeddingInput::NoTexts => Vec::new(),
        EmbeddingInput::Nothing => return Err(empty("input".to_owned())),
    };
    within_bytes(state, &inputs)?;
    Ok(Checked {
        long_inputs,
        keep_alive,
        unread,
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
pub(crate) fn check_tokens(
    model: &InstalledModel,
    tokens: &[i32],
    param: &str,
) -> Result<(), RequestError> {
    let checked = model.facts.shape.check_tokens(tokens);
    checked.map_err(|(index, why)| {
        RequestError::out_of_range(
            format!("{param}[{index}]"),
            format!("is out of range: {why}"),
        )
    })
}

/// An input is longer than the model's context.
pub(crate) fn too_long_input(index: usize, error: GenerationError) -> EmbeddingError {
    let error = LibraryError::Unavailable(error);
    EmbeddingError::Input { index, error }
}

/// What went wrong with inputs, `all` of which came from one field, and each from that which `param` names.
pub(crate) fn input_error(
    error: EmbeddingError,
    all: &str,
    param: impl Fn(usize) -> String,
) -> RequestError {
    let param = match &error {
        EmbeddingError::Input { index, .. } | EmbeddingError::Refused { index, .. } => {
            param(*index)
        }
        _ => all.to_owned(),
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
