//! `POST /v1/chat/completions`: a conversation, rendered with the model's chat template.

use axum::body::Body;
use axum::response::Response;
use serde_json::Value;
use utoipa::ToSchema;

use super::answer::{CallForm, ChatCompletion, ChatForm, ThoughtFields};
use super::chunk::{ChatWriter, UsageChunk};
use super::chunk_schema::ChatChunk;
use super::messages::{Message, conversation};
use crate::chat::{PromptSource, ReplyReading, WholeReply};
use crate::generation::Completion;
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{
    Asked, Asking, ChatDialect, Identity, LongHistory, Options,
};
use crate::http::dialects::format;
use crate::http::dialects::format_fields::FormatParameters;
use crate::http::dialects::ignored::Ignored;
use crate::http::dialects::logprobs;
use crate::http::dialects::parameters::{SharedParameters, neutral, token_budget};
use crate::http::dialects::reasoning::{self, Budget};
use crate::http::dialects::templates::has_template;
use crate::http::dialects::tool_choice::Chosen;
use crate::http::dialects::tools::{FunctionParameter, Given, ToolParameter};
use crate::http::request::body::Object;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::{FreeObject, Outline, ValuesLeft};
use crate::http::request::installed::installed;
use crate::http::request::together::{Together, fields_of};
use crate::http::response::error_body::AnswerRefusals;
use crate::http::response::sse;
use crate::prompt::RenderRequest;

/// What only `/v1/chat/completions` takes.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct ChatParameters {
    /// The conversation, oldest first. A last message of the assistant is continued.
    #[schema(value_type = Vec<Message>, required, nullable = false, min_items = 1)]
    messages: Option<Vec<Object<Message>>>,
    /// The newer name of `max_tokens`.
    #[schema(minimum = -1)]
    max_completion_tokens: Option<i64>,
    /// Variables for the chat template, such as `enable_thinking`.
    #[schema(value_type = Option<Object>)]
    chat_template_kwargs: Option<FreeObject>,
    /// Functions that the model may call.
    #[schema(value_type = Option<Vec<ToolParameter>>)]
    tools: Option<Vec<Object<ToolParameter>>>,
    /// `none`: the model is not told of the functions; `auto`: it calls them as it likes; `required`: it
    /// calls at least one; `{"type":"function","function":{"name"}}`: it calls this one, once;
    /// `{"type":"allowed_tools","allowed_tools":{"mode","tools"}}`: as `auto` or `required`, with some of
    /// them. Default `auto`.
    #[schema(schema_with = crate::http::dialects::tool_choice::tool_choice_schema)]
    tool_choice: Option<Chosen>,
    /// Whether an answer may hold more than one call. Default true.
    parallel_tool_calls: Option<bool>,
    /// The older form of `tools`; calls are then answered as `function_call`.
    #[schema(value_type = Option<Vec<FunctionParameter>>)]
    functions: Option<Vec<Object<FunctionParameter>>>,
    /// The older form of `tool_choice`: `none`, `auto` or `{"name"}`.
    #[schema(schema_with = crate::http::dialects::tool_choice::function_call_schema)]
    function_call: Option<Chosen>,
    /// Whether to think, as the vendor's server takes it, for templates that can be told.
    enable_thinking: Option<bool>,
    /// How much to think, for templates that can be told: `none` is not at all.
    #[schema(example = "low")]
    reasoning_effort: Option<String>,
    /// The most tokens of thoughts, as `reasoning_tokens` counts them; a thought that has used them is
    /// closed, and the answer goes on behind it. 0 closes it at once; -1 is no such limit. Default: the
    /// model's own.
    #[schema(minimum = -1)]
    thinking_budget_tokens: Option<i64>,
    /// Another name of `thinking_budget_tokens`.
    #[schema(minimum = -1)]
    reasoning_budget_tokens: Option<i64>,
    /// Another name of `thinking_budget_tokens`.
    #[schema(minimum = -1)]
    thinking_token_budget: Option<i64>,
    /// Whether the oldest turns of a conversation that is too long are left out, which the header
    /// `x-rkllmd-dropped-messages` tells; otherwise it is refused. Default: the model's own, else false.
    truncate: Option<bool>,
    /// Where thoughts go: `none` leaves them in the content, `deepseek` and `auto` give them as
    /// `reasoning_content`. Default `auto`.
    #[schema(example = "auto")]
    reasoning_format: Option<String>,
    /// Whether to tell how likely each token of the content was. Refused where the runtime cannot.
    logprobs: Option<bool>,
    /// With `logprobs`: how many of the likeliest tokens to tell in each place.
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<i64>,
    /// Null or `["text"]`.
    #[schema(value_type = Option<Vec<String>>)]
    modalities: Option<Outline>,
    /// Not supported; null.
    #[schema(value_type = Option<Object>)]
    audio: Option<Outline>,
    /// Not supported; null.
    #[schema(value_type = Option<Object>)]
    web_search_options: Option<Outline>,
}

fields_of!(ChatParameters {
    messages,
    max_completion_tokens,
    chat_template_kwargs,
    tools,
    tool_choice,
    parallel_tool_calls,
    functions,
    function_call,
    enable_thinking,
    reasoning_effort,
    thinking_budget_tokens,
    reasoning_budget_tokens,
    thinking_token_budget,
    truncate,
    reasoning_format,
    logprobs,
    top_logprobs,
    modalities,
    audio,
    web_search_options,
});

/// How a chat is answered.
pub(crate) struct ChatAnswer {
    usage: UsageChunk,
    form: ChatForm,
}

impl ChatDialect for ChatAnswer {
    const PROMPT_PARAM: &'static str = "messages";
    type Writer = ChatWriter;

    fn whole(
        &self,
        identity: &Identity,
        reply: WholeReply,
        completion: &Completion,
    ) -> serde_json::Result<Vec<u8>> {
        let replies = vec![(reply, completion.clone())];
        self.whole_of_all(identity, replies, completion)
    }

    fn whole_of_all(
        &self,
        identity: &Identity,
        replies: Vec<(WholeReply, Completion)>,
        all: &Completion,
    ) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&ChatCompletion::of(identity, replies, all, self.form))
    }

    fn writer(&self, identity: &Identity) -> ChatWriter {
        ChatWriter::new(identity, self.usage, self.form)
    }

    fn stream(body: Body) -> Response {
        sse::response(body)
    }
}

impl ChatParameters {
    fn refuse_unsupported(&self) -> Result<(), RequestError> {
        let is_only_text = |value: &Value| matches!(value.as_array().map(Vec::as_slice), Some([one]) if one == "text");
        neutral(
            "modalities",
            &self.modalities,
            is_only_text,
            "only [\"text\"]",
        )?;
        neutral("audio", &self.audio, |_| false, "only its absence")?;
        neutral(
            "web_search_options",
            &self.web_search_options,
            |_| false,
            "only its absence",
        )
    }

    fn max_tokens(&self, shared: &SharedParameters) -> Result<Option<u32>, RequestError> {
        let old = shared.max_tokens()?;
        let new = token_budget("max_completion_tokens", self.max_completion_tokens)?;
        if let (Some(most), Some(least)) = (new, shared.min_tokens)
            && least > i64::from(most)
        {
            return Err(RequestError::out_of_range(
                "min_tokens",
                "must not be more than `max_completion_tokens`",
            ));
        }
        match (old, new) {
            (Some(0), _) | (_, Some(0)) => Err(RequestError::out_of_range(
                if old == Some(0) {
                    "max_tokens"
                } else {
                    "max_completion_tokens"
                },
                "must be at least 1, or -1 for as many as the context leaves",
            )),
            (Some(old), Some(new)) if old != new => Err(RequestError::out_of_range(
                "max_tokens",
                "is another name of `max_completion_tokens` and must not differ from it",
            )),
            _ => Ok(new.or(old)),
        }
    }
}

/// Answer a conversation
///
/// With `stream: true` the answer is a stream of `data:` lines, each a ChatChunk, the last one
/// `[DONE]`; an error after the stream has begun is a `data:` line with an error object and ends it.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "openai",
    request_body(content = super::bodies::ChatCompletionRequest),
    responses(
        (status = 200, description = "The answer", content(
            (ChatCompletion = "application/json"),
            (ChatChunk = "text/event-stream"))),
        AnswerRefusals))]
pub(crate) async fn chat_completions(asking: Asking) -> Result<Response, RequestError> {
    asking.answer(asked).await
}

/// What it takes, alone and as others do.
pub(crate) type Read =
    Together<SharedParameters, Together<ChatParameters, Together<FormatParameters, Ignored>>>;

/// From a body to the conversation that the model's template renders.
pub(crate) fn asked(
    state: &HttpState,
    context: &RequestContext,
    Together(shared, Together(own, Together(format, ignored))): Read,
) -> Result<Asked<ChatAnswer>, RequestError> {
    let model = installed(state, context, shared.model.as_deref())?;
    own.refuse_unsupported()?;
    let max_new_tokens = own.max_tokens(&shared)?.or(model.facts.max_new_tokens);
    let mut messages = conversation(own.messages)?;
    let mut values = ValuesLeft::of(&state.chat);
    let asked = format.read(&mut values)?;
    let given = Given {
        tools: own.tools,
        tool_choice: own.tool_choice,
        functions: own.functions,
        function_call: own.function_call,
        parallel_tool_calls: own.parallel_tool_calls,
    };
    let are_old = given.are_old();
    let functions = given.functions(&state.chat)?;
    format::refuse_beside_begun(asked.as_ref(), &messages)?;
    let param = if are_old { "functions" } else { "tools" };
    functions.check_for(&model, param)?;
    if let Some(asked) = asked.as_ref().filter(|_| state.constraints.show_format) {
        format::show(&asked.wanted, &mut messages, functions.calls.as_ref());
    }
    let types = functions.types();
    let keeps_thoughts = reasoning::keeps_thoughts(own.reasoning_format.as_deref())?;
    let wish = reasoning::wish(own.reasoning_effort, own.enable_thinking)?;
    let budget = reasoning::budget([
        ("thinking_budget_tokens", own.thinking_budget_tokens),
        ("reasoning_budget_tokens", own.reasoning_budget_tokens),
        ("thinking_token_budget", own.thinking_token_budget),
    ])?;
    let variables = own.chat_template_kwargs;
    let mut values = ValuesLeft::of(&state.chat);
    let variables = variables.map(|all| all.read("chat_template_kwargs", &mut values));
    let mut variables = variables.transpose()?.unwrap_or_default();
    reasoning::tell(&wish, &mut variables);
    let mut options = Options {
        thought_budget: match budget {
            Budget::Tokens(name, _) => Some(name),
            Budget::NotSaid | Budget::None => None,
        },
        format: asked,
        long_history: LongHistory::of(own.truncate, &model, false),
        calls: functions.calls.clone(),
        ..shared.options(state, &model, max_new_tokens, ignored)?
    };
    let logprobs = logprobs::of_chat(own.logprobs, own.top_logprobs)?;
    options.draws.logprobs = logprobs;
    if let Some(calls) = functions.calls.as_ref().filter(|calls| calls.is_forced()) {
        format::refuse_begun(&messages, calls.param)?;
    }
    let now = jiff::Zoned::now().datetime();
    let request = RenderRequest {
        variables,
        control_tokens: state.chat.control_tokens,
        ..RenderRequest::of(messages, functions.tools, now)
    };
    has_template(&model)?;
    Ok(Asked {
        source: PromptSource::Conversation(Box::new(request)),
        options,
        reading: Some(ReplyReading {
            tools: types,
            keeps_thoughts,
            thought_tokens: match budget {
                Budget::Tokens(_, tokens) => Some(tokens),
                Budget::NotSaid => model.facts.thinking_budget_tokens,
                Budget::None => None,
            },
            one_call: !functions.parallel,
        }),
        dialect: ChatAnswer {
            usage: UsageChunk::of(&shared),
            form: ChatForm {
                calls: match are_old {
                    true => CallForm::Old,
                    false => CallForm::Tools,
                },
                is_named: functions.is_named,
                thoughts: match state.chat.also_reasoning {
                    true => ThoughtFields::Both,
                    false => ThoughtFields::ReasoningContent,
                },
                tells_logprobs: logprobs.is_some(),
            },
        },
        model,
    })
}
