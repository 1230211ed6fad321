//! A run that makes one answer: what it is given, the kinds of its tokens, and how it ended.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::constraint::{How, Limits, Thought, Vocabulary};
use crate::generation::{DrawRequest, FinishReason, RedrawLimits, SamplingRequest};

/// One generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Unique in the daemon's life.
    pub run: u64,
    pub prompt: String,
    /// An adapter that was loaded with the model; `None`: the model as it is.
    pub adapter: Option<Arc<str>>,
    /// The prompt's tokens as the model's tokenizer makes them; `None`: it has none.
    pub prompt_tokens: Option<Arc<[i32]>>,
    /// An answer that another worker has begun; it is continued right behind its end.
    pub begun: Option<BegunAnswer>,
    pub sampling: SamplingRequest,
    /// Not read where the library takes none of it.
    pub draws: DrawRequest,
    /// What it is kept to, from the beginning of the answer on.
    pub constraint: Option<Box<RunConstraint>>,
    /// Where the library has no hook: its tokens are looked at, and some drawn again. This takes the prompt's
    /// tokens. `None`: the library's tokens are the answer.
    pub redraws: Option<RedrawSpec>,
    /// The model's tokens, where either is there; `None`: the worker was told them before.
    pub vocabulary: Option<Vocabulary>,
    /// Tokens still to be made; `None`: as many as the context leaves.
    pub max_new_tokens: Option<u32>,
    /// The time a token of this prompt may take in prefill: measured where the model's rate is
    /// known, else the setting.
    pub prefill_per_token: Duration,
    /// Events that the daemon has room for at first.
    pub credit: u32,
    /// The run is made for this.
    pub save: Option<SavePrefix>,
}

/// A prompt's cells are to be written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavePrefix {
    pub path: PathBuf,
    /// How much longer the run may take for it, at whatever point of it the library writes.
    pub limit: Duration,
}

/// A grammar that a run is kept to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConstraint {
    pub grammar: String,
    pub limits: Limits,
    pub how: How,
    pub thought: Option<Thought>,
}

/// How tokens are drawn again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedrawSpec {
    pub limits: RedrawLimits,
    /// The answer is kept to its grammar or fails; penalties are neutral.
    pub is_needed: bool,
}

impl RedrawSpec {
    /// The run is made all the same where its tokens cannot be looked at.
    pub fn is_wish(&self, run: &RunSpec) -> bool {
        !self.is_needed && run.draws.logprobs.is_none() && !run.draws.bans_tokens()
    }
}

/// What has been generated of an answer so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BegunAnswer {
    pub text: String,
    /// The tokens that made exactly this text; `None` where one of them is not known, or where the
    /// runtime may not tokenise a prompt as the model's tokenizer does.
    pub token_ids: Option<Vec<i32>>,
    /// How many there are; `None`: a text is part of it that no model made, whose tokens are not known.
    pub tokens: Option<u32>,
}

/// What kind of callback a token came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenKind {
    /// Text, and nothing is held back behind it.
    Text,
    /// Part of a character is held back behind the text.
    Partial,
    /// A token without text: one that the runtime does not print.
    Swallowed,
    /// Bytes that are no UTF-8, with U+FFFD in the text in their place.
    Replaced,
    /// No token: what tokens before it had begun and nothing follows, U+FFFD.
    Rest,
}

/// What a run waits for that goes back in its middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WaitsFor {
    /// The library was asked to end, and has not yet.
    Finish,
    /// It evaluates what is not in its cache of prompt and answer.
    Evaluation,
}

/// What keeping an answer to its grammar took, where the library is aborted at tokens that may not come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redraws {
    /// Tokens that were drawn again.
    pub redraws: u32,
    /// Tokens that the library made and that are not part of the answer.
    pub wasted_tokens: u32,
    /// Tokens of prompt and answer that were evaluated to go on; `None`: the library did not always tell.
    pub evaluated_tokens: Option<u32>,
    /// Runs that told the logits of each of their tokens.
    pub runs_with_rows: u32,
    /// Runs behind the first one.
    pub restarts: u32,
}

impl Redraws {
    /// With those of a later run of the same answer.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        let evaluated = self.evaluated_tokens.zip(later.evaluated_tokens);
        Self {
            redraws: self.redraws.saturating_add(later.redraws),
            wasted_tokens: self.wasted_tokens.saturating_add(later.wasted_tokens),
            evaluated_tokens: evaluated.map(|(before, later)| before.saturating_add(later)),
            runs_with_rows: self.runs_with_rows.saturating_add(later.runs_with_rows),
            restarts: self.restarts.saturating_add(later.restarts),
        }
    }
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunEnd {
    pub run: u64,
    pub outcome: RunOutcome,
    /// Callbacks that stood for a token.
    pub generated_tokens: u32,
    /// The whole prompt and the begun answer, cached tokens included; `None`: neither tokenizer nor
    /// runtime told.
    pub prompt_tokens: Option<u32>,
    /// Prompt tokens that were not evaluated again.
    pub cached_prompt_tokens: Option<u32>,
    pub perf: Option<PerfFigures>,
    /// Of a run whose `perf` the library tells only together with that of others.
    pub clock: Option<ClockFigures>,
    /// `None`: its tokens come from one run of the library.
    pub redraws: Option<Redraws>,
    /// Whether the runtime evaluated exactly the tokens that the model's tokenizer makes of the
    /// prompt; `None`: no tokenizer, or part of the prompt was found in the cache.
    pub tokenizer_agrees: Option<bool>,
    /// Whether what the library printed for its tokens is what the model's tokenizer knows by their numbers;
    /// `None`: too little was printed, the worker was not told them, or the library has a hook.
    pub tokens_agree: Option<bool>,
    /// A call hung or the runtime failed: the worker must not be used again.
    pub tainted: bool,
}

impl RunEnd {
    /// Tokens of the prompt that were not in the cache before; `None`: not known.
    pub fn evaluated_prompt_tokens(&self) -> Option<u32> {
        let told = self.perf.map(|perf| perf.prefill_tokens);
        told.or_else(|| {
            let cached = self.cached_prompt_tokens.unwrap_or(0);
            Some(self.prompt_tokens?.saturating_sub(cached))
        })
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RunOutcome {
    Finished(FinishReason),
    /// Ended by `Command::Abort`.
    Aborted,
    /// The prompt does not fit, found before the runtime was asked.
    ContextLengthExceeded {
        prompt_tokens: u32,
        limit_tokens: u32,
    },
    /// The answer could not be kept to its grammar any longer, within its limits.
    NotKept {
        reason: String,
    },
    /// The runtime returned an error without a callback; the reason is in its printed lines.
    Refused {
        reason: String,
    },
    /// The runtime reported an error while generating.
    Failed {
        reason: String,
    },
}

impl RunOutcome {
    /// Whether the runtime has evaluated its prompt, or begun to.
    pub fn has_run(&self) -> bool {
        !matches!(
            self,
            Self::ContextLengthExceeded { .. } | Self::Refused { .. }
        )
    }
}

/// The runtime's perf statistics of one run, as it reports them at FINISH.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PerfFigures {
    pub prefill_ms: f32,
    pub prefill_tokens: u32,
    pub generate_ms: f32,
    /// Tokens after the first one.
    pub generate_tokens: u32,
    pub memory_mb: f32,
}

/// What the worker's clock has measured of a run that is a sequence of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClockFigures {
    /// From the batch's beginning, so that all its prompts are in it.
    pub first_token_ms: f32,
    /// From its first token to its last one; `None`: there is no other.
    pub others_ms: Option<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_took_is_that_of_its_runs_as_far_as_all_of_it_was_told() {
        let of = |number: u32, evaluated_tokens: Option<u32>| Redraws {
            redraws: number,
            wasted_tokens: 10 * number,
            evaluated_tokens,
            runs_with_rows: 100 * number,
            restarts: 1000 * number,
        };
        assert_eq!(of(1, Some(5)).and(of(2, Some(6))), of(3, Some(11)));
        for (before, later) in [(None, Some(6)), (Some(5), None)] {
            assert_eq!(of(1, before).and(of(2, later)), of(3, None));
        }
    }
}
