//! What a prompt is made of, which responses and counts have in common: read, checked, and made into what is
//! rendered.

use std::sync::Arc;

use serde_json::Map;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::echo::{EchoedReasoning, EchoedText, EchoedTool, compact};
use super::history::history;
use super::input::{self, Texts};
use super::last_response::LastResponse;
use super::reasoning::{self, ReasoningParameter, Thoughts};
use super::text_format::{self, TextParameter};
use super::tools::{self, ResponseTool};
use crate::aside::aside;
use crate::chat::{PromptSource, ReplyReading};
use crate::conversation::{Message, Role};
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::LongHistory;
use crate::http::dialects::format::{self as formats, AskedFormat};
use crate::http::dialects::functions::Functions;
use crate::http::dialects::kept_items::{Item, conversed};
use crate::http::dialects::reasoning as wishes;
use crate::http::dialects::templates::has_template;
use crate::http::request::context::RequestContext;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::free_form::{Outline, ValuesLeft};
use crate::http::request::installed::installed;
use crate::http::request::nul::refuse_nul;
use crate::http::request::together::{Inner, Together, fields_of};
use crate::http::request::unread::Unread;
use crate::http::response::notices;
use crate::models::InstalledModel;
use crate::prompt::RenderRequest;

/// Where instructions stand: they have a field of their own.
const OF_INSTRUCTIONS: usize = usize::MAX;
/// Where what the daemon has kept stands.
const OF_HISTORY: usize = usize::MAX - 1;
/// A kept text is in memory so many times more while its prompt is made: as a message, on its way to the process that
/// renders, and as the prompt that came back.
pub(super) const COPIES: usize = 3;
pub(super) const PREVIOUS: &str = "previous_response_id";

/// Parameters of responses and of counts. Null counts as absent.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct ContextParameters {
    /// Id or alias of an installed model, with `:latest` or without, in any case.
    #[schema(required, nullable = false)]
    model: Option<String>,
    /// What the model is told before the conversation, for this one request.
    instructions: Option<String>,
    /// What is new in the conversation; absent where that goes on from a response without anything new.
    #[schema(schema_with = super::input::input_schema)]
    input: Option<Texts>,
    /// The response to go on from: its conversation and answer come before `input`.
    previous_response_id: Option<String>,
    /// Functions that the model may call.
    #[schema(value_type = Option<Vec<ResponseTool>>)]
    tools: Option<Vec<Box<RawValue>>>,
    /// Which of them it calls.
    #[schema(schema_with = super::tools::choice_schema)]
    tool_choice: Option<Box<RawValue>>,
    /// Whether an answer may hold more than one call. Default true.
    parallel_tool_calls: Option<bool>,
    /// What the answer's text is to be like.
    #[schema(value_type = Option<TextParameter>)]
    text: Option<Inner<TextParameter>>,
    /// Whether and how much to think, for models whose thoughts can be told from their answers. Default: as the
    /// model does.
    #[schema(value_type = Option<ReasoningParameter>)]
    reasoning: Option<Inner<ReasoningParameter>>,
    /// `auto`: the oldest turns of a conversation that is too long are left out, which the header
    /// `x-rkllmd-dropped-messages` tells; `disabled`: it is refused. Default: the model's own, else `disabled`.
    #[schema(example = "disabled")]
    truncation: Option<String>,
    /// Not supported; null.
    #[schema(value_type = Option<Object>)]
    conversation: Option<Outline>,
    /// Not supported; null.
    #[schema(value_type = Option<Object>)]
    prompt: Option<Outline>,
}

fields_of!(ContextParameters {
    model,
    instructions,
    input,
    previous_response_id,
    tools,
    tool_choice,
    parallel_tool_calls,
    text,
    reasoning,
    truncation,
    conversation,
    prompt,
});

/// What a message on a connection adds.
pub(super) struct OfSocket<'s> {
    /// The connection's last response that is not kept, which may be gone on from too.
    pub last: &'s Arc<LastResponse>,
    /// Whether the prompt is evaluated, so that a later message finds it, and nothing is answered.
    pub is_warm_up: bool,
}

/// They, what an endpoint takes beside them, and the names of what neither has.
pub(super) type Read<X> = Together<Together<ContextParameters, X>, Unread>;

/// What they come to.
pub(super) struct Context {
    pub source: PromptSource,
    /// The conversation that is answered.
    pub items: Vec<Arc<Item>>,
    pub functions: Functions,
    pub format: Option<AskedFormat>,
    pub long_history: LongHistory,
    pub not_applied: Vec<&'static str>,
    /// Names of what is not known.
    pub unread: Vec<String>,
    pub echoed: Echoed,
}

/// What a response repeats of them.
pub(super) struct Echoed {
    pub instructions: Option<String>,
    pub previous_response_id: Option<String>,
    pub parallel_tool_calls: bool,
    pub reasoning: EchoedReasoning,
    pub text: EchoedText,
    pub tool_choice: Box<RawValue>,
    pub tools: Vec<EchoedTool>,
}

impl ContextParameters {
    pub(super) fn model(
        &self,
        state: &HttpState,
        context: &RequestContext,
    ) -> Result<Arc<InstalledModel>, RequestError> {
        installed(state, context, self.model.as_deref())
    }

    fn refuse_unsupported(&self) -> Result<(), RequestError> {
        let given = [
            ("conversation", &self.conversation),
            ("prompt", &self.prompt),
        ];
        match given.into_iter().find(|(_, value)| value.is_some()) {
            Some((name, _)) => Err(RequestError::unsupported(name, "only null is accepted")),
            None => Ok(()),
        }
    }

    fn is_cut(&self) -> Result<Option<bool>, RequestError> {
        match self.truncation.as_deref() {
            None => Ok(None),
            Some("auto") => Ok(Some(true)),
            Some("disabled") => Ok(Some(false)),
            Some(other) => Err(RequestError::out_of_range(
                "truncation",
                format!("must be `auto` or `disabled`, not `{}`", quote(other)),
            )),
        }
    }

    pub(super) fn read(
        self,
        state: &HttpState,
        context: &RequestContext,
        model: &InstalledModel,
        unread: &Unread,
    ) -> Result<Context, RequestError> {
        self.read_behind(state, context, model, unread, None)
    }

    /// The same on a connection.
    pub(super) fn read_behind(
        self,
        state: &HttpState,
        context: &RequestContext,
        model: &InstalledModel,
        unread: &Unread,
        socket: Option<&OfSocket<'_>>,
    ) -> Result<Context, RequestError> {
        self.refuse_unsupported()?;
        let long_history = LongHistory::of(self.is_cut()?, model, false);
        let parallel = self.parallel_tool_calls != Some(false);
        let Thoughts {
            wish,
            effort,
            summary,
            mut not_applied,
            unread: of_reasoning,
        } = reasoning::read(self.reasoning, model)?;
        let mut values = ValuesLeft::of(&state.chat);
        let text = text_format::read(self.text, &mut values)?;
        not_applied.extend(text.not_applied);
        let is_given = self.input.is_some();
        let input = self.input.unwrap_or(Texts::List(Vec::new()));
        let look_up = || state.kept_responses.named_items(context.client.name());
        let input = input::read(input, model, &state.sealing, &look_up)?;
        // However small the body is, what it names may be much.
        context.hold(context.held() + COPIES * input.referenced_bytes)?;
        let previous = self.previous_response_id.as_deref();
        let last = socket.map(|socket| &**socket.last);
        let (mut items, kept_bytes) = history(previous, state, context, last)?;
        let kept = items.len();
        items.extend(input.items);
        let instructions = self.instructions;
        refuse_nul(instructions.as_deref().unwrap_or_default(), || {
            "instructions".to_owned()
        })?;
        // What is only told beforehand can be evaluated beforehand.
        let is_warm_up = socket.is_some_and(|socket| socket.is_warm_up);
        let is_told = instructions.as_deref().is_some_and(|text| !text.is_empty());
        if items.is_empty() && !(is_warm_up && is_told) {
            return Err(match is_given {
                true => {
                    let requirement = "must hold at least one item that is known";
                    RequestError::out_of_range("input", requirement)
                }
                false => RequestError::missing("input"),
            });
        }
        // However small the body is, this may be a long conversation.
        let mut made = aside(kept_bytes + input.referenced_bytes, || {
            conversed(items.iter())
        });
        for place in &mut made.places {
            let new = place.checked_sub(kept);
            let sent = new.map(|new| input.places.get(new).copied().unwrap_or(new));
            *place = sent.unwrap_or(OF_HISTORY);
        }
        if let Some(text) = instructions.as_deref().filter(|text| !text.is_empty()) {
            made.messages.insert(0, Message::text(Role::System, text));
            made.places.insert(0, OF_INSTRUCTIONS);
        }
        let tool_choice = self.tool_choice;
        let choice = tool_choice.as_deref();
        let tools = tools::read(self.tools, choice, parallel, &state.chat, &mut values)?;
        let functions = tools.functions;
        functions.check_for(model, "tools")?;
        formats::refuse_beside_begun(text.asked.as_ref(), &made.messages)?;
        if let Some(calls) = functions.calls.as_ref().filter(|calls| calls.is_forced()) {
            formats::refuse_begun(&made.messages, calls.param)?;
        }
        if let Some(asked) = text
            .asked
            .as_ref()
            .filter(|_| state.constraints.show_format)
        {
            formats::show(&asked.wanted, &mut made.messages, functions.calls.as_ref());
        }
        has_template(model)?;
        let mut variables = Map::new();
        wishes::tell(&wish, &mut variables);
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
        unread.extend(of_reasoning);
        unread.extend(text.unread);
        unread.extend(input.unread);
        unread.extend(tools.unread);
        Ok(Context {
            source: PromptSource::Conversation(Box::new(request)),
            items,
            functions,
            format: text.asked,
            long_history,
            not_applied,
            unread,
            echoed: Echoed {
                instructions,
                previous_response_id: self.previous_response_id,
                parallel_tool_calls: parallel,
                reasoning: EchoedReasoning { effort, summary },
                text: EchoedText {
                    format: text.format.unwrap_or_else(|| compact(r#"{"type":"text"}"#)),
                },
                tool_choice: compact(choice.map_or(r#""auto""#, RawValue::get)),
                tools: tools.echoed,
            },
        })
    }
}

impl Context {
    /// How the reply is read.
    pub(super) fn reading(&self, model: &InstalledModel) -> ReplyReading {
        ReplyReading {
            tools: self.functions.types(),
            keeps_thoughts: false,
            thought_tokens: model.facts.thinking_budget_tokens,
            one_call: !self.functions.parallel,
        }
    }
}

/// The same error, of a field of responses.
pub(super) fn blamed(error: RequestError) -> RequestError {
    match error {
        RequestError::ControlToken { param, token } => RequestError::ControlToken {
            param: renamed(param),
            token,
        },
        // A prompt with a NUL: no variable of a template can have brought it here.
        RequestError::OutOfRange { param, requirement } if param == "chat_template_kwargs" => {
            RequestError::out_of_range("input", requirement)
        }
        other => other,
    }
}

fn renamed(param: String) -> String {
    let Some(rest) = param.strip_prefix("messages[") else {
        return param;
    };
    let is_at = |place: usize| rest.starts_with(&format!("{place}]"));
    if is_at(OF_INSTRUCTIONS) {
        "instructions".to_owned()
    } else if is_at(OF_HISTORY) {
        PREVIOUS.to_owned()
    } else {
        format!("input[{rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nul_in_a_prompt_is_the_inputs() {
        let error = RequestError::out_of_range("chat_template_kwargs", "must not");
        let expected = RequestError::out_of_range("input", "must not");
        assert_eq!(blamed(error), expected);
        let error = RequestError::out_of_range("top_p", "must not");
        assert_eq!(blamed(error.clone()), error);
    }

    #[test]
    fn a_text_is_blamed_where_it_came_from() {
        for (param, expected) in [
            (
                format!("messages[{OF_INSTRUCTIONS}].content"),
                "instructions",
            ),
            (format!("messages[{OF_HISTORY}].content"), PREVIOUS),
            ("messages[3].content".to_owned(), "input[3].content"),
            ("tools[0].name".to_owned(), "tools[0].name"),
        ] {
            assert_eq!(renamed(param), expected);
        }
    }
}
