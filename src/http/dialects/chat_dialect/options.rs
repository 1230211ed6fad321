//! What a request says of its run and its answer, whatever the dialect.

use std::time::Duration;

use crate::chat::PromptSource;
use crate::generation::{DrawRequest, KeepAlive, SamplingRequest};
use crate::http::dialects::calls::AskedCalls;
use crate::http::dialects::format::AskedFormat;
use crate::http::request::error::RequestError;
use crate::models::InstalledModel;

/// What a request says of its run and its answer, whatever the dialect.
pub(crate) struct Options {
    pub stream: bool,
    pub sampling: SamplingRequest,
    /// Values of `sampling` that the client did not ask for.
    pub implied: Vec<&'static str>,
    pub draws: DrawRequest,
    /// How many answers to each prompt.
    pub choices: usize,
    /// Further prompts, each of which is answered.
    pub more_prompts: Vec<PromptSource>,
    /// `None`: as many as the context leaves. Of a history that is cut, room for so many is left.
    pub max_new_tokens: Option<u32>,
    /// The name by which the client gave a budget of thoughts.
    pub thought_budget: Option<&'static str>,
    /// What the answer is kept to; `None`: it is free.
    pub format: Option<AskedFormat>,
    /// The functions that may be called, and how; `None`: none may be.
    pub calls: Option<AskedCalls>,
    pub stop: Vec<String>,
    pub without: Without,
    /// `None`: the daemon's own setting.
    pub resume: Option<bool>,
    pub total_deadline: Option<Duration>,
    /// What becomes of a history that is too long.
    pub long_history: LongHistory,
    /// For how long the model is to stay loaded after it. `None`: as the model's setting says.
    pub keep_alive: Option<KeepAlive>,
    /// What the request gives and the daemon does not read.
    pub ignored: Vec<&'static str>,
    /// Likewise, by names that only the client knows.
    pub unread: Vec<String>,
}

/// What a request asks to be without, also where its model is made with one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Without {
    pub seed: bool,
    pub stop: bool,
    /// Its prompt is evaluated, made as for an answer, and that is all.
    pub answer: bool,
}

impl Options {
    /// Tokens that are made at the most.
    pub(super) fn most_tokens(&self) -> Option<u32> {
        match self.without.answer {
            true => Some(0),
            false => self.max_new_tokens,
        }
    }

    /// Draws at random repeat by a seed only.
    pub(super) fn check_deterministic(&self, model: &InstalledModel) -> Result<(), RequestError> {
        let usual = model.usual_sampling();
        let is_greedy = self.sampling.top_k.or(usual.top_k) == Some(1)
            || self.sampling.temperature.or(usual.temperature) == Some(0.0);
        match self.draws.deterministic && self.draws.seed.is_none() && !is_greedy {
            true => Err(RequestError::out_of_range(
                "deterministic",
                "needs a `seed`, or a temperature of 0",
            )),
            false => Ok(()),
        }
    }
}

/// What becomes of a conversation that does not fit the model's context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LongHistory {
    IsRefused,
    /// Its oldest turns go; the request itself asked for it, or said nothing.
    IsCut {
        as_asked: bool,
    },
}

impl LongHistory {
    /// As the request says, else the model, else the dialect's `default`.
    pub fn of(asked: Option<bool>, model: &InstalledModel, is_cut_by_default: bool) -> Self {
        let is_cut = asked.or(model.facts.truncate).unwrap_or(is_cut_by_default);
        match is_cut {
            true => Self::IsCut {
                as_asked: asked.is_some(),
            },
            false => Self::IsRefused,
        }
    }
}
