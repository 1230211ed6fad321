//! What a model's chat template refuses, and requests that need one where there is none.

use crate::http::request::error::RequestError;
use crate::models::{InstalledModel, TemplateState};
use crate::prompt::TemplateError;

/// Refuses what has to be rendered where the model has no template for it.
pub(super) fn has_template(model: &InstalledModel) -> Result<(), RequestError> {
    match &model.template {
        TemplateState::Usable { .. } => Ok(()),
        TemplateState::None => Err(RequestError::NoChatTemplate {
            model: model.id.to_string(),
            advice: model.template_advice(),
        }),
        TemplateState::Broken { reason } => Err(RequestError::TemplateBroken {
            model: model.id.to_string(),
            reason: reason.clone(),
        }),
    }
}

pub(super) fn template_error(error: TemplateError, model: &InstalledModel) -> RequestError {
    match error {
        TemplateError::ControlToken {
            index,
            is_in_content,
            token,
        } => RequestError::ControlToken {
            param: match is_in_content {
                true => format!("messages[{index}].content"),
                false => format!("messages[{index}]"),
            },
            token,
        },
        TemplateError::ControlTokenIn { field, token } => RequestError::ControlToken {
            param: field,
            token,
        },
        TemplateError::ReservedVariable(name) => RequestError::out_of_range(
            format!("chat_template_kwargs.{name}"),
            "is a variable of the template's own and cannot be set",
        ),
        TemplateError::Variable { name, reason } => RequestError::out_of_range(
            format!("chat_template_kwargs.{name}"),
            format!("is of a kind that the chat template cannot use: {reason}"),
        ),
        TemplateError::Raised(_)
        | TemplateError::NotContinuable
        | TemplateError::Unfit(_)
        | TemplateError::TooMuch
        | TemplateError::TooManyCharacters => RequestError::TemplateRefused {
            reason: error.to_string(),
            param: "messages",
        },
        TemplateError::Broken(reason) => RequestError::TemplateBroken {
            model: model.id.to_string(),
            reason,
        },
    }
}
