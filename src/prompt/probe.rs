//! What a template does with short conversations, asked once when it is compiled.

use serde_json::json;

use super::chat_template::ChatTemplate;
use super::{ChatMessage, ChatRole, RenderRequest, TemplateError};

/// What a template does with a system message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SystemMessage {
    Shown,
    /// Refused, or left out of the prompt.
    Missing,
}

pub(super) fn system_message(template: &ChatTemplate) -> Result<SystemMessage, TemplateError> {
    const NEEDLE: &str = "system0probe";
    match template.write_as_is(&request(&[(ChatRole::System, NEEDLE), QUESTION])) {
        Ok(written) if written.to_lowercase().contains(NEEDLE) => Ok(SystemMessage::Shown),
        Ok(_) => Ok(SystemMessage::Missing),
        Err(_) => match template.write_as_is(&request(&[QUESTION])) {
            Err(error @ TemplateError::Broken(_)) => Err(error),
            _ => Ok(SystemMessage::Missing),
        },
    }
}

/// Control tokens that the template puts together from words that are not written in twins. `None`: it
/// renders nothing that could tell.
pub(super) fn tokens_in_doubt(template: &ChatTemplate) -> Option<Vec<String>> {
    let written = conversations()
        .into_iter()
        .filter_map(|request| template.write_as_is(&request).ok());
    written
        .map(|written| template.tokens_in_doubt(&written))
        .reduce(|mut all, more| {
            all.extend(more);
            all
        })
}

/// Such as have all that templates write around: each is another one.
fn conversations() -> Vec<RenderRequest> {
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
    // What only answers that think and call have.
    let answered = with_tools.clone().filter(has_answer);
    let with_calls = answered.flat_map(|request| {
        [json!({"word": "text"}), json!("{\"word\": \"text\"}")].map(|arguments| {
            let mut request = request.clone();
            let mut messages = request.messages.iter_mut();
            if let Some(answer) = messages.find(|message| message.role == ChatRole::Assistant) {
                let calls = json!([{"id": "call00001", "type": "function", "function": {
                    "name": "act", "arguments": arguments,
                }}]);
                answer.more.insert("tool_calls".to_owned(), calls);
                let thought = json!("thought");
                answer.more.insert("reasoning_content".to_owned(), thought);
            }
            request
        })
    });
    let thinking = [true, false].map(|thinks| {
        let mut asked = request(&[QUESTION]);
        let variable = "enable_thinking".to_owned();
        asked.variables.insert(variable, thinks.into());
        asked
    });
    let all = requests.chain(with_tools).chain(with_calls);
    all.chain(thinking).collect()
}

fn has_answer(request: &RenderRequest) -> bool {
    let mut messages = request.messages.iter();
    messages.any(|message| message.role == ChatRole::Assistant)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_conversation_is_rendered_twice() {
        let all = conversations();
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{one:?}");
        }
    }
}
