//! What only `/v1/responses` takes, checked field by field.

use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::echo::{MOST_OF_A_NAME, MOST_OF_A_TEXT, refuse_longer};
use crate::generation::LogprobsRequest;
use crate::http::HttpState;
use crate::http::dialects::logprobs;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::{FreeObject, Outline, ValuesLeft};
use crate::http::request::together::fields_of;
use crate::http::response::notices;
use crate::models::InstalledModel;

const LOGPROBS: &str = "message.output_text.logprobs";
const SEALED: &str = "reasoning.encrypted_content";
/// The most entries of `metadata`, as OpenAI has it.
const MOST_METADATA: usize = 16;

/// What only `/v1/responses` takes.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct CreateParameters {
    /// Whether to answer with a stream of events. Default false.
    pub(super) stream: Option<bool>,
    /// Nothing of it is done: events are never padded. `include_obfuscation: true` is named in `x-rkllmd-not-applied`.
    #[schema(value_type = Option<Object>)]
    stream_options: Option<Outline>,
    /// Largest number of tokens to generate, thoughts included. Default: as many as the context leaves, or the
    /// model's own.
    #[schema(minimum = 1)]
    max_output_tokens: Option<i64>,
    /// Randomness, 0 to 2; 0 always takes the likeliest token.
    #[schema(minimum = 0, maximum = 2)]
    pub(super) temperature: Option<f64>,
    /// Nucleus sampling, 0 to 1; 0 always takes the likeliest token.
    #[schema(minimum = 0, maximum = 1)]
    pub(super) top_p: Option<f64>,
    /// Penalty on tokens that occurred at all, -2 to 2.
    #[schema(minimum = -2, maximum = 2)]
    pub(super) presence_penalty: Option<f64>,
    /// Penalty on tokens by how often they occurred, -2 to 2.
    #[schema(minimum = -2, maximum = 2)]
    pub(super) frequency_penalty: Option<f64>,
    /// How many of the likeliest tokens to tell in each place, as `include` asks it with
    /// `message.output_text.logprobs`. Refused where the runtime cannot.
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<i64>,
    /// `message.output_text.logprobs`: how likely tokens were; `reasoning.encrypted_content`: thoughts in a form that can be
    /// sent back. What else is asked for is named in `x-rkllmd-not-applied`.
    include: Option<Vec<String>>,
    /// Texts of the client's, which the response repeats.
    #[schema(value_type = Option<std::collections::HashMap<String, String>>)]
    metadata: Option<FreeObject>,
    /// The response repeats it.
    #[schema(max_length = 512)]
    pub(super) user: Option<String>,
    /// The response repeats it.
    #[schema(max_length = 64)]
    pub(super) safety_identifier: Option<String>,
    /// The response repeats it.
    #[schema(max_length = 64)]
    pub(super) prompt_cache_key: Option<String>,
    /// The response repeats it. All requests are served alike, so what is neither `auto` nor `default` is named in
    /// `x-rkllmd-not-applied`.
    #[schema(max_length = 64)]
    pub(super) service_tier: Option<String>,
    /// Whatever of a prompt a slot still holds is used again in any case. What is not `in_memory` is named in
    /// `x-rkllmd-not-applied`.
    prompt_cache_retention: Option<String>,
    /// Nothing is done with it.
    #[schema(value_type = Option<Object>)]
    client_metadata: Option<FreeObject>,
    /// Whether the response is kept, so that requests may go on from it. Default true.
    pub(super) store: Option<bool>,
    /// Whether the response is made whether or not its client waits; it is kept, so `store` must not be false. Default
    /// false.
    background: Option<bool>,
}

fields_of!(CreateParameters {
    stream,
    stream_options,
    max_output_tokens,
    temperature,
    top_p,
    presence_penalty,
    frequency_penalty,
    top_logprobs,
    include,
    metadata,
    user,
    safety_identifier,
    prompt_cache_key,
    service_tier,
    prompt_cache_retention,
    client_metadata,
    store,
    background,
});

/// What is told beside the answer.
#[derive(Debug, Default)]
pub(super) struct Include {
    pub(super) logprobs: Option<LogprobsRequest>,
    pub(super) seals: bool,
    pub(super) unread: Vec<String>,
}

/// Values that an answer is made with; `None`: the runtime's, which is not known.
pub(super) struct InForce {
    pub(super) temperature: Option<f32>,
    pub(super) top_p: Option<f32>,
    pub(super) presence_penalty: Option<f32>,
    pub(super) frequency_penalty: Option<f32>,
}

impl CreateParameters {
    pub(super) fn max_output_tokens(&self) -> Result<Option<u32>, RequestError> {
        const FIELD: &str = "max_output_tokens";
        match self.max_output_tokens {
            None => Ok(None),
            // More than any context holds is as much as it leaves.
            Some(tokens @ 1..) => Ok(Some(u32::try_from(tokens).unwrap_or(u32::MAX))),
            Some(_) => Err(RequestError::out_of_range(FIELD, "must be at least 1")),
        }
    }

    /// As a message on a WebSocket has them, whose answer is events in any case.
    pub(super) fn on_a_socket(self) -> Result<Self, RequestError> {
        if self.background == Some(true) {
            return Err(RequestError::unsupported(
                "background",
                "a response on a WebSocket ends with that",
            ));
        }
        Ok(Self {
            stream: Some(true),
            ..self
        })
    }

    /// Whether it is made whether or not its client waits.
    pub(super) fn in_background(&self, state: &HttpState) -> Result<bool, RequestError> {
        const FIELD: &str = "background";
        if self.background != Some(true) {
            return Ok(false);
        }
        if self.store == Some(false) {
            return Err(RequestError::out_of_range(
                FIELD,
                "needs `store`, by which its client finds it again",
            ));
        }
        if !state.kept_responses.keeps() || !state.background_responses.may_begin() {
            return Err(RequestError::unsupported(
                FIELD,
                "`max-background-per-key` or `max-kept-per-key` in the [responses] settings is 0: leave it out, and \
                 read the stream",
            ));
        }
        Ok(true)
    }

    pub(super) fn include(&self) -> Result<Include, RequestError> {
        let mut include = Include::default();
        let mut tells_logprobs = self.top_logprobs.is_some_and(|top| top != 0);
        for name in self.include.iter().flatten() {
            match name.as_str() {
                LOGPROBS => tells_logprobs = true,
                SEALED => include.seals = true,
                other => {
                    notices::tell_unread(&mut include.unread, &format!("include[].{other}"));
                }
            }
        }
        include.logprobs = logprobs::of_chat(Some(tells_logprobs), self.top_logprobs)?;
        Ok(include)
    }

    pub(super) fn metadata(&self, state: &HttpState) -> Result<Map<String, Value>, RequestError> {
        const FIELD: &str = "metadata";
        let Some(given) = &self.metadata else {
            return Ok(Map::new());
        };
        let metadata = given.read(FIELD, &mut ValuesLeft::of(&state.chat))?;
        if metadata.len() > MOST_METADATA {
            let requirement = format!("must not have more than {MOST_METADATA} entries");
            return Err(RequestError::out_of_range(FIELD, requirement));
        }
        for (name, value) in &metadata {
            let value = value.as_str().ok_or_else(|| RequestError::WrongType {
                param: FIELD.to_owned(),
                reason: "its values must be strings".to_owned(),
            })?;
            refuse_longer(FIELD, Some(name), MOST_OF_A_NAME)?;
            refuse_longer(FIELD, Some(value), MOST_OF_A_TEXT)?;
        }
        Ok(metadata)
    }

    /// What is known of it and not done.
    pub(super) fn not_applied(&self) -> impl Iterator<Item = &'static str> {
        let is_other = |given: &Option<String>, done: &[&str]| {
            given.as_deref().is_some_and(|given| !done.contains(&given))
        };
        let stream = self.stream_options.as_ref();
        let pads = stream.and_then(|Outline(options)| options.get("include_obfuscation"));
        let known = [
            (
                "stream_options.include_obfuscation",
                pads == Some(&Value::Bool(true)),
            ),
            (
                "service_tier",
                is_other(&self.service_tier, &["auto", "default"]),
            ),
            (
                "prompt_cache_retention",
                is_other(&self.prompt_cache_retention, &["in_memory", "in-memory"]),
            ),
        ];
        known
            .into_iter()
            .filter_map(|(name, is_asked)| is_asked.then_some(name))
    }

    pub(super) fn refuse_long(&self) -> Result<(), RequestError> {
        for (field, text, most) in [
            ("user", &self.user, MOST_OF_A_TEXT),
            ("safety_identifier", &self.safety_identifier, MOST_OF_A_NAME),
            ("prompt_cache_key", &self.prompt_cache_key, MOST_OF_A_NAME),
            ("service_tier", &self.service_tier, MOST_OF_A_NAME),
        ] {
            refuse_longer(field, text.as_deref(), most)?;
        }
        Ok(())
    }

    pub(super) fn values(&self, model: &InstalledModel) -> InForce {
        let usual = model.usual_sampling();
        let value = |given: Option<f64>| given.map(|value| value as f32);
        InForce {
            temperature: value(self.temperature).or(usual.temperature),
            top_p: value(self.top_p).or(usual.top_p),
            presence_penalty: value(self.presence_penalty).or(usual.presence_penalty),
            frequency_penalty: value(self.frequency_penalty).or(usual.frequency_penalty),
        }
    }
}
