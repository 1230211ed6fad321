//! From what a request asks to the text that the runtime gets.

use super::ChatDialect;
use super::options::{LongHistory, Options};
use crate::chat::{Fitted, PromptSource};
use crate::http::HttpState;
use crate::http::dialects::templates::template_error;
use crate::http::dialects::variants;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::nul::refuse_nul;
use crate::ipc::Prompt;
use crate::models::InstalledModel;
use crate::reader::ReaderError;

/// The text that the runtime gets. What is not done of the request's wishes is added to its notices.
pub(crate) async fn render<D: ChatDialect>(
    state: &HttpState,
    model: &InstalledModel,
    source: PromptSource,
    options: &mut Options,
) -> Result<Fitted, RequestError> {
    let source = variants::begun(model, source);
    let room = state.chat.answer_room_tokens;
    let room = options.max_new_tokens.map_or(room, |most| most.min(room));
    let fitted = match (source, options.long_history) {
        (source @ PromptSource::FillIn { .. }, _) => {
            let fitted = state.chats.render_fitting(model, source, room).await;
            fitted.map(|fitted| {
                options
                    .ignored
                    .extend((fitted.dropped > 0).then_some(D::FILES_PARAM));
                Fitted {
                    dropped: 0,
                    ..fitted
                }
            })
        }
        (
            source @ (PromptSource::Conversation(_) | PromptSource::GoesOn(_)),
            LongHistory::IsCut { as_asked },
        ) => {
            let fitted = state.chats.render_fitting(model, source, room).await;
            let is_counted = fitted.as_ref().map_or(true, |fitted| fitted.is_counted);
            options
                .ignored
                .extend((as_asked && !is_counted).then_some(D::TRUNCATE_PARAM));
            fitted
        }
        (source, _) => state.chats.render(model, source).await.map(Fitted::whole),
    };
    let fitted = fitted.map_err(|error| not_rendered::<D>(error, model))?;
    is_whole_text(&fitted.prompt)?;
    Ok(fitted)
}

/// The same of all of a conversation, whether or not it fits.
pub(crate) async fn render_whole<D: ChatDialect>(
    state: &HttpState,
    model: &InstalledModel,
    source: PromptSource,
) -> Result<Prompt, RequestError> {
    let source = variants::begun(model, source);
    let prompt = state.chats.render(model, source).await;
    let prompt = prompt.map_err(|error| not_rendered::<D>(error, model))?;
    is_whole_text(&prompt)?;
    Ok(prompt)
}

fn not_rendered<D: ChatDialect>(error: ReaderError, model: &InstalledModel) -> RequestError {
    match error {
        ReaderError::Template(error) => template_error(error, model),
        error => plain_error(error, D::prompt_param),
    }
}

/// Variables of the template can hold a NUL as well.
fn is_whole_text(prompt: &Prompt) -> Result<(), RequestError> {
    refuse_nul(&prompt.text, || "chat_template_kwargs".to_owned())
}

/// The fields whose control tokens were made plain text.
pub(crate) fn neutralised<D: ChatDialect>(prompt: &Prompt) -> Vec<&'static str> {
    let fields = prompt.neutralised.iter();
    fields.map(|field| field.name(D::PROMPT_PARAM)).collect()
}

/// `param` names the field that a text came from.
pub(crate) fn plain_error(error: ReaderError, param: impl Fn(usize) -> String) -> RequestError {
    match error {
        ReaderError::ControlToken { index, token } => RequestError::ControlToken {
            param: param(index),
            token: quote(&token),
        },
        error => error.into(),
    }
}
