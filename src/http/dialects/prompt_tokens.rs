//! How many tokens a prompt has, for clients that ask before they send it.

use crate::http::HttpState;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::ipc::Prompt;
use crate::models::InstalledModel;
use crate::reader::Encoding;

/// What the ids of tokens take for each byte of a text, where a byte is a token.
const ID_BYTES: usize = 6;

/// Of a prompt whose texts are in the field `param`.
pub(super) async fn count(
    (state, context, model): (&HttpState, &RequestContext, &InstalledModel),
    prompt: Prompt,
    param: &'static str,
) -> Result<usize, RequestError> {
    if let Some(tokens) = &prompt.tokens {
        return Ok(tokens.len());
    }
    // Longer than any prompt that would be run, or of a model whose tokens nobody knows.
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
