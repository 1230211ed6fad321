//! What chats and texts have in common: read, checked, and made into what every dialect's request is
//! made of.

use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};

use super::answer::Begun;
use super::context::NextContext;
use super::keep_alive;
use super::options::ModelOptions;
use crate::chat::{PromptSource, ReplyReading};
use crate::constraint::Wanted;
use crate::conversation::{Message, ReasoningWish, Thinking, Tool};
use crate::generation::{DrawRequest, KeepAlive};
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{LongHistory, Options};
use crate::http::dialects::format::{self, AskedFormat};
use crate::http::dialects::parameters::is_empty;
use crate::http::dialects::{logprobs, reasoning};
use crate::http::request::body::Object;
use crate::http::request::context::RequestContext;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::free_form::Outline;
use crate::http::request::installed::installed;
use crate::http::request::together::{Together, fields_of};
use crate::http::request::unread::Unread;
use crate::http::response::notices;
use crate::models::InstalledModel;
use crate::prompt::RenderRequest;

/// The field that says what an answer is to be.
pub(super) const FORMAT: &str = "format";

/// Parameters of both endpoints. Null counts as absent.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct OllamaParameters {
    /// Id or alias of an installed model, with `:latest` or without, in any case.
    #[schema(required, nullable = false)]
    pub model: Option<String>,
    /// Whether to answer with a stream of lines. Default true.
    pub stream: Option<bool>,
    /// Options of the run.
    #[schema(value_type = Option<ModelOptions>)]
    pub options: Option<Object<ModelOptions>>,
    /// Whether to think, or how much: `low`, `medium`, `high` or `max`. Default: as the model does.
    #[schema(schema_with = think_schema)]
    pub think: Option<Outline>,
    /// For how long the model is to stay loaded after its last use: seconds, or a duration such as `5m`; 0
    /// is not at all and a negative one, which is admins', for ever. Default: as the model's setting says.
    #[schema(schema_with = keep_alive_schema)]
    pub keep_alive: Option<Outline>,
    /// What the answer is: `json` is any JSON object, and a JSON schema what is of that schema; beside functions
    /// where it calls none. Not where the request has begun the answer.
    #[schema(schema_with = format_schema)]
    pub format: Option<Box<RawValue>>,
    /// Whether the oldest turns of a conversation that is too long are left out, which the header
    /// `x-rkllmd-dropped-messages` tells, and of a `context` `x-rkllmd-dropped-tokens`; otherwise it is refused.
    /// Default: the model's own, else true.
    pub truncate: Option<bool>,
    /// Whether to go on where the context ends; only false is applied.
    pub shift: Option<bool>,
    /// Whether to tell how likely each token of the content was. Refused where the runtime cannot.
    pub logprobs: Option<bool>,
    /// With `logprobs`: how many of the likeliest tokens to tell in each place.
    #[schema(minimum = 0, maximum = 20)]
    pub top_logprobs: Option<i64>,
}

fields_of!(OllamaParameters {
    model,
    stream,
    options,
    think,
    keep_alive,
    format,
    truncate,
    shift,
    logprobs,
    top_logprobs,
});

/// They, what an endpoint takes beside them, and the names of what neither has.
pub(super) type Read<X> = Together<Together<OllamaParameters, X>, Unread>;

/// What they say of the run, checked.
pub(super) struct Run {
    pub options: Options,
    pub wish: ReasoningWish,
}

impl OllamaParameters {
    /// Which model is asked, by what name and since when, and for how long it is to stay.
    pub(super) fn begun(
        &mut self,
        state: &HttpState,
        context: &RequestContext,
    ) -> Result<(Arc<InstalledModel>, Begun, Option<KeepAlive>), RequestError> {
        let model = installed(state, context, self.model.as_deref())?;
        let begun = Begun {
            model: self.model.take().unwrap_or_default().into(),
            at: context.arrived(),
            context: NextContext::default(),
        };
        let keep_alive = keep_alive::read(self.keep_alive.take())?;
        Ok((model, begun, keep_alive))
    }

    /// How much of the beginning of a context stays.
    pub(super) fn kept_tokens(&self) -> Option<usize> {
        let Object(options) = self.options.as_ref()?;
        options.kept_tokens()
    }

    pub(super) fn run(
        self,
        state: &HttpState,
        model: &InstalledModel,
        keep_alive: Option<KeepAlive>,
        unread: Unread,
    ) -> Result<Run, RequestError> {
        let logprobs = logprobs::of_chat(self.logprobs, self.top_logprobs)?;
        let format = format(self.format.as_deref())?;
        let wish = self.wish(model)?;
        let Object(options) = self.options.unwrap_or(Object(ModelOptions::default()));
        let asked = options.read(state, model)?;
        let mut ignored = asked.not_applied;
        let is_given = [("shift", self.shift == Some(true))];
        ignored.extend(
            is_given
                .iter()
                .filter(|(_, given)| *given)
                .map(|(name, _)| name),
        );
        Ok(Run {
            options: Options {
                stream: self.stream != Some(false),
                sampling: asked.sampling,
                implied: asked.implied,
                draws: DrawRequest {
                    logprobs,
                    ..asked.draws
                },
                choices: 1,
                more_prompts: Vec::new(),
                max_new_tokens: asked.max_new_tokens.or(model.facts.max_new_tokens),
                thought_budget: None,
                format,
                calls: None,
                stop: asked.stop,
                without: asked.without,
                resume: None,
                total_deadline: state.total_deadline,
                long_history: LongHistory::of(self.truncate, model, true),
                keep_alive,
                ignored,
                unread: in_headers(unread),
            },
            wish,
        })
    }

    fn wish(&self, model: &InstalledModel) -> Result<ReasoningWish, RequestError> {
        let (thinking, effort) = match self.think.as_ref().map(|Outline(value)| value) {
            None => return Ok(ReasoningWish::default()),
            Some(Value::Bool(false)) => (Thinking::Off, None),
            Some(Value::Bool(true)) => (Thinking::On, None),
            Some(Value::String(effort)) => match effort.as_str() {
                "low" | "medium" | "high" | "max" => (Thinking::On, Some(effort.clone())),
                other => {
                    let other = quote(other);
                    return Err(RequestError::out_of_range(
                        "think",
                        format!(
                            "must be a boolean, `low`, `medium`, `high` or `max`, not `{other}`"
                        ),
                    ));
                }
            },
            Some(_) => {
                return Err(RequestError::WrongType {
                    param: "think".to_owned(),
                    reason: "expected a boolean, `low`, `medium`, `high` or `max`".to_owned(),
                });
            }
        };
        if thinking == Thinking::On && !thinks(model) {
            return Err(RequestError::unsupported(
                "think",
                format!("\"{}\" does not support thinking", model.id),
            ));
        }
        Ok(ReasoningWish { thinking, effort })
    }
}

/// The names of what nothing reads, as headers tell them.
pub(super) fn in_headers(unread: Unread) -> Vec<String> {
    let names = unread.names.iter();
    names.map(|name| notices::in_a_header(name)).collect()
}

/// What an answer is kept to.
fn format(given: Option<&RawValue>) -> Result<Option<AskedFormat>, RequestError> {
    let Some(written) = given.map(RawValue::get) else {
        return Ok(None);
    };
    let wanted = match serde_json::from_str::<String>(written).as_deref() {
        Ok("") => return Ok(None),
        Ok("json") => Wanted::JsonObject,
        Ok(other) => {
            return Err(RequestError::out_of_range(
                FORMAT,
                format!("must be `json` or a JSON schema, not `{}`", quote(other)),
            ));
        }
        Err(_) if written.starts_with('{') => Wanted::JsonSchema {
            schema: written.to_owned(),
            strict: false,
        },
        Err(_) => {
            return Err(RequestError::WrongType {
                param: FORMAT.to_owned(),
                reason: "expected `json` or a JSON schema".to_owned(),
            });
        }
    };
    Ok(Some(AskedFormat {
        wanted,
        param: FORMAT,
    }))
}

/// Tells the model of the format that is asked for, where that is set.
pub(super) fn show_format(state: &HttpState, options: &Options, messages: &mut [Message]) {
    let asked = options.format.as_ref();
    if let Some(asked) = asked.filter(|_| state.constraints.show_format) {
        format::show(&asked.wanted, messages, options.calls.as_ref());
    }
}

/// Whether it is known how the model marks its thoughts.
pub(super) fn thinks(model: &InstalledModel) -> bool {
    let reply = model.reply.as_ref();
    reply.is_some_and(|reply| reply.found.knows_thoughts())
}

/// A conversation to be rendered, with variables that tell the model's template what is wished.
pub(super) fn source(
    state: &HttpState,
    wish: &ReasoningWish,
    conversation: (Vec<Message>, Vec<Tool>),
) -> PromptSource {
    PromptSource::Conversation(Box::new(render_request(state, wish, conversation)))
}

/// The same, before it is known what it is a source of.
pub(super) fn render_request(
    state: &HttpState,
    wish: &ReasoningWish,
    (messages, tools): (Vec<Message>, Vec<Tool>),
) -> RenderRequest {
    let mut variables = Map::new();
    reasoning::tell(wish, &mut variables);
    let now = jiff::Zoned::now().datetime();
    RenderRequest {
        variables,
        control_tokens: state.chat.control_tokens,
        ..RenderRequest::of(messages, tools, now)
    }
}

/// How the reply is read, but for calls.
pub(super) fn reading(model: &InstalledModel) -> ReplyReading {
    ReplyReading {
        tools: None,
        keeps_thoughts: false,
        thought_tokens: model.facts.thinking_budget_tokens,
        one_call: false,
    }
}

/// Refuses images, which no model here can look at.
pub(super) fn refuse_images(
    images: Option<&Outline>,
    model: &InstalledModel,
    param: impl FnOnce() -> String,
) -> Result<(), RequestError> {
    match images {
        Some(Outline(value)) if !is_empty(value) => Err(RequestError::unsupported(
            param(),
            format!("\"{}\" does not support images", model.id),
        )),
        _ => Ok(()),
    }
}

pub(super) fn stop_schema() -> Schema {
    OneOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::String))
        .item(ArrayBuilder::new().items(ObjectBuilder::new().schema_type(Type::String)))
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .description(Some(
            "Text that ends the answer and is not part of it: one or several.",
        ))
        .into()
}

fn think_schema() -> Schema {
    let efforts = ["low", "medium", "high", "max"];
    OneOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::Boolean))
        .item(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .enum_values(Some(efforts)),
        )
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .description(Some(
            "Whether to think, or how much. Default: as the model does.",
        ))
        .into()
}

pub(super) fn keep_alive_schema() -> Schema {
    OneOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::Number))
        .item(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .pattern(Some(r"^-?[0-9]{1,6}(ms|s|m|h)?$")),
        )
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .description(Some(
            "For how long the model is to stay loaded: seconds, or a duration such as `5m`; 0 is not at all.",
        ))
        .into()
}

fn format_schema() -> Schema {
    OneOfBuilder::new()
        .item(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .enum_values(Some(["", "json"])),
        )
        .item(ObjectBuilder::new().schema_type(Type::Object))
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .description(Some(
            "What the answer is: `json` is any JSON object, and a JSON schema what is of that schema.",
        ))
        .into()
}
