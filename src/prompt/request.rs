//! What rendering is asked and what it answers.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::ClientTemplate;

/// Who says a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChatRole {
    System,
    #[default]
    User,
    Assistant,
    Tool,
}

impl ChatRole {
    /// The role's name in templates.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One message of a conversation, as the client sent it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatMessage {
    pub role: ChatRole,
    pub content: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Further keys that the template sees, such as `tool_calls` or `reasoning_content`. `role`,
    /// `content` and `name` in it are not read.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl ChatMessage {
    pub fn new(role: ChatRole, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            name: None,
            more: serde_json::Map::new(),
        }
    }
}

/// What happens to control tokens in what a client sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlTokenPolicy {
    /// A control token's text inside a message is changed so that it stays text.
    #[default]
    Neutralise,
    /// A message that holds a control token's text is refused.
    Reject,
}

/// How the prompt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PromptEnd {
    /// With what opens an answer: transformers' `add_generation_prompt`.
    Answer,
    /// Inside the last message, which the model continues: transformers' `continue_final_message`.
    Continuation,
    /// After the last message.
    Messages,
}

/// A conversation and everything else that a rendering depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RenderRequest {
    pub messages: Vec<ChatMessage>,
    /// Where each message stood in what the client sent; empty: where it stands here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sent_at: Vec<usize>,
    /// `chat_template_kwargs`: the client's own variables of the template. `tools` and `documents`
    /// are not among them.
    #[serde(default)]
    pub variables: serde_json::Map<String, serde_json::Value>,
    /// The functions the model may call, as the client sent them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<serde_json::Value>,
    /// The arguments of `tool_calls` are JSON text, which the template gets in the form that it takes.
    #[serde(default)]
    pub arguments_are_text: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<serde_json::Value>,
    /// A template in the place of the model's own, which `variables` are then not told to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<ClientTemplate>,
    pub end: PromptEnd,
    /// What happens to control tokens in messages; elsewhere they are always neutralised.
    pub control_tokens: ControlTokenPolicy,
    /// What `strftime_now` tells, in local time.
    pub now: jiff::civil::DateTime,
}

impl RenderRequest {
    /// Asks for an answer, or for the rest of one where the last message is the assistant's.
    pub fn new(messages: Vec<ChatMessage>, now: jiff::civil::DateTime) -> Self {
        let end = match messages.last() {
            Some(last) if last.role == ChatRole::Assistant => PromptEnd::Continuation,
            _ => PromptEnd::Answer,
        };
        Self {
            messages,
            sent_at: Vec::new(),
            variables: serde_json::Map::new(),
            tools: None,
            arguments_are_text: false,
            documents: None,
            template: None,
            end,
            control_tokens: ControlTokenPolicy::default(),
            now,
        }
    }
}

impl RenderRequest {
    /// Puts messages before that at `place` which the client did not send; its own stay where it sent them.
    pub fn insert(&mut self, place: usize, messages: Vec<ChatMessage>) {
        if messages.is_empty() {
            return;
        }
        if self.sent_at.is_empty() {
            self.sent_at = (0..self.messages.len()).collect();
        }
        let at = self.sent_at.get(place).or(self.sent_at.last());
        let at = at.copied().unwrap_or(0);
        self.sent_at
            .splice(place..place, messages.iter().map(|_| at));
        self.messages.splice(place..place, messages);
    }
}

/// A prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendered {
    pub prompt: String,
    /// Bytes of `prompt`, in order and apart from each other, outside which nothing but control
    /// tokens stands that the template wrote. So everything that a client sent lies inside, and
    /// nothing inside may be read as a control token.
    pub client_spans: Vec<Range<usize>>,
    /// Control tokens that were broken because not all of them is the template's.
    #[serde(default)]
    pub neutralised: usize,
    /// Where they stood, if any were.
    #[serde(default)]
    pub neutralised_in: Vec<ClientField>,
}

/// What of a request a client's text came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientField {
    /// The messages of a chat, or the text that a request is about.
    Texts,
    Tools,
    Variables,
    /// A template of the client's.
    Template,
}

impl ClientField {
    /// The request's parameter of this kind; `texts` is its name where texts are.
    pub fn name(self, texts: &'static str) -> &'static str {
        match self {
            Self::Texts => texts,
            Self::Tools => "tools",
            Self::Variables => "chat_template_kwargs",
            Self::Template => "template",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TemplateError {
    /// The template itself called `raise_exception`.
    #[error("the chat template refused this conversation: {0}")]
    Raised(String),
    /// A message holds a control token's text and the policy is to reject.
    #[error("message {index} contains the control token `{token}`")]
    ControlToken {
        /// The message's place in what the client sent.
        index: usize,
        /// Otherwise it stands in a name, a call or a thought.
        is_in_content: bool,
        token: String,
    },
    /// Likewise, elsewhere than in a message.
    #[error("`{field}` contains the control token `{token}`")]
    ControlTokenIn { field: String, token: String },
    /// `chat_template_kwargs` names a variable that is not the client's to set.
    #[error("chat_template_kwargs cannot set `{0}`")]
    ReservedVariable(String),
    /// The template does not show the end of a trailing assistant message.
    #[error("the chat template does not let a trailing assistant message be continued")]
    NotContinuable,
    /// The client's text holds so many different unusual characters that none is left to work with.
    #[error("the conversation holds too many different private-use and unassigned characters")]
    TooManyCharacters,
    /// The template cannot work with the value of one of `chat_template_kwargs`.
    #[error("the chat template cannot use `{name}` as it is in chat_template_kwargs: {reason}")]
    Variable { name: String, reason: String },
    /// The template renders a plain question, and not this conversation.
    #[error("the chat template cannot render this conversation: {0}")]
    Unfit(String),
    /// Rendering took more steps, or wrote more, than it may.
    #[error(
        "the conversation is too much for the chat template; `template-steps` and \
         `template-output-bytes` in the [reader] settings bound what it may take"
    )]
    TooMuch,
    /// The template does what its environment cannot do, also for a plain question.
    #[error("the chat template failed: {0}")]
    Broken(String),
}
