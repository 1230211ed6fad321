//! Keeps a run to its grammar, in the library's hook: between two tokens, on a thread that computes for
//! other slots as well.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, anyhow};
use rkllm_sys::{Draw, Ends, LogitsHook, Logprobs, RunExtension};

use crate::constraint::{
    Begun, Constraint, Follower, ModelTokens, Need, Next, Parsers, Vocabulary,
};
use crate::generation::DrawRequest;
use crate::ipc::{BegunAnswer, RunConstraint, RunSpec};

/// Why nothing can be kept to a grammar whose worker was told none.
pub const TOKENS_UNKNOWN: &str = "the model's tokens are not known";

/// The tokens of the worker's model and grammars over them, made ready by the first slot that needs them.
pub struct SharedTokens {
    told: Mutex<Option<Vocabulary>>,
    ready: OnceLock<Result<Arc<Parsers>, String>>,
}

impl SharedTokens {
    pub fn new(vocabulary: Vocabulary) -> Self {
        Self {
            told: Mutex::new(Some(vocabulary)),
            ready: OnceLock::new(),
        }
    }

    pub fn get(&self) -> anyhow::Result<Arc<Parsers>> {
        let ready = self.ready.get_or_init(|| {
            let told = self.told.lock();
            let told = told.unwrap_or_else(PoisonError::into_inner).take();
            let tokens = ModelTokens::new(told.unwrap_or_default());
            let parsers = tokens.map(|tokens| Arc::new(Parsers::new(Arc::new(tokens))));
            parsers.map_err(|error| format!("{error:#}"))
        });
        ready.clone().map_err(|error| anyhow!(error))
    }
}

/// What the library is told of a run beyond its parameters; `None`: nothing. `ends` are tokens that end it
/// on our side. Compiles the grammar, and takes in what was said before.
pub fn extension(
    spec: &RunSpec,
    tokens: Option<&SharedTokens>,
    ends: &[i32],
) -> anyhow::Result<Option<(RunExtension, Option<Kept>)>> {
    let draws = &spec.draws;
    if *draws == DrawRequest::default() && spec.constraint.is_none() {
        return Ok(None);
    }
    let begun = spec.begun.as_ref();
    let kept = match &spec.constraint {
        None => None,
        Some(constraint) => Some(Kept::new(follower(constraint, tokens, begun)?)),
    };
    let made = begun.and_then(|begun| begun.tokens).unwrap_or(0);
    let extension = RunExtension {
        ends: match draws.min_tokens.saturating_sub(made) {
            _ if draws.ignores_eos => Ends::Never {
                tokens: ends.to_vec(),
            },
            0 => Ends::AtAnyTime,
            count => Ends::NotBefore {
                count,
                tokens: ends.to_vec(),
            },
        },
        hook: kept.clone().map(|kept| Box::new(kept) as _),
        is_deterministic: draws.deterministic,
        seed: draws.seed.map(|seed| run_seed(seed, begun)),
        min_p: draws.min_p,
        logit_bias: draws.logit_bias.clone(),
        logprobs: draws.logprobs.map(|logprobs| Logprobs {
            top: logprobs.top.into(),
            of_prompt: logprobs.of_prompt,
        }),
    };
    Ok(Some((extension, kept)))
}

/// The library's seeds have 32 bits, of which one value is none. An answer that is gone on with does not
/// draw as its beginning did.
fn run_seed(seed: i64, begun: Option<&BegunAnswer>) -> u32 {
    let bits = seed.cast_unsigned();
    let folded = (bits >> 32) as u32 ^ bits as u32;
    let before = begun.map_or(0, |begun| begun.text.len() as u32);
    folded.wrapping_add(before.wrapping_mul(0x9E37_79B9)) % u32::MAX
}

fn follower(
    constraint: &RunConstraint,
    tokens: Option<&SharedTokens>,
    begun: Option<&BegunAnswer>,
) -> anyhow::Result<Follower> {
    let parsers = tokens.context(TOKENS_UNKNOWN)?.get()?;
    follower_of(constraint, &parsers, begun)
}

/// Compiles the grammar, and takes in what was said before.
pub fn follower_of(
    constraint: &RunConstraint,
    parsers: &Parsers,
    begun: Option<&BegunAnswer>,
) -> anyhow::Result<Follower> {
    let begun = match begun {
        None => Begun::Nothing,
        Some(BegunAnswer {
            token_ids: Some(ids),
            ..
        }) => Begun::Tokens(ids),
        Some(BegunAnswer { text, .. }) => Begun::Text(text),
    };
    let constraint = Constraint {
        grammar: constraint.grammar.as_str().into(),
        limits: constraint.limits,
        how: constraint.how.clone(),
        thought: constraint.thought.clone(),
        need: Need::Needed,
    };
    Follower::with(&constraint, parsers, begun)
}

pub const FOLLOWING_FAILED: &str = "following it failed";
pub const NONE_CAN_BE_DRAWN: &str = "none of the tokens that it allows can be drawn";

/// Why an answer cannot be followed: what stands behind the first line is the engine's own state.
pub fn reason(error: &anyhow::Error) -> String {
    let reason = format!("{error:#}");
    reason.lines().next().unwrap_or_default().to_owned()
}

/// A run's grammar: followed by the library's hook, and asked when the run's budget is used up.
#[derive(Clone)]
pub struct Kept(Arc<Mutex<Following>>);

struct Following {
    follower: Follower,
    /// Why the run could not be kept to it, should it end by itself now.
    failure: Option<Cow<'static, str>>,
}

impl Kept {
    fn new(follower: Follower) -> Self {
        Self(Arc::new(Mutex::new(Following {
            follower,
            failure: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Following> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the run's last token has completed the answer.
    pub fn is_complete_behind(&self, last: i32) -> bool {
        let mut following = self.lock();
        following.follower.is_complete_behind(last).unwrap_or(false)
    }

    /// Why the run could not be kept to it, where it could not and has ended by itself.
    pub fn failure(&self) -> Option<String> {
        self.lock().failure.take().map(Cow::into_owned)
    }
}

impl Following {
    fn follow(
        &mut self,
        step: impl FnOnce(&mut Follower) -> anyhow::Result<Option<Next>>,
    ) -> Option<Draw> {
        // Who panics leaves it as it is, and the run ends.
        self.failure = Some(FOLLOWING_FAILED.into());
        let next = step(&mut self.follower);
        // A run that goes on and may not end is ended by nothing that it could draw.
        let nothing = (!self.follower.may_end()).then_some(NONE_CAN_BE_DRAWN.into());
        let (failure, draw) = match next {
            Ok(None) => (None, None),
            Ok(Some(Next::Token)) => (nothing, Some(Draw::GoesOn)),
            Ok(Some(Next::End)) => (None, Some(Draw::EndsHere)),
            Err(error) => (Some(reason(&error).into()), Some(Draw::EndsHere)),
        };
        self.failure = failure;
        draw
    }
}

impl LogitsHook for Kept {
    fn on_row(&mut self, drawn: &[i32], logits: &mut [f32]) -> Draw {
        let draw = (self.lock()).follow(|follower| follower.row(drawn, logits).map(Some));
        draw.unwrap_or(Draw::GoesOn)
    }

    fn before_row(&mut self, drawn: &[i32]) -> Option<Draw> {
        self.lock().follow(|follower| follower.before_row(drawn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_one_that_the_library_takes() {
        for seed in [
            0,
            1,
            -1,
            i64::MIN,
            i64::MAX,
            0xFFFF_FFFF,
            0x7FFF_FFFF_8000_0000,
        ] {
            assert_ne!(run_seed(seed, None), u32::MAX, "{seed}");
        }
        assert_eq!(run_seed(42, None), 42);
        let begun = BegunAnswer {
            text: "so".to_owned(),
            token_ids: None,
            tokens: None,
        };
        assert_ne!(run_seed(42, Some(&begun)), 42);
    }
}
