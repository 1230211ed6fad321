//! Which chat template an engine uses, and the calls that change it. Each change clears the cache
//! and the history: what was rendered with the old template is no beginning for the new one.

use thiserror::Error;

use super::Engine;
use crate::chat_template::{ChatTemplate, ModelTemplate, SpecialTokens};
use crate::log::warning;
use crate::weights::Weights;

#[derive(Debug, Error)]
pub(crate) enum ToolsError {
    #[error("the tools must be a JSON array, but are not: {0}")]
    NoJson(String),
    // The vendor's words.
    #[error("Failed to set function tools, possibly because the chat_template is empty")]
    NoTemplate,
}

/// The model's own template, or raw mode and a warning.
pub(super) fn at_init(model: &Weights) -> ChatTemplate {
    match of_model(model) {
        Some(template) => ChatTemplate::Model(Box::new(template)),
        None => {
            warning!(
                "Chat template auto-parsing failed: please configure it via rkllm_set_chat_template"
            );
            ChatTemplate::Raw
        }
    }
}

fn of_model(model: &Weights) -> Option<ModelTemplate> {
    let source = model.chat_template()?;
    let [bos, eos] = model
        .vocabulary
        .bos_and_eos()
        .map(|token| model.vocabulary.piece(token, true))
        .map(|text| String::from_utf8_lossy(&text).into_owned());
    ModelTemplate::compile(&source.to_string_lossy(), SpecialTokens { bos, eos })
}

impl Engine {
    /// `rkllm_set_chat_template`: takes effect at once and clears the cache. Three empty strings
    /// are raw mode; prefix and postfix both NULL keep the model's own template.
    pub(crate) fn set_template(
        &mut self,
        system: Option<&str>,
        prefix: Option<&str>,
        postfix: Option<&str>,
    ) {
        let own = match (prefix, postfix) {
            (None, None) => of_model(&self.seat.weights),
            _ => None,
        };
        self.template = match own {
            Some(mut template) => {
                template.set_system(system);
                ChatTemplate::Model(Box::new(template))
            }
            None => {
                let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
                let (system, prefix, postfix) = (text(system), text(prefix), text(postfix));
                if system.is_empty() && prefix.is_empty() && postfix.is_empty() {
                    ChatTemplate::Raw
                } else {
                    ChatTemplate::Custom {
                        system,
                        prefix,
                        postfix,
                    }
                }
            }
        };
        self.forget_all();
    }

    /// `rkllm_set_function_tools`: the model's own template shows them, with this system prompt, in
    /// every conversation from now on. An empty array takes them away.
    pub(crate) fn set_tools(
        &mut self,
        system: Option<&str>,
        tools: &str,
        response_tag: &str,
    ) -> Result<(), ToolsError> {
        let ChatTemplate::Model(_) = &self.template else {
            return Err(ToolsError::NoTemplate);
        };
        let tools: serde_json::Value =
            serde_json::from_str(tools).map_err(|reason| ToolsError::NoJson(reason.to_string()))?;
        if !tools.is_array() {
            return Err(ToolsError::NoJson(tools.to_string()));
        }
        let mut template = of_model(&self.seat.weights).ok_or(ToolsError::NoTemplate)?;
        template.set_system(system);
        if !template.set_tools(tools, response_tag) {
            return Err(ToolsError::NoTemplate);
        }
        self.template = ChatTemplate::Model(Box::new(template));
        self.forget_all();
        Ok(())
    }
}
