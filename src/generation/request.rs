mod draws;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use draws::{DrawRequest, LogprobsRequest, RedrawLimits, RedrawRuns, SamplingRequest};

use super::{Adapter, GenerationError, KeepAlive};
use crate::constraint::{Constraint, Need};
use crate::reply::ReplyPlan;

/// The id of an installed model, as `/v1/models` lists it.
pub type ModelId = Arc<str>;

/// Names one request in logs and answers, for example `chatcmpl-0a1b…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub Arc<str>);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who is asking, as far as fairness between clients is concerned: a key, else the peer's address or
/// user.
#[derive(Clone, Debug)]
pub struct ClientKey {
    /// Alone tells two clients apart.
    name: Arc<str>,
    weight: Weight,
    /// Clients of one tenant may find out what the others have asked. The empty one is the default's.
    tenant: Arc<str>,
    is_a_key: bool,
}

impl ClientKey {
    /// A client of weight 1.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self::of_weight(name, Weight::default())
    }

    pub fn of_weight(name: impl Into<Arc<str>>, weight: Weight) -> Self {
        Self {
            name: name.into(),
            weight,
            tenant: Arc::default(),
            is_a_key: false,
        }
    }

    /// As a key of a tenant.
    #[must_use]
    pub fn of_tenant(self, tenant: impl Into<Arc<str>>) -> Self {
        Self {
            tenant: tenant.into(),
            is_a_key: true,
            ..self
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose prompts it may find out to have been evaluated.
    pub fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    pub fn is_a_key(&self) -> bool {
        self.is_a_key
    }

    /// Of what clients share it gets so much for each one that a client of weight 1 gets.
    pub fn weight(&self) -> Weight {
        self.weight
    }
}

impl PartialEq for ClientKey {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ClientKey {}

impl Hash for ClientKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// How much of a model's time a client gets beside others who wait as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Weight(u32);

impl Weight {
    pub const MOST: u32 = 100;

    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

impl TryFrom<u32> for Weight {
    type Error = String;

    fn try_from(weight: u32) -> Result<Self, String> {
        match weight {
            1..=Self::MOST => Ok(Self(weight)),
            _ => Err(format!("a weight is a number from 1 to {}", Self::MOST)),
        }
    }
}

impl From<Weight> for u32 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

impl FromStr for Weight {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.parse().unwrap_or(0))
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One generation, after the dialect was parsed, checked and rendered.
#[derive(Clone, Debug)]
pub struct GenerationRequest {
    pub id: RequestId,
    pub model: ModelId,
    /// `None`: the model as it is.
    pub adapter: Option<Arc<Adapter>>,
    pub client: ClientKey,
    /// The exact text the runtime tokenises, special tokens parsed; nothing is added to it.
    pub prompt: Arc<str>,
    /// Its tokens; `None`: the model has no tokenizer of its own.
    pub prompt_tokens: Option<Arc<[i32]>>,
    /// The runtime gets the tokens as they are, which the text need not be made into.
    pub goes_by_tokens: bool,
    pub sampling: SamplingRequest,
    pub draws: DrawRequest,
    /// Refuse the request when a value cannot be applied, instead of reporting it.
    pub strict_parameters: bool,
    /// `None`: as many tokens as the context leaves. 0: the prompt is evaluated, and the answer has
    /// no text.
    pub max_new_tokens: Option<u32>,
    /// What the answer is kept to; `None`: it is free.
    pub constraint: Option<Arc<Constraint>>,
    pub redraws: RedrawLimits,
    /// How the reply is read; `None`: all of it is content.
    pub reply: Option<ReplyPlan>,
    /// The name by which the client gave a budget of thoughts. It is kept where `reply` has it.
    pub thought_budget: Option<&'static str>,
    /// The text ends before the first of these; none of them is ever sent to the client.
    pub stop: Vec<String>,
    /// Go on with another worker when this one dies in the middle of the answer.
    pub resume: bool,
    /// Longest time from entering the queue to the end of the answer. `None`: no such limit.
    pub total_deadline: Option<Duration>,
    /// For how long its model is to stay loaded after it. `None`: as the model's setting says.
    pub keep_alive: Option<KeepAlive>,
}

/// What a runtime can be told of a run beside its parameters; each has what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RunExtensions {
    None,
    /// Grammars, seeds, min-p and biases.
    Draws,
    /// To tell how likely tokens are, and when they may end the run.
    Logprobs,
    /// To compute a run by itself.
    Deterministic,
}

/// What a runtime can do for one run; `None`: not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// It varies sampling.
    pub per_run_parameters: Option<bool>,
    pub run_extensions: Option<RunExtensions>,
    /// Its tokens have the texts that the model's tokenizer knows by their numbers.
    pub tokens_agree: Option<bool>,
    /// Its runs are sequences of one: no logits are read, and nothing is drawn again.
    pub is_batch: bool,
}

impl Abilities {
    /// It has nothing to keep an answer to a grammar with: tokens that may not come are drawn again.
    fn redraws(self) -> bool {
        self.run_extensions == Some(RunExtensions::None) && !self.is_batch
    }

    fn lacks(self, extensions: RunExtensions) -> bool {
        self.run_extensions.is_some_and(|known| known < extensions)
    }
}

impl GenerationRequest {
    /// The same for another answer to its prompt, which draws otherwise.
    pub fn of_choice(&self, choice: usize) -> Self {
        let mut request = self.clone();
        let seed = &mut request.draws.seed;
        *seed = seed.map(|seed| seed.wrapping_add(choice as i64));
        request
    }

    /// It is kept to a grammar, or refused.
    pub fn has_to_be_kept(&self) -> bool {
        let need = self.constraint.as_ref().map(|constraint| constraint.need);
        need == Some(Need::Needed)
    }

    /// Whether its tokens are looked at, and some drawn again. The runtime gets its prompt by tokens then, and
    /// its text is that of the tokens that are known, so what is only wished for is not done before a runtime
    /// was seen to make these, and bans are not kept by one that was seen to make others.
    pub fn is_redrawn(&self, runtime: Abilities) -> bool {
        let is_needed = self.has_to_be_kept() || self.draws.logprobs.is_some();
        let is_wished = self.constraint.is_some() && runtime.tokens_agree == Some(true);
        let is_banned = self.draws.bans_tokens() && runtime.tokens_agree != Some(false);
        let may = (is_wished || is_banned) && self.prompt_tokens.is_some();
        runtime.redraws() && (is_needed || may)
    }

    /// It would be redrawn, if the runtime were seen to make the tokens that are known.
    pub fn is_to_show_tokens(&self, runtime: Abilities) -> bool {
        let has_tokens = self.prompt_tokens.is_some();
        let is_shown = runtime.tokens_agree.is_some();
        runtime.redraws() && self.constraint.is_some() && has_tokens && !is_shown
    }

    /// All of it is made by runs that tell the logits of each token, which are slower.
    pub fn reads_logits(&self, runtime: Abilities) -> bool {
        let is_set = self.redraws.runs == RedrawRuns::Logits && self.is_redrawn(runtime);
        runtime.redraws() && (self.draws.logprobs.is_some() || is_set)
    }

    /// Penalties cannot be neutral for its run, as they are where tokens of a format are drawn again.
    pub fn has_loaded_penalties(&self, runtime: Abilities) -> bool {
        let is_fixed = runtime.per_run_parameters == Some(false);
        is_fixed && self.has_to_be_kept() && self.is_redrawn(runtime)
    }

    /// Refuses what a runtime cannot keep an answer to, or tell of it; while that is not known, it may.
    pub fn check_runtime(&self, runtime: Abilities) -> Result<(), GenerationError> {
        if runtime.is_batch {
            return self.check_batch();
        }
        let has_no_tokens = self.prompt_tokens.is_none();
        if self.has_to_be_kept() && runtime.redraws() && has_no_tokens {
            return Err(GenerationError::CannotConstrain);
        }
        let Some(logprobs) = &self.draws.logprobs else {
            return Ok(());
        };
        let can = match runtime.redraws() {
            // The prompt's rows come with those tokens only that are not in the library's cache.
            true => !has_no_tokens && !logprobs.of_prompt,
            false => !runtime.lacks(RunExtensions::Logprobs),
        };
        match can {
            true => Ok(()),
            false => Err(GenerationError::CannotTellLogprobs),
        }
    }

    fn check_batch(&self) -> Result<(), GenerationError> {
        if self.has_to_be_kept() {
            return Err(GenerationError::CannotConstrain);
        }
        match self.draws.logprobs {
            Some(_) => Err(GenerationError::CannotTellLogprobs),
            None => Ok(()),
        }
    }

    /// Names of requested values that cannot be applied, as far as the runtime is known. The token
    /// budget is never among them: our side keeps it.
    pub fn not_applied(&self, runtime: Abilities) -> Vec<&'static str> {
        let (sampling, draws) = (&self.sampling, &self.draws);
        let fixed = runtime.per_run_parameters == Some(false);
        let redrawn = self.is_redrawn(runtime);
        // They are neutral where tokens of a format are drawn again.
        let kept = redrawn && self.has_to_be_kept();
        let penalty = |asked: Option<f32>, neutral: f32| {
            (fixed && asked.is_some()) || (kept && asked.is_some_and(|asked| asked != neutral))
        };
        let draws_alone = runtime.lacks(RunExtensions::Draws);
        let ends_alone = runtime.lacks(RunExtensions::Logprobs);
        let not_alone = runtime.lacks(RunExtensions::Deterministic);
        let asked = [
            ("temperature", fixed && sampling.temperature.is_some()),
            ("top_p", fixed && sampling.top_p.is_some()),
            ("top_k", fixed && sampling.top_k.is_some()),
            ("repeat_penalty", penalty(sampling.repeat_penalty, 1.0)),
            ("presence_penalty", penalty(sampling.presence_penalty, 0.0)),
            (
                "frequency_penalty",
                penalty(sampling.frequency_penalty, 0.0),
            ),
            ("seed", draws_alone && draws.seed.is_some()),
            (
                "min_p",
                draws_alone && draws.min_p.is_some_and(|min_p| min_p > 0.0),
            ),
            (
                "logit_bias",
                match redrawn {
                    true => draws.has_other_biases(),
                    false => draws_alone && !draws.logit_bias.is_empty(),
                },
            ),
            ("min_tokens", ends_alone && draws.min_tokens > 0),
            ("ignore_eos", ends_alone && draws.ignores_eos),
            (
                "deterministic",
                draws.deterministic && (not_alone || self.has_thought_budget()),
            ),
        ];
        let is_kept = self.has_thought_budget();
        let budget = self.thought_budget.map(|name| (name, !is_kept));
        let format = match self.constraint.as_ref().map(|constraint| constraint.need) {
            Some(Need::Wish(Some(name))) => Some((name, draws_alone && !redrawn)),
            _ => None,
        };
        asked
            .into_iter()
            .chain(budget)
            .chain(format)
            .filter_map(|(name, not_applied)| not_applied.then_some(name))
            .collect()
    }

    /// Where a thought is closed depends on what is known of the worker, and so does what comes behind it.
    fn has_thought_budget(&self) -> bool {
        let plan = self.reply.as_ref();
        plan.is_some_and(|plan| plan.thought_budget.is_some())
    }

    /// Whether the same is said again. `not_applied`: what of it the runtime cannot do.
    pub fn repeats(&self, not_applied: &[&str]) -> bool {
        self.draws.deterministic && !not_applied.contains(&"deterministic")
    }
}

#[cfg(test)]
mod tests;
