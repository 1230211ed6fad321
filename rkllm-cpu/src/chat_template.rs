//! How a prompt's text becomes a turn: as the caller's prefix and postfix say, as the model's own
//! template says, or exactly as given. One run is one turn; what came before it is in the history,
//! so a template is applied to the new turn only and joined to the old ones.

use thiserror::Error;

mod jinja;
mod model_template;

pub(crate) use jinja::SpecialTokens;
pub(crate) use model_template::ModelTemplate;

#[derive(Debug, Error)]
pub(crate) enum TemplateError {
    #[error("the results of tools must be JSON, but are not: {0}")]
    ToolResults(serde_json::Error),
    #[error("the model's chat template failed: {0}")]
    Failed(String),
}

pub(crate) enum ChatTemplate {
    /// Three empty strings: the prompt is tokenised as given, with special tokens parsed.
    Raw,
    Custom {
        system: String,
        prefix: String,
        postfix: String,
    },
    /// The template in the model's file.
    Model(Box<ModelTemplate>),
}

/// A turn as text, and what is to happen to an end-of-generation token before it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConversationTurn {
    pub(crate) text: String,
    /// `text` closes the previous turn itself, so a sampled end-of-turn token would be there twice.
    pub(crate) closes_the_last_turn: bool,
    /// Text at the beginning that `keep_system_prompt` refers to.
    pub(crate) system_text: String,
}

pub(crate) struct TurnInput<'a> {
    /// "user", or "tool" with results as JSON.
    pub(crate) role: &'a str,
    pub(crate) prompt: &'a str,
    /// For the model's own template.
    pub(crate) enable_thinking: bool,
    /// Earlier turns are already in the context.
    pub(crate) continues: bool,
}

impl ChatTemplate {
    pub(crate) fn render(&self, input: &TurnInput<'_>) -> Result<ConversationTurn, TemplateError> {
        match self {
            ChatTemplate::Raw => Ok(plain(input.prompt.to_owned(), String::new())),
            ChatTemplate::Custom {
                system,
                prefix,
                postfix,
            } => {
                let system = if input.continues { "" } else { system };
                let text = format!("{system}{prefix}{}{postfix}", input.prompt);
                Ok(plain(text, system.to_owned()))
            }
            ChatTemplate::Model(template) => template.render(input),
        }
    }
}

fn plain(text: String, system_text: String) -> ConversationTurn {
    ConversationTurn {
        text,
        closes_the_last_turn: false,
        system_text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &ChatTemplate, prompt: &str, continues: bool) -> ConversationTurn {
        let turn = template.render(&TurnInput {
            role: "user",
            prompt,
            enable_thinking: false,
            continues,
        });
        match turn {
            Ok(turn) => turn,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn raw_is_the_prompt_and_nothing_else() {
        assert_eq!(rendered(&ChatTemplate::Raw, "a<b>", false).text, "a<b>");
    }

    #[test]
    fn a_custom_template_says_its_system_prompt_once() {
        let template = ChatTemplate::Custom {
            system: "S|".into(),
            prefix: "<".into(),
            postfix: ">".into(),
        };
        assert_eq!(rendered(&template, "p", false).text, "S|<p>");
        assert_eq!(rendered(&template, "p", false).system_text, "S|");
        assert_eq!(rendered(&template, "p", true).text, "<p>");
    }
}
