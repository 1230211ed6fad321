//! Chat templates: a model's Jinja template rendered by the daemon.

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatRole {
    System,
    User,
    Assistant,
}

/// One message of a conversation; `content` is what the client sent, not yet neutralised.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatMessage {
    pub role: ChatRole,
    pub content: String,
    pub name: Option<String>,
}

/// What a request adds to the rendering.
#[derive(Clone, Debug, Default)]
pub struct RenderOptions {
    /// `chat_template_kwargs`, passed to the template as variables.
    pub kwargs: serde_json::Map<String, serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TemplateError {
    /// The template itself called `raise_exception`.
    #[error("the chat template refused this conversation: {0}")]
    Raised(String),
    /// A message holds a control token's text and the policy is to reject.
    #[error("message {index} contains the control token `{token}`")]
    ControlToken { index: usize, token: String },
    #[error("the chat template failed: {0}")]
    Broken(String),
}

/// A compiled template of one model.
#[derive(Debug)]
pub struct ChatTemplate {}

impl ChatTemplate {
    /// Renders a conversation to the prompt text the runtime gets, generation prompt added; a
    /// trailing assistant message is left open so that the model continues it.
    pub fn render(
        &self,
        _messages: &[ChatMessage],
        _options: &RenderOptions,
    ) -> Result<String, TemplateError> {
        Err(TemplateError::Broken("no template".into()))
    }
}
