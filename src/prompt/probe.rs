//! What a template does with short conversations, asked once when it is compiled.

use serde_json::json;

use super::chat_template::ChatTemplate;
use super::{ChatMessage, ChatRole, RenderRequest, TemplateError};

/// What a template does with a system message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SystemTurn {
    Shown,
    /// Refused, or left out of the prompt.
    Missing,
}

pub(super) fn system_turn(template: &ChatTemplate) -> Result<SystemTurn, TemplateError> {
    const NEEDLE: &str = "system0probe";
    match template.write_as_is(&request(&[(ChatRole::System, NEEDLE), QUESTION])) {
        Ok(written) if written.to_lowercase().contains(NEEDLE) => Ok(SystemTurn::Shown),
        Ok(_) => Ok(SystemTurn::Missing),
        Err(_) => match template.write_as_is(&request(&[QUESTION])) {
            Err(error @ TemplateError::Broken(_)) => Err(error),
            _ => Ok(SystemTurn::Missing),
        },
    }
}

/// Whether the template puts control tokens together from words that are not written in twins; also
/// where it renders nothing that could tell.
pub(super) fn leaves_tokens_in_doubt(template: &ChatTemplate) -> bool {
    const SYSTEM: (ChatRole, &str) = (ChatRole::System, "rule");
    const ANSWER: (ChatRole, &str) = (ChatRole::Assistant, "answer");
    const RESULT: (ChatRole, &str) = (ChatRole::Tool, "result");
    let conversations = [
        &[QUESTION][..],
        &[SYSTEM, QUESTION, ANSWER, QUESTION],
        &[QUESTION, ANSWER, RESULT],
    ];
    let requests = conversations.into_iter().map(request);
    let with_tools = requests.clone().map(|request| RenderRequest {
        tools: Some(json!([{"type": "function", "function": {
            "name": "act",
            "description": "Acts",
            "parameters": {"type": "object", "properties": {}},
        }}])),
        documents: Some(json!([{"title": "one", "text": "two"}])),
        ..request
    });
    let mut written = requests
        .chain(with_tools)
        .filter_map(|request| template.write_as_is(&request).ok())
        .peekable();
    written.peek().is_none() || written.any(|written| template.is_in_doubt(&written))
}

const QUESTION: (ChatRole, &str) = (ChatRole::User, "question");

fn request(messages: &[(ChatRole, &str)]) -> RenderRequest {
    let messages = messages
        .iter()
        .map(|(role, content)| ChatMessage::new(*role, *content));
    RenderRequest {
        end: super::PromptEnd::Answer,
        ..RenderRequest::new(messages.collect(), jiff::civil::DateTime::ZERO)
    }
}
