//! How a prompt's text becomes a turn: as the caller's prefix and postfix say, as the model's own
//! template says, or exactly as given. One run is one turn; what came before it is in the history,
//! so a template is applied to the new turn only and joined to the old ones.

use std::ffi::{CStr, CString};

use llama_cpp_sys_2 as llama;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChatTemplate {
    /// Three empty strings: the prompt is tokenised as given, with special tokens parsed.
    Raw,
    Custom {
        system: String,
        prefix: String,
        postfix: String,
    },
    /// The template in the model's file, with a system prompt if one was set.
    Model {
        template: CString,
        system: Option<String>,
    },
}

/// A turn as text, and what is to happen to an end-of-generation token before it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) text: String,
    /// `text` closes the previous turn itself, so a sampled end-of-turn token would be there twice.
    pub(crate) closes_the_last_turn: bool,
    /// Text at the beginning that `keep_system_prompt` refers to.
    pub(crate) system_text: String,
}

pub(crate) struct TurnInput<'a> {
    pub(crate) role: &'a str,
    pub(crate) prompt: &'a str,
    pub(crate) enable_thinking: bool,
    /// Earlier turns are already in the context.
    pub(crate) continues: bool,
}

impl ChatTemplate {
    /// The model's own template if llama.cpp knows it, else none.
    pub(crate) fn of_model(template: Option<&CStr>) -> Option<ChatTemplate> {
        let template = template?.to_owned();
        apply(&template, &[("user", "x")], true)?;
        Some(ChatTemplate::Model {
            template,
            system: None,
        })
    }

    pub(crate) fn render(&self, input: &TurnInput<'_>) -> Turn {
        match self {
            ChatTemplate::Raw => plain(input.prompt.to_owned(), String::new()),
            ChatTemplate::Custom {
                system,
                prefix,
                postfix,
            } => {
                let system = if input.continues { "" } else { system };
                let text = format!("{system}{prefix}{}{postfix}", input.prompt);
                plain(text, system.to_owned())
            }
            ChatTemplate::Model { template, system } => {
                render_with_model(template, system.as_deref(), input)
            }
        }
    }
}

fn plain(text: String, system_text: String) -> Turn {
    Turn {
        text,
        closes_the_last_turn: false,
        system_text,
    }
}

fn render_with_model(template: &CStr, system: Option<&str>, input: &TurnInput<'_>) -> Turn {
    let turn = (input.role, input.prompt);
    let mut rendered = if input.continues {
        continuation(template, turn)
    } else {
        let system_text = system
            .and_then(|system| apply(template, &[("system", system)], false))
            .unwrap_or_default();
        let messages: Vec<(&str, &str)> = system
            .map(|s| ("system", s))
            .into_iter()
            .chain([turn])
            .collect();
        plain(
            apply(template, &messages, true).unwrap_or_else(|| input.prompt.to_owned()),
            system_text,
        )
    };
    // llama.cpp recognises templates rather than running them, so the one switch that thinking
    // models share is applied here: an empty thought, as their templates write it.
    let text = template.to_string_lossy();
    if !input.enable_thinking && text.contains("enable_thinking") && text.contains("<think>") {
        rendered.text.push_str("<think>\n\n</think>\n\n");
    }
    rendered
}

/// The new turn with whatever the template puts between an answer and the next turn: what is added
/// when an empty exchange is followed by it.
fn continuation(template: &CStr, turn: (&str, &str)) -> Turn {
    let before = apply(template, &[("user", "")], true);
    let after = apply(template, &[("user", ""), ("assistant", ""), turn], true);
    let glued = match (&before, &after) {
        (Some(before), Some(after)) => after.strip_prefix(before.as_str()),
        _ => None,
    };
    match glued {
        Some(text) => Turn {
            text: text.to_owned(),
            closes_the_last_turn: true,
            system_text: String::new(),
        },
        None => plain(
            apply(template, &[turn], true).unwrap_or_else(|| turn.1.to_owned()),
            String::new(),
        ),
    }
}

/// llama.cpp's rendering, or none if it does not know the template.
fn apply(template: &CStr, messages: &[(&str, &str)], open_answer: bool) -> Option<String> {
    let owned: Vec<(CString, CString)> = messages
        .iter()
        .map(|(role, content)| Some((c_string(role)?, c_string(content)?)))
        .collect::<Option<_>>()?;
    let chat: Vec<llama::llama_chat_message> = owned
        .iter()
        .map(|(role, content)| llama::llama_chat_message {
            role: role.as_ptr(),
            content: content.as_ptr(),
        })
        .collect();
    let mut buffer = vec![0_u8; 512 + 2 * messages.iter().map(|(_, c)| c.len()).sum::<usize>()];
    loop {
        // SAFETY: template and messages are live C strings; the buffer has the length given.
        let length = unsafe {
            llama::llama_chat_apply_template(
                template.as_ptr(),
                chat.as_ptr(),
                chat.len(),
                open_answer,
                buffer.as_mut_ptr().cast(),
                i32::try_from(buffer.len()).ok()?,
            )
        };
        let length = usize::try_from(length).ok()?;
        if length <= buffer.len() {
            buffer.truncate(length);
            return Some(String::from_utf8_lossy(&buffer).into_owned());
        }
        buffer.resize(length, 0);
    }
}

fn c_string(text: &str) -> Option<CString> {
    CString::new(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &CStr = c"{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}";

    fn model() -> ChatTemplate {
        match ChatTemplate::of_model(Some(CHATML)) {
            Some(template) => template,
            None => panic!("llama.cpp knows ChatML"),
        }
    }

    fn user(prompt: &str, continues: bool) -> TurnInput<'_> {
        TurnInput {
            role: "user",
            prompt,
            enable_thinking: false,
            continues,
        }
    }

    #[test]
    fn raw_is_the_prompt_and_nothing_else() {
        assert_eq!(ChatTemplate::Raw.render(&user("a<b>", false)).text, "a<b>");
    }

    #[test]
    fn a_custom_template_says_its_system_prompt_once() {
        let template = ChatTemplate::Custom {
            system: "S|".into(),
            prefix: "<".into(),
            postfix: ">".into(),
        };
        assert_eq!(template.render(&user("p", false)).text, "S|<p>");
        assert_eq!(template.render(&user("p", false)).system_text, "S|");
        assert_eq!(template.render(&user("p", true)).text, "<p>");
    }

    #[test]
    fn the_model_template_opens_the_answer() {
        let turn = model().render(&user("hi", false));
        assert_eq!(
            turn.text,
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn a_later_turn_closes_the_answer_before_it() {
        let turn = model().render(&user("hi", true));
        assert!(turn.closes_the_last_turn);
        assert_eq!(
            turn.text,
            "<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn a_model_without_a_known_template_has_none() {
        assert_eq!(ChatTemplate::of_model(None), None);
        assert_eq!(ChatTemplate::of_model(Some(c"{{ nothing known }}")), None);
    }

    #[test]
    fn thinking_is_switched_off_by_an_empty_thought() {
        let mut source = CHATML.to_string_lossy().into_owned();
        source.push_str("{% if enable_thinking is false %}<think>{% endif %}");
        let source = CString::new(source).unwrap_or_default();
        let Some(template) = ChatTemplate::of_model(Some(&source)) else {
            panic!("llama.cpp knows ChatML");
        };
        let quick = template.render(&user("hi", false)).text;
        assert!(quick.ends_with("<|im_start|>assistant\n<think>\n\n</think>\n\n"));
        let thinking = TurnInput {
            enable_thinking: true,
            ..user("hi", false)
        };
        assert!(template.render(&thinking).text.ends_with("assistant\n"));
    }
}
