//! What chats and texts have in common: read, checked, and made into what every dialect's request is
//! made of.

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};

use super::keep_alive::{self, KeepAlive};
use super::options::ModelOptions;
use crate::chat::ReplyReading;
use crate::constraint::Wanted;
use crate::conversation::{Message, ReasoningWish, Thinking};
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::Options;
use crate::http::dialects::format::{self, AskedFormat};
use crate::http::dialects::openai::parameters::{is_empty, is_false, neutral};
use crate::http::dialects::openai::reasoning;
use crate::http::request::body::Object;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::free_form::Outline;
use crate::http::request::together::fields_of;
use crate::models::InstalledModel;

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
    /// For how long the model is to stay loaded: seconds, or a duration such as `5m`. Only a negative
    /// one is applied, and 0 in a request for nothing else.
    #[schema(schema_with = keep_alive_schema)]
    pub keep_alive: Option<Outline>,
    /// What the answer is: `json` is any JSON object, and a JSON schema what is of that schema. Not beside
    /// functions, nor where the request has begun the answer.
    #[schema(schema_with = format_schema)]
    pub format: Option<Box<RawValue>>,
    /// Whether to leave out the oldest messages of what is too long; only false is applied.
    pub truncate: Option<bool>,
    /// Whether to go on where the context ends; only false is applied.
    pub shift: Option<bool>,
    /// Not supported; null or false.
    #[schema(value_type = Option<bool>)]
    pub logprobs: Option<Outline>,
    /// Not supported; null or 0.
    #[schema(value_type = Option<i64>)]
    pub top_logprobs: Option<Outline>,
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

/// What they say of the run, checked.
pub(super) struct Run {
    pub options: Options,
    pub wish: ReasoningWish,
}

impl OllamaParameters {
    /// How long the model is to stay.
    pub(super) fn keep_alive(&mut self) -> Result<Option<KeepAlive>, RequestError> {
        keep_alive::read(self.keep_alive.take())
    }

    pub(super) fn run(
        self,
        state: &HttpState,
        model: &InstalledModel,
        keep_alive: Option<KeepAlive>,
    ) -> Result<Run, RequestError> {
        self.refuse_unsupported()?;
        let format = format(self.format.as_deref())?;
        let wish = self.wish(model)?;
        let Object(options) = self.options.unwrap_or(Object(ModelOptions::default()));
        let asked = options.read(state, model)?;
        let mut ignored = asked.not_applied;
        let is_given = [
            (
                "keep_alive",
                keep_alive.is_some_and(|it| it != KeepAlive::ForEver),
            ),
            ("truncate", self.truncate == Some(true)),
            ("shift", self.shift == Some(true)),
        ];
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
                draws: asked.draws,
                max_new_tokens: asked.max_new_tokens,
                thought_budget: None,
                format,
                stop: asked.stop,
                resume: None,
                total_deadline: state.total_deadline,
                ignored,
            },
            wish,
        })
    }

    /// Refuses what would make another answer, so that no client takes it for done.
    fn refuse_unsupported(&self) -> Result<(), RequestError> {
        neutral("logprobs", &self.logprobs, is_false, "only false")?;
        let is_zero = |value: &Value| value.as_f64() == Some(0.0);
        neutral("top_logprobs", &self.top_logprobs, is_zero, "only 0")
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
        format::show(&asked.wanted, messages);
    }
}

/// Whether it is known how the model marks its thoughts.
pub(super) fn thinks(model: &InstalledModel) -> bool {
    let format = model.reply.as_ref().map(|reply| &reply.found.format);
    format.is_some_and(|format| format.reasoning.is_some() || format.harmony)
}

/// Variables that tell the model's template what is wished.
pub(super) fn variables(wish: &ReasoningWish) -> Map<String, Value> {
    let mut variables = Map::new();
    reasoning::tell(wish, &mut variables);
    variables
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
                .pattern(Some(r"^-?[0-9]{1,6}(ms|s|m|h)$")),
        )
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .description(Some(
            "For how long the model is to stay loaded: seconds, or a duration such as `5m`.",
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
