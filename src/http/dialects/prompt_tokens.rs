//! How many tokens a prompt has, for clients that ask before they send it.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::chat_dialect::{Asking, ChatDialect, Check, neutralised, of_fields, render_whole};
use super::ended;
use crate::chat::PromptSource;
use crate::http::HttpState;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::parsed::parsed;
use crate::http::response::notices::add_notices;
use crate::ipc::Prompt;
use crate::models::InstalledModel;
use crate::reader::Encoding;

/// What the ids of tokens take for each byte of a text, where a byte is a token.
const ID_BYTES: usize = 6;

/// A conversation whose tokens are to be counted.
pub(super) struct ToCount {
    pub model: Arc<InstalledModel>,
    pub source: PromptSource,
    pub not_applied: Vec<&'static str>,
    /// Names of what is not read.
    pub unread: Vec<String>,
}

/// Answers a request for a count with the body that it comes to. `blamed` names fields as the dialect does.
pub(super) async fn answer<D: ChatDialect, F: DeserializeOwned + 'static, B: Serialize>(
    Asking { state, request }: Asking,
    check: Check<F, ToCount>,
    blamed: fn(RequestError) -> RequestError,
    body: fn(usize) -> B,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    let counted = async {
        let asked = parsed(&state, &context, request, of_fields(check)).await?;
        let prompt = render_whole::<D>(&state, &asked.model, asked.source).await;
        let prompt = prompt.map_err(blamed)?;
        let neutralised = neutralised::<D>(&prompt);
        let asking = (&*state, &*context, &*asked.model);
        let tokens = count(asking, prompt, D::PROMPT_PARAM).await?;
        let mut response = Json(body(tokens)).into_response();
        let not_applied = asked.not_applied.iter();
        let not_applied = not_applied.map(|name| (*name).to_owned());
        let names: Vec<String> = not_applied.chain(asked.unread).collect();
        add_notices(&mut response, &names, &neutralised);
        Ok(response)
    };
    ended(&context, counted.await)
}

/// Of a prompt whose texts are in the field `param`.
async fn count(
    (state, context, model): (&HttpState, &RequestContext, &InstalledModel),
    prompt: Prompt,
    param: &'static str,
) -> Result<usize, RequestError> {
    if let Some(tokens) = &prompt.tokens {
        return Ok(tokens.len());
    }
    // Longer than any prompt that would be run, or of a model whose tokens are not known.
    let (bytes, limit) = (prompt.text.len(), state.tokenizer.limit_bytes);
    if bytes > limit {
        return Err(RequestError::out_of_range(
            param,
            format!(
                "come to {bytes} bytes; `limit-bytes` in the [tokenizer] settings allows {limit}"
            ),
        ));
    }
    context.hold(context.held() + bytes * ID_BYTES)?;
    let how = Encoding {
        add_special: false,
        with_pieces: false,
    };
    let encoded = state.engine.encode(model, prompt.text, how).await?;
    Ok(encoded.tokens.len())
}
