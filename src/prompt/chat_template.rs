//! Chat templates: a conversation becomes the prompt text that the runtime tokenises.
//!
//! No variable of a client replaces one of the template's own, and what the template writes becomes
//! a prompt only after control tokens that are not its own are broken (`seal`).

mod compiling;
mod fitting;

use std::sync::Arc;

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};

use super::calls::{self, Functions};
use super::conversation::{self, Refused, TemplateMessage};
use super::environment::RenderLimits;
use super::own_words::Assembly;
use super::probe::SystemMessage;
use super::twins::{Swaps, Twins};
use super::{
    ChatMessage, ChatRole, ControlTokens, PromptEnd, RenderRequest, Rendered, TemplateError,
    environment, seal,
};

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

/// A compiled template of one model.
#[derive(Debug)]
pub struct ChatTemplate {
    env: Environment<'static>,
    twins: Arc<Twins>,
    assembly: Assembly,
    special: SpecialTokens,
    control_tokens: Arc<ControlTokens>,
    /// Those that the model's files call so.
    vocabulary: Arc<ControlTokens>,
    /// Opener and closer of a thought, where they are none of them.
    thought: Option<[String; 2]>,
    system_message: SystemMessage,
    functions: Functions,
    limits: RenderLimits,
    failed_probe: Option<TemplateError>,
}

impl ChatTemplate {
    /// What no client's text becomes in its prompts.
    pub fn control_tokens(&self) -> &Arc<ControlTokens> {
        &self.control_tokens
    }

    /// Bounds what one rendering may take, in place of the default.
    pub fn set_limits(&mut self, limits: RenderLimits) {
        self.env.set_fuel(Some(limits.steps));
        self.limits = limits;
    }

    /// Has functions, calls and results rendered as the template takes them. Until then it is taken to
    /// show all of them.
    pub fn set_functions(&mut self, functions: Functions) {
        self.functions = functions;
    }

    /// Why the template could not render one plain question. It may still serve requests that set
    /// the variables it needs.
    pub fn failed_probe(&self) -> Option<&TemplateError> {
        self.failed_probe.as_ref()
    }

    /// Renders a conversation to the prompt text the runtime gets.
    pub fn render(&self, request: &RenderRequest) -> Result<Rendered, TemplateError> {
        if let Some(template) = &request.template {
            return template.render(request, &self.control_tokens, self.limits);
        }
        if let Some(name) = request
            .variables
            .keys()
            .find(|name| RESERVED.contains(&name.as_str()))
        {
            return Err(TemplateError::ReservedVariable(name.clone()));
        }
        let request = calls::fitted(request, self.functions);
        let request = request.as_ref();
        let texts = conversation::client_texts(request);
        let client = Client {
            request,
            swaps: &Swaps::new(&self.twins, texts.iter().copied())?,
            bytes: texts.iter().map(|text| text.len()).sum(),
        };
        let mut messages = conversation::template_messages(request, &self.refused(), client.swaps)?;
        if let Some(thought) = &self.thought {
            conversation::keep_thoughts(&mut messages, thought, &self.twins, request.end);
        }
        if request.arguments_are_text {
            let (twins, swaps) = (&self.twins, client.swaps);
            messages = calls::in_words(messages, request, twins, swaps, self.functions);
            messages = self.functions.with_all_calls(messages)?;
        }
        let written = self
            .write_completed(messages, &client)
            .map_err(|error| self.whose_fault(error, request))?;
        let mut rendered = seal::seal(&written, &self.control_tokens, &self.twins, client.swaps);
        if rendered.neutralised > 0 {
            rendered.neutralised_in =
                conversation::fields_with_tokens(request, &self.control_tokens);
        }
        Ok(rendered)
    }

    /// What the template writes of a conversation that the daemon made, in no other form than it has.
    pub fn render_as_is(&self, request: &RenderRequest) -> Result<String, TemplateError> {
        let written = self.write_as_is(request)?;
        Ok(self.twins.plain(&written).into_owned())
    }

    /// What the template writes of a conversation that holds nothing unusual.
    pub(super) fn write_as_is(&self, request: &RenderRequest) -> Result<String, TemplateError> {
        let client = Client {
            request,
            swaps: &Swaps::default(),
            bytes: 0,
        };
        let messages = conversation::template_messages(request, &self.refused(), client.swaps)?;
        self.write(messages, &client)
    }

    fn refused(&self) -> Refused<'_> {
        Refused {
            tokens: &self.control_tokens,
            thought: self.thought.as_ref(),
        }
    }

    /// The control tokens in `written` that the template may not have written.
    pub(super) fn tokens_in_doubt(&self, written: &str) -> Vec<String> {
        seal::tokens_in_doubt(written, &self.control_tokens, &self.twins)
    }

    /// What the template writes, twins included.
    fn write(
        &self,
        mut messages: Vec<TemplateMessage>,
        client: &Client<'_>,
    ) -> Result<String, TemplateError> {
        let mark = self.twins.end_mark();
        let is_open = client.request.end == PromptEnd::Continuation;
        if is_open {
            conversation::mark_open_end(&mut messages, mark);
        }
        let variables = self.variables(&messages, client);
        let mut written = environment::render(&self.env, variables, client.bytes, self.limits)
            .map_err(|error| self.readable(environment::explain(&error), client))?;
        if is_open {
            conversation::cut_at_mark(&mut written, mark).ok_or(TemplateError::NotContinuable)?;
        }
        Ok(written)
    }

    /// An error in words that hold no twin and no end mark, and not too many of them.
    fn readable(&self, error: TemplateError, client: &Client<'_>) -> TemplateError {
        let mark = self.twins.end_mark();
        let words = |text: String| -> String {
            let chars = text.chars().filter(|c| *c != mark).take(MOST_WORDS);
            chars
                .map(|c| client.swaps.back(self.twins.plain_char(c)))
                .collect()
        };
        match error {
            TemplateError::Raised(text) => TemplateError::Raised(words(text)),
            TemplateError::Broken(text) => TemplateError::Broken(words(text)),
            other => other,
        }
    }

    fn variables(&self, messages: &[TemplateMessage], client: &Client<'_>) -> Value {
        let request = client.request;
        let role = |name: &str| match self.assembly {
            Assembly::Whole => Value::from(name),
            Assembly::WithWords | Assembly::AllWords => Value::from(self.twins.write(name)),
        };
        let messages: Value = messages
            .iter()
            .map(|message| message.to_value(role))
            .collect();
        let now = request.now;
        let client_value =
            |value: &serde_json::Value| conversation::client_value(value, client.swaps);
        let optional = |value: &Option<serde_json::Value>| {
            value.as_ref().map_or_else(|| Value::from(()), client_value)
        };
        let own = [
            ("messages", messages),
            ("tools", optional(&request.tools)),
            ("documents", optional(&request.documents)),
            (
                "bos_token",
                Value::from(self.twins.write(&self.special.bos)),
            ),
            (
                "eos_token",
                Value::from(self.twins.write(&self.special.eos)),
            ),
            (
                "add_generation_prompt",
                Value::from(request.end == PromptEnd::Answer),
            ),
            (
                "strftime_now",
                Value::from_function(move |format: &str| strftime(now, format)),
            ),
        ];
        let variables = request.variables.iter().map(|(name, value)| {
            let name = client.swaps.apply(name).into_owned();
            (Value::from(name), client_value(value))
        });
        Value::from_pairs(variables.chain(own.map(|(name, value)| (Value::from(name), value))))
    }

    /// A template that renders a plain question fails for what the request says.
    fn whose_fault(&self, error: TemplateError, request: &RenderRequest) -> TemplateError {
        let TemplateError::Broken(reason) = error else {
            return error;
        };
        let works = |request: &RenderRequest| {
            !matches!(self.write_as_is(request), Err(TemplateError::Broken(_)))
        };
        let question = ChatMessage::new(ChatRole::User, "question");
        let plain = RenderRequest::new(vec![question], request.now);
        if !works(&plain) {
            return TemplateError::Broken(reason);
        }
        let mut variables = request.variables.iter().take(SUSPECTS);
        let wrong = variables.find(|(name, value)| {
            let mut only = plain.clone();
            only.variables.insert(name.to_string(), (*value).clone());
            !works(&only)
        });
        match wrong {
            Some((name, _)) => TemplateError::Variable {
                name: name.clone(),
                reason,
            },
            None => TemplateError::Unfit(reason),
        }
    }
}

/// Characters that are told of an error.
const MOST_WORDS: usize = 1_000;

/// Variables that are tried one by one to find the one that is wrong.
const SUSPECTS: usize = 16;

/// What the client sent, and how its texts reach the template.
struct Client<'r> {
    request: &'r RenderRequest,
    swaps: &'r Swaps,
    bytes: usize,
}

fn strftime(now: jiff::civil::DateTime, format: &str) -> Result<String, Error> {
    let time = jiff::fmt::strtime::BrokenDownTime::from(now);
    time.to_string(format).map_err(|e| {
        Error::new(
            ErrorKind::InvalidOperation,
            "strftime_now cannot write this format",
        )
        .with_source(e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_of_time_that_does_not_exist_is_an_error() {
        let source = "{{ strftime_now('%!') }}";
        let template =
            ChatTemplate::compile(source, SpecialTokens::default(), Arc::default()).unwrap();
        let rendered =
            template.render(&RenderRequest::new(Vec::new(), jiff::civil::DateTime::ZERO));
        assert!(
            matches!(rendered, Err(TemplateError::Broken(_))),
            "{rendered:?}"
        );
        assert!(template.failed_probe().is_some());
    }
}
