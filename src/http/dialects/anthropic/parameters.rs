//! What a conversation is made of, which messages and counts have in common: read, checked, and made into
//! what is rendered.

use std::sync::Arc;

use serde_json::Map;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::conversation::{Content, MessageParam, conversation};
use super::output::{OutputConfig, format};
use super::thinking::{self, ThinkingParameter, Thoughts};
use super::tools::{self, AnthropicTool, AnthropicToolChoice};
use crate::chat::{PromptSource, ReplyReading};
use crate::http::HttpState;
use crate::http::dialects::format::{self as formats, AskedFormat};
use crate::http::dialects::functions::Functions;
use crate::http::dialects::reasoning;
use crate::http::dialects::templates::has_template;
use crate::http::request::body::Object;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::{FreeObject, ValuesLeft};
use crate::http::request::installed::installed;
use crate::http::request::together::{Inner, Together, fields_of};
use crate::http::request::unread::Unread;
use crate::http::response::notices;
use crate::models::InstalledModel;
use crate::prompt::RenderRequest;

/// Parameters of messages and of counts. Null counts as absent.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct ConversationParameters {
    /// Id or alias of an installed model, with `:latest` or without, in any case.
    #[schema(required, nullable = false)]
    model: Option<String>,
    /// The conversation, oldest first. A last message of the assistant is continued.
    #[schema(value_type = Vec<MessageParam>, required, nullable = false, min_items = 1)]
    messages: Option<Vec<Object<MessageParam>>>,
    /// What the model is told before: a string or blocks of text.
    #[schema(schema_with = super::blocks::text_content)]
    system: Option<Content>,
    /// Tools that the model may call.
    #[schema(value_type = Option<Vec<AnthropicTool>>)]
    tools: Option<Vec<Box<RawValue>>>,
    /// Which of them it calls. Default `{"type":"auto"}`.
    #[schema(value_type = Option<AnthropicToolChoice>)]
    tool_choice: Option<Object<AnthropicToolChoice>>,
    /// Whether and how much to think, for models whose thoughts can be told from their answers. Default: as
    /// the model does.
    #[schema(value_type = Option<ThinkingParameter>)]
    thinking: Option<Inner<ThinkingParameter>>,
    /// What the answer is to be like.
    #[schema(value_type = Option<OutputConfig>)]
    output_config: Option<Inner<OutputConfig>>,
    /// The older name of `output_config.format`.
    #[schema(value_type = Option<Object>)]
    output_format: Option<FreeObject>,
    /// Nothing has to be said for a prefix to be kept: whatever of a prompt a slot still holds is used again.
    #[schema(value_type = Option<Object>)]
    cache_control: Option<FreeObject>,
}

fields_of!(ConversationParameters {
    model,
    messages,
    system,
    tools,
    tool_choice,
    thinking,
    output_config,
    output_format,
    cache_control,
});

/// They, what an endpoint takes beside them, and the names of what neither has.
pub(super) type Read<X> = Together<Together<ConversationParameters, X>, Unread>;

/// What they come to.
pub(super) struct Conversed {
    pub source: PromptSource,
    pub functions: Functions,
    pub format: Option<AskedFormat>,
    pub thoughts: Thoughts,
    /// Names of what is not done.
    pub unread: Vec<String>,
}

impl ConversationParameters {
    pub(super) fn model(
        &self,
        state: &HttpState,
        context: &RequestContext,
    ) -> Result<Arc<InstalledModel>, RequestError> {
        installed(state, context, self.model.as_deref())
    }

    pub(super) fn read(
        self,
        state: &HttpState,
        model: &InstalledModel,
        unread: &Unread,
    ) -> Result<Conversed, RequestError> {
        let config = self.output_config.map(|Object(config)| config);
        let Together(
            OutputConfig {
                effort,
                format: newer,
            },
            of_output,
        ) = config.unwrap_or_default();
        let thoughts = thinking::read(self.thinking, effort, model)?;
        let mut values = ValuesLeft::of(&state.chat);
        let format = format(newer, self.output_format, &mut values)?;
        let mut made = conversation(self.system, self.messages, model)?;
        let tools = tools::read(self.tools, self.tool_choice, &state.chat, &mut values)?;
        let functions = tools.functions;
        functions.check_for(model, "tools")?;
        formats::refuse_beside_begun(format.as_ref(), &made.messages)?;
        if let Some(calls) = functions.calls.as_ref().filter(|calls| calls.is_forced()) {
            formats::refuse_begun(&made.messages, calls.param)?;
        }
        if let Some(asked) = format.as_ref().filter(|_| state.constraints.show_format) {
            formats::show(&asked.wanted, &mut made.messages, functions.calls.as_ref());
        }
        has_template(model)?;
        let mut variables = Map::new();
        reasoning::tell(&thoughts.wish, &mut variables);
        let now = jiff::Zoned::now().datetime();
        let mut request = RenderRequest {
            variables,
            control_tokens: state.chat.control_tokens,
            ..RenderRequest::of(made.messages, functions.tools.clone(), now)
        };
        for at in &mut request.sent_at {
            *at = made.places.get(*at).copied().unwrap_or(*at);
        }
        let names = unread.names.iter();
        let mut unread: Vec<String> = names.map(|name| notices::in_a_header(name)).collect();
        unread.extend(thoughts.unread.iter().cloned());
        unread.extend(notices::unread_within("output_config", &of_output));
        unread.extend(made.unread);
        unread.extend(tools.unread);
        Ok(Conversed {
            source: PromptSource::Conversation(Box::new(request)),
            functions,
            format,
            thoughts,
            unread,
        })
    }
}

impl Conversed {
    /// How the reply is read.
    pub(super) fn reading(&self, model: &InstalledModel) -> ReplyReading {
        let own = model.facts.thinking_budget_tokens;
        ReplyReading {
            tools: self.functions.types(),
            keeps_thoughts: false,
            thought_tokens: self.thoughts.budget_tokens.or(own),
            one_call: !self.functions.parallel,
        }
    }
}
