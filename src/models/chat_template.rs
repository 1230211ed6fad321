//! Chat templates: a conversation becomes the prompt text that the runtime tokenises.
//!
//! No text of a client reaches the template before the control tokens in it are neutralised, and
//! no variable of a client replaces one of the template's own. The environment is
//! `template_environment`'s.

use std::sync::Arc;

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};

use super::conversation::{self, Turn};
use super::{ControlTokens, TemplateFamily, template_environment};
use crate::settings::ControlTokenPolicy;

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatRole {
    System,
    User,
    Assistant,
}

impl ChatRole {
    /// The role's name in templates.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One message of a conversation; `content` is what the client sent, not yet neutralised.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatMessage {
    pub role: ChatRole,
    pub content: String,
    pub name: Option<String>,
}

/// What a request adds to the rendering.
#[derive(Clone, Debug)]
pub struct RenderOptions {
    /// `chat_template_kwargs`, passed to the template as variables.
    pub kwargs: serde_json::Map<String, serde_json::Value>,
    /// What happens to control tokens in messages; in `kwargs` they are always neutralised.
    pub control_tokens: ControlTokenPolicy,
    /// What `strftime_now` tells; `None`: the clock, in local time.
    pub now: Option<jiff::civil::DateTime>,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self {
            kwargs: serde_json::Map::new(),
            control_tokens: ControlTokenPolicy::Neutralise,
            now: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TemplateError {
    /// The template itself called `raise_exception`.
    #[error("the chat template refused this conversation: {0}")]
    Raised(String),
    /// A message holds a control token's text and the policy is to reject.
    #[error("message {index} contains the control token `{token}`")]
    ControlToken { index: usize, token: String },
    /// `chat_template_kwargs` names a variable that is not the client's to set.
    #[error("chat_template_kwargs cannot set `{0}`")]
    ReservedVariable(String),
    /// The template does not show the end of a trailing assistant message.
    #[error("the chat template does not let a trailing assistant message be continued")]
    NotContinuable,
    #[error("the chat template failed: {0}")]
    Broken(String),
}

/// The texts of the tokens that templates know as `bos_token` and `eos_token`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    pub bos: String,
    pub eos: String,
}

/// Variables that the environment owns.
const RESERVED: &[&str] = &[
    "messages",
    "tools",
    "documents",
    "bos_token",
    "eos_token",
    "add_generation_prompt",
    "raise_exception",
    "strftime_now",
    "namespace",
    "range",
    "dict",
    "debug",
];

/// What a template does with a system message, found out once by asking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SystemTurn {
    Shown,
    /// Refused, or left out of the prompt.
    Missing,
}

/// A compiled template of one model.
#[derive(Debug)]
pub struct ChatTemplate {
    env: Environment<'static>,
    special: SpecialTokens,
    control_tokens: Arc<ControlTokens>,
    system_turn: SystemTurn,
    failed_probe: Option<TemplateError>,
}

impl ChatTemplate {
    /// Compiles a template and lets it render a short conversation.
    pub fn compile(
        source: &str,
        special: SpecialTokens,
        control_tokens: Arc<ControlTokens>,
    ) -> Result<Self, TemplateError> {
        let env = template_environment::environment(source).map_err(|e| explain(&e))?;
        let mut template = Self {
            env,
            special,
            control_tokens,
            system_turn: SystemTurn::Shown,
            failed_probe: None,
        };
        match template.probe_system_turn() {
            Ok(system_turn) => template.system_turn = system_turn,
            Err(error) => template.failed_probe = Some(error),
        }
        Ok(template)
    }

    /// Why the template could not render one plain question. It may still serve requests that set
    /// the variables it needs.
    pub fn failed_probe(&self) -> Option<&TemplateError> {
        self.failed_probe.as_ref()
    }

    /// A built-in family with the tokens usual for it.
    pub fn of_family(family: TemplateFamily) -> Result<Self, TemplateError> {
        let tokens = super::family::well_known_control_tokens().collect();
        Self::compile(family.template(), family.special_tokens(), Arc::new(tokens))
    }

    /// Renders a conversation to the prompt text the runtime gets, generation prompt added; a
    /// trailing assistant message is left open so that the model continues it.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        options: &RenderOptions,
    ) -> Result<String, TemplateError> {
        if let Some(name) = options
            .kwargs
            .keys()
            .find(|name| RESERVED.contains(&name.as_str()))
        {
            return Err(TemplateError::ReservedVariable(name.clone()));
        }
        let turns = conversation::turns(messages, &self.control_tokens, options.control_tokens)?;
        let has_system = turns.iter().any(|turn| turn.role == ChatRole::System);
        if !has_system {
            return self.render_turns(turns, options);
        }
        if self.system_turn == SystemTurn::Missing {
            return self.render_turns(conversation::fold_system(turns), options);
        }
        match self.render_turns(turns.clone(), options) {
            // Shown at the start, but perhaps not where this conversation has it.
            Err(TemplateError::Raised(_)) => {
                self.render_turns(conversation::fold_system(turns), options)
            }
            rendered => rendered,
        }
    }

    fn render_turns(
        &self,
        mut turns: Vec<Turn>,
        options: &RenderOptions,
    ) -> Result<String, TemplateError> {
        let end_mark = conversation::mark_open_end(&mut turns);
        let input_bytes = turns.iter().map(|turn| turn.content.len()).sum();
        let variables = self.variables(&turns, options, end_mark.is_none());
        let mut prompt = template_environment::render(&self.env, variables, input_bytes)
            .map_err(|error| explain(&error))?;
        if let Some(mark) = end_mark {
            mark.cut(&mut prompt).ok_or(TemplateError::NotContinuable)?;
        }
        Ok(prompt)
    }

    fn variables(&self, turns: &[Turn], options: &RenderOptions, generate: bool) -> Value {
        let messages: Value = turns.iter().map(Turn::to_value).collect();
        let now = options.now;
        let own = [
            ("messages", messages),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("bos_token", Value::from(self.special.bos.as_str())),
            ("eos_token", Value::from(self.special.eos.as_str())),
            ("add_generation_prompt", Value::from(generate)),
            (
                "strftime_now",
                Value::from_function(move |format: &str| strftime(now, format)),
            ),
        ];
        let client = options.kwargs.iter().map(|(name, value)| {
            let value = conversation::client_value(value, &self.control_tokens);
            (Value::from(name.as_str()), value)
        });
        Value::from_pairs(client.chain(own.map(|(name, value)| (Value::from(name), value))))
    }

    fn probe_system_turn(&self) -> Result<SystemTurn, TemplateError> {
        const NEEDLE: &str = "system0probe";
        let turn = |role, content: &str| Turn {
            role,
            content: content.to_owned(),
            name: None,
        };
        let user = turn(ChatRole::User, "question");
        let options = RenderOptions::default();
        let with_system = vec![turn(ChatRole::System, NEEDLE), user.clone()];
        match self.render_turns(with_system, &options) {
            Ok(prompt) if prompt.to_lowercase().contains(NEEDLE) => Ok(SystemTurn::Shown),
            Ok(_) => Ok(SystemTurn::Missing),
            Err(_) => match self.render_turns(vec![user], &options) {
                Err(error @ TemplateError::Broken(_)) => Err(error),
                _ => Ok(SystemTurn::Missing),
            },
        }
    }
}

fn strftime(now: Option<jiff::civil::DateTime>, format: &str) -> Result<String, Error> {
    let time = match now {
        Some(now) => jiff::fmt::strtime::BrokenDownTime::from(now),
        None => jiff::fmt::strtime::BrokenDownTime::from(&jiff::Zoned::now()),
    };
    time.to_string(format).map_err(|e| {
        Error::new(
            ErrorKind::InvalidOperation,
            "strftime_now cannot write this format",
        )
        .with_source(e)
    })
}

fn explain(error: &Error) -> TemplateError {
    if let Some(text) = template_environment::raised_text(error) {
        return TemplateError::Raised(text.to_owned());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    TemplateError::Broken(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_read_where_no_time_is_given() {
        let source = "{{ strftime_now('%Y') }}";
        let template =
            ChatTemplate::compile(source, SpecialTokens::default(), Arc::default()).unwrap();
        let before = jiff::Zoned::now().year();
        let year: i16 = template
            .render(&[], &RenderOptions::default())
            .unwrap()
            .parse()
            .unwrap();
        assert!((before..=jiff::Zoned::now().year()).contains(&year));
    }

    #[test]
    fn a_format_of_time_that_does_not_exist_is_an_error() {
        let source = "{{ strftime_now('%!') }}";
        let template =
            ChatTemplate::compile(source, SpecialTokens::default(), Arc::default()).unwrap();
        let rendered = template.render(&[], &RenderOptions::default());
        assert!(
            matches!(rendered, Err(TemplateError::Broken(_))),
            "{rendered:?}"
        );
        assert!(template.failed_probe().is_some());
    }
}
