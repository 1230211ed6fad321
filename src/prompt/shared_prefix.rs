//! What prompts begin with whose conversation begins with what `model.toml` names: what a template writes
//! before and of it, and nothing that follows.

use super::{ChatMessage, ChatRole, ChatTemplate, PromptEnd, RenderRequest};
use crate::conversation::{Message, Role, Tool};

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

/// What all prompts have in common, whatever is asked and whenever, that begin with this system message and
/// these functions.
///
/// `Err`: why that is not all of them, in words.
pub fn pinned_prefix(
    template: &ChatTemplate,
    system: Option<&str>,
    tools: Vec<Tool>,
) -> Result<String, String> {
    // They have no part in common.
    let moments = [
        jiff::civil::date(2001, 2, 3).at(4, 5, 6, 0),
        jiff::civil::date(1934, 11, 27).at(18, 49, 51, 0),
    ];
    let mut common: Option<String> = None;
    for (question, now) in [
        (QUESTION, moments[0]),
        ("Another", moments[0]),
        (QUESTION, moments[1]),
    ] {
        let system = system.map(|system| Message::text(Role::System, system));
        let messages = system
            .into_iter()
            .chain([Message::text(Role::User, question)]);
        let request = RenderRequest::of(messages.collect(), tools.clone(), now);
        let rendered = template.render(&request);
        let rendered = rendered.map_err(|error| error.to_string())?.prompt;
        common = Some(match common {
            None => rendered,
            Some(before) => beginning_of_both(&before, &rendered).to_owned(),
        });
    }
    let common = common.unwrap_or_default();
    let has_system = system.is_none_or(|system| common.contains(system.trim()));
    if !has_system || tools.iter().any(|tool| !common.contains(&tool.name)) {
        return Err(
            "the chat template does not write all of it as it is before what changes, such as the date"
                .to_owned(),
        );
    }
    Ok(common)
}

fn beginning_of_both<'a>(one: &'a str, other: &str) -> &'a str {
    let pairs = one.char_indices().zip(other.chars());
    let mut differing = pairs.filter(|((_, a), b)| a != b).map(|((at, _), _)| at);
    let end = differing.next().unwrap_or(one.len().min(other.len()));
    &one[..end]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::prompt::{SpecialTokens, TemplateFamily};

    fn of(source: &str) -> ChatTemplate {
        ChatTemplate::compile(source, SpecialTokens::default(), Arc::default()).unwrap()
    }

    fn tools() -> Vec<Tool> {
        vec![Tool {
            name: "weather".to_owned(),
            description: Some("Tells the weather.".to_owned()),
            parameters: None,
        }]
    }

    #[test]
    fn what_is_pinned_ends_where_a_question_begins() {
        let template = ChatTemplate::of_family(TemplateFamily::Chatml).unwrap();
        let head = pinned_prefix(&template, Some("You are a ship's cook."), Vec::new()).unwrap();
        assert_eq!(
            head,
            "<|im_start|>system\nYou are a ship's cook.<|im_end|>\n<|im_start|>user\n"
        );
    }

    #[test]
    fn functions_are_pinned_as_requests_have_them_written() {
        let text =
            "{{ tools | tojson }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
        let template = of(text);
        let head = pinned_prefix(&template, Some("You help."), tools()).unwrap();
        assert!(head.contains("\"weather\""), "{head}");
        assert!(head.ends_with("<system>You help.<user>"), "{head}");
        let asked = vec![
            Message::text(Role::System, "You help."),
            Message::text(Role::User, "Hi"),
        ];
        let request = RenderRequest::of(asked, tools(), jiff::civil::DateTime::ZERO);
        assert!(template.render(&request).unwrap().prompt.starts_with(&head));
    }

    #[test]
    fn what_stands_behind_the_date_is_not_pinned() {
        let text = "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}";
        let template = of(text);
        let behind = pinned_prefix(&template, Some("You help."), Vec::new());
        assert!(behind.unwrap_err().contains("such as the date"));
    }

    #[test]
    fn texts_are_alike_up_to_a_whole_character() {
        assert_eq!(beginning_of_both("aä", "aö"), "a");
        assert_eq!(beginning_of_both("ab", "abc"), "ab");
        assert_eq!(beginning_of_both("abc", "ab"), "ab");
        assert_eq!(beginning_of_both("", "ab"), "");
    }

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
