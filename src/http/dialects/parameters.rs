//! The parameters that requests for answers share, whatever a dialect calls them: read, checked against their
//! ranges, and either turned into a `SamplingRequest` or refused by name.

mod draws;
mod logit_bias;
mod values;

pub(crate) use values::{is_empty, is_false, neutral, stop_texts, token_budget, within_count};
use values::{stop_schema, within};

use std::time::Duration;

use serde::Deserialize;
use utoipa::ToSchema;

use super::ignored::Ignored;
use crate::generation::SamplingRequest;
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{LongHistory, Options, Without};
use crate::http::request::body::{Object, TextOrList};
use crate::http::request::error::RequestError;
use crate::http::request::free_form::FreeObject;
use crate::http::request::together::fields_of;
use crate::models::InstalledModel;
use crate::settings::ChatSettings;

/// Parameters of both endpoints. Null counts as absent.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct SharedParameters {
    /// Id or alias of an installed model, with `:latest` or without, in any case.
    #[schema(required, nullable = false)]
    pub model: Option<String>,
    /// Whether to answer with a stream of events. Default false.
    pub stream: Option<bool>,
    #[schema(value_type = Option<StreamOptions>)]
    pub stream_options: Option<Object<StreamOptions>>,
    /// Largest number of tokens to generate; -1: as many as the context leaves. 0, for
    /// `/v1/completions` alone, evaluates the prompt and answers an empty text.
    #[schema(minimum = -1)]
    pub max_tokens: Option<i64>,
    /// Randomness, 0 to 2; 0 always takes the likeliest token.
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// Nucleus sampling, 0 to 1; 0 always takes the likeliest token.
    #[schema(minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Sample among this many likeliest tokens; 0 or -1: among all.
    #[schema(minimum = -1, maximum = 2147483647)]
    pub top_k: Option<i64>,
    /// Penalty on tokens seen before; 1 is none. 0.01 to 10.
    #[schema(minimum = 0.01, maximum = 10)]
    pub repeat_penalty: Option<f64>,
    /// Another name of `repeat_penalty`.
    #[schema(minimum = 0.01, maximum = 10)]
    pub repetition_penalty: Option<f64>,
    /// Penalty on tokens that occurred at all, -2 to 2.
    #[schema(minimum = -2, maximum = 2)]
    pub presence_penalty: Option<f64>,
    /// Penalty on tokens by how often they occurred, -2 to 2.
    #[schema(minimum = -2, maximum = 2)]
    pub frequency_penalty: Option<f64>,
    /// Text that ends the answer and is not part of it: a string or, unless `chat.max-stops` says
    /// otherwise, up to 64 of them.
    #[schema(schema_with = stop_schema)]
    pub stop: Option<TextOrList<String>>,
    /// Leaves out tokens that are less likely than this part of the likeliest, 0 to 1. Reported in
    /// `x-rkllmd-not-applied` where the runtime cannot.
    #[schema(minimum = 0, maximum = 1)]
    pub min_p: Option<f64>,
    /// Makes draws repeat, as far as answers that are made beside this one let them. Reported in
    /// `x-rkllmd-not-applied` where the runtime cannot. Any 64-bit integer, signed or not.
    #[schema(value_type = Option<i64>, minimum = -9223372036854775808_i64)]
    pub seed: Option<i128>,
    /// Whether the same seed draws the same whatever else runs, ran or died: the answer's tokens are computed by
    /// themselves, and after a worker's death they are made again. Needs a `seed`, or a temperature of 0.
    /// Reported in `x-rkllmd-not-applied` where the runtime cannot.
    pub deterministic: Option<bool>,
    /// Ids of tokens that end the answer and are not part of it, as many as there may be stop strings.
    pub stop_token_ids: Option<Vec<i64>>,
    /// So many tokens come before one that ends the answer. Reported in `x-rkllmd-not-applied` where the
    /// runtime cannot.
    #[schema(minimum = 0)]
    pub min_tokens: Option<i64>,
    /// Whether the answer goes on where the model would end it. Reported in `x-rkllmd-not-applied` where the
    /// runtime cannot.
    pub ignore_eos: Option<bool>,
    /// Whether to go on with another worker when one dies in the middle of the answer. Default: the
    /// daemon's `recovery.resume`.
    pub resume: Option<bool>,
    /// Longest time from entering the queue to the end of the answer, in milliseconds, at least 1.
    /// The daemon's `deadlines.total`, where set, is not exceeded.
    #[schema(minimum = 1)]
    pub total_deadline_ms: Option<i64>,
    /// Number of answers to each prompt, each a run of its own: up to 8, unless `chat.max-choices` says
    /// otherwise. Default 1.
    #[schema(minimum = 1)]
    pub n: Option<i64>,
    /// What is added to the logits of tokens, by their ids: from -100, which forbids one, to 100.
    /// Reported in `x-rkllmd-not-applied` where the runtime cannot.
    #[schema(value_type = Option<Object>)]
    pub logit_bias: Option<FreeObject>,
}

fields_of!(SharedParameters {
    model,
    stream,
    stream_options,
    max_tokens,
    temperature,
    top_p,
    top_k,
    repeat_penalty,
    repetition_penalty,
    presence_penalty,
    frequency_penalty,
    stop,
    min_p,
    seed,
    deterministic,
    stop_token_ids,
    min_tokens,
    ignore_eos,
    resume,
    total_deadline_ms,
    n,
    logit_bias,
});

/// Options of a stream.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct StreamOptions {
    /// Whether a last chunk, with no choices, carries the token counts. Default false.
    pub include_usage: Option<bool>,
    /// Not done: true is reported in `x-rkllmd-not-applied`.
    include_obfuscation: Option<bool>,
    /// Not done: true is reported in `x-rkllmd-not-applied`.
    continuous_usage_stats: Option<bool>,
}

/// A temperature or nucleus below this leaves nothing but the likeliest token.
const SMALLEST: f32 = 1e-4;
/// A longer deadline is none, and clocks cannot count to every number a client may send.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

impl SharedParameters {
    /// Whether a stream is to end with the token counts.
    pub fn wants_usage(&self) -> bool {
        let options = self.stream_options.as_ref();
        let is_wanted = options.is_some_and(|Object(options)| options.include_usage == Some(true));
        self.stream == Some(true) && is_wanted
    }

    /// What is asked of a stream and not done.
    fn unused_stream_options(&self) -> Vec<&'static str> {
        let Some(Object(options)) = &self.stream_options else {
            return Vec::new();
        };
        let asked = [
            (
                "stream_options.include_obfuscation",
                options.include_obfuscation,
            ),
            (
                "stream_options.continuous_usage_stats",
                options.continuous_usage_stats,
            ),
        ];
        let asked = asked.into_iter().filter(|(_, wish)| *wish == Some(true));
        asked.map(|(name, _)| name).collect()
    }

    /// What they say of the run and the answer. `max_new_tokens` is the endpoint's own to say, and
    /// `ignored` are parameters that are not read.
    pub fn options(
        &self,
        state: &HttpState,
        model: &InstalledModel,
        max_new_tokens: Option<u32>,
        ignored: Ignored,
    ) -> Result<Options, RequestError> {
        let total_deadline = self.total_deadline(state.total_deadline)?;
        Ok(Options {
            stream: self.stream == Some(true),
            sampling: self.sampling()?,
            implied: match self.top_k {
                None => vec!["top_k"],
                Some(_) => Vec::new(),
            },
            draws: self.draws(state, model)?,
            choices: self.choices(&state.chat)?,
            more_prompts: Vec::new(),
            max_new_tokens,
            thought_budget: None,
            format: None,
            calls: None,
            stop: self.stop(&state.chat)?,
            without: self.without(),
            resume: self.resume,
            total_deadline,
            long_history: LongHistory::IsRefused,
            keep_alive: None,
            ignored: [ignored.of_an_answer()?, self.unused_stream_options()].concat(),
            unread: Vec::new(),
        })
    }

    /// For a path that gives one answer.
    pub fn refuse_several(&self) -> Result<(), RequestError> {
        match self.n {
            None | Some(1) => Ok(()),
            Some(_) => Err(RequestError::unsupported(
                "n",
                "only 1 answer or null is accepted",
            )),
        }
    }

    fn choices(&self, limits: &ChatSettings) -> Result<usize, RequestError> {
        let most = limits.max_choices;
        let count = usize::try_from(self.n.unwrap_or(1)).ok();
        let count = count.filter(|count| (1..=most).contains(count));
        count.ok_or_else(|| {
            RequestError::out_of_range(
                "n",
                format!(
                    "must be from 1 to {most}, which `max-choices` in the [chat] settings allows"
                ),
            )
        })
    }

    pub fn sampling(&self) -> Result<SamplingRequest, RequestError> {
        let repeat_penalty = match (self.repeat_penalty, self.repetition_penalty) {
            (Some(one), Some(other)) if one != other => {
                return Err(RequestError::out_of_range(
                    "repetition_penalty",
                    "is another name of `repeat_penalty` and must not differ from it",
                ));
            }
            (one, other) => one
                .map(|value| ("repeat_penalty", value))
                .or(other.map(|value| ("repetition_penalty", value))),
        };
        let mut sampling = SamplingRequest {
            temperature: within("temperature", self.temperature, (0.0, 2.0))?,
            top_p: within("top_p", self.top_p, (0.0, 1.0))?,
            top_k: self.top_k()?,
            repeat_penalty: match repeat_penalty {
                // Runtimes divide by it.
                Some((name, value)) => within(name, Some(value), (0.01, 10.0))?,
                None => None,
            },
            presence_penalty: within("presence_penalty", self.presence_penalty, (-2.0, 2.0))?,
            frequency_penalty: within("frequency_penalty", self.frequency_penalty, (-2.0, 2.0))?,
        };
        // Runtimes divide by the temperature too, and what they make of no nucleus is their own; the
        // likeliest token needs neither.
        for value in [&mut sampling.temperature, &mut sampling.top_p] {
            if value.is_some_and(|value| value < SMALLEST) {
                *value = Some(1.0);
                sampling.top_k = Some(1);
            }
        }
        Ok(sampling)
    }

    fn top_k(&self) -> Result<Option<i32>, RequestError> {
        match self.top_k {
            None => Ok(None),
            Some(-1) => Ok(Some(0)),
            Some(top_k) => match i32::try_from(top_k) {
                Ok(top_k) if top_k >= 0 => Ok(Some(top_k)),
                _ => Err(RequestError::out_of_range(
                    "top_k",
                    "must be -1, 0 or a positive 32-bit integer",
                )),
            },
        }
    }

    /// What the request asks to be without.
    pub fn without(&self) -> Without {
        Without {
            stop: matches!(&self.stop, Some(TextOrList::List(stops)) if stops.is_empty()),
            ..Without::default()
        }
    }

    pub fn stop(&self, limits: &ChatSettings) -> Result<Vec<String>, RequestError> {
        let stops = match &self.stop {
            None => &[],
            Some(TextOrList::Text(stop)) => std::slice::from_ref(stop),
            Some(TextOrList::List(stops)) => stops.as_slice(),
        };
        stop_texts("stop", stops, limits)
    }

    /// The shorter one of the daemon's limit and the client's.
    pub fn total_deadline(
        &self,
        longest: Option<Duration>,
    ) -> Result<Option<Duration>, RequestError> {
        let Some(asked) = self.total_deadline_ms else {
            return Ok(longest);
        };
        match u64::try_from(asked) {
            Ok(ms) if ms >= 1 => {
                let asked = Duration::from_millis(ms).min(NEVER);
                Ok(Some(longest.map_or(asked, |longest| longest.min(asked))))
            }
            _ => Err(RequestError::out_of_range(
                "total_deadline_ms",
                "must be at least 1",
            )),
        }
    }

    pub fn max_tokens(&self) -> Result<Option<u32>, RequestError> {
        token_budget("max_tokens", self.max_tokens)
    }
}

#[cfg(test)]
mod tests;
