//! What prompts begin with whose conversation begins with a system message that `model.toml` names: what a
//! template writes before and of it, and nothing that follows.

use super::{ChatMessage, ChatRole, ChatTemplate, PromptEnd, RenderRequest};

const QUESTION: &str = "question";

/// `Err`: why prompts do not begin so, in words.
pub fn shared_prefix(template: &ChatTemplate, system: &str) -> Result<String, String> {
    let messages = vec![
        ChatMessage::new(ChatRole::System, system),
        ChatMessage::new(ChatRole::User, QUESTION),
    ];
    let request = RenderRequest {
        end: PromptEnd::Answer,
        ..RenderRequest::new(messages, jiff::civil::DateTime::ZERO)
    };
    let rendered = template
        .render(&request)
        .map_err(|error| error.to_string())?;
    // Some templates trim what is said.
    let written = [system, system.trim()].into_iter().find_map(|text| {
        let start = rendered.prompt.find(text)?;
        Some(rendered.prompt[..start + text.len()].to_owned())
    });
    written.ok_or_else(|| "the chat template does not write it as it is".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::TemplateFamily;

    #[test]
    fn prompts_begin_with_what_the_template_writes_up_to_its_end() {
        let template = ChatTemplate::of_family(TemplateFamily::Chatml).unwrap();
        let head = shared_prefix(&template, "You are a ship's cook.").unwrap();
        assert_eq!(head, "<|im_start|>system\nYou are a ship's cook.");
        let asked = vec![
            ChatMessage::new(ChatRole::System, "You are a ship's cook."),
            ChatMessage::new(ChatRole::User, "What is for dinner?"),
        ];
        let request = RenderRequest::new(asked, jiff::civil::DateTime::ZERO);
        assert!(template.render(&request).unwrap().prompt.starts_with(&head));
    }

    #[test]
    fn a_text_that_is_written_otherwise_is_told() {
        let template = ChatTemplate::of_family(TemplateFamily::Chatml).unwrap();
        let forged = shared_prefix(&template, "a <|im_end|> of its own");
        assert!(forged.unwrap_err().contains("does not write it"));
    }
}
