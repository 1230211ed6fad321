//! Keeps a run to its grammar, in the library's hook: between two tokens, on a thread that computes for
//! other slots as well.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::{Context, anyhow};
use rkllm_sys::{Draw, LogitsHook, RunExtension};

use crate::constraint::{Follower, ModelTokens, Next, Vocabulary};
use crate::generation::DrawRequest;
use crate::ipc::{BegunAnswer, RunConstraint, RunSpec};

/// The tokens of the worker's model, made ready by the first slot that needs them.
pub struct SharedTokens {
    told: Mutex<Option<Vocabulary>>,
    ready: OnceLock<Result<Arc<ModelTokens>, String>>,
}

impl SharedTokens {
    pub fn new(vocabulary: Vocabulary) -> Self {
        Self {
            told: Mutex::new(Some(vocabulary)),
            ready: OnceLock::new(),
        }
    }

    fn get(&self) -> anyhow::Result<Arc<ModelTokens>> {
        let ready = self.ready.get_or_init(|| {
            let told = self.told.lock();
            let told = told.unwrap_or_else(PoisonError::into_inner).take();
            let tokens = ModelTokens::new(told.unwrap_or_default());
            tokens.map(Arc::new).map_err(|error| format!("{error:#}"))
        });
        ready.clone().map_err(|error| anyhow!(error))
    }
}

/// Why the run could not be kept to its grammar, where it could not.
#[derive(Clone, Debug, Default)]
pub struct Failure(Arc<Mutex<Option<String>>>);

impl Failure {
    pub fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What stands behind the first line is the engine's own state.
    fn set(&self, reason: &str) {
        let reason = reason.lines().next().unwrap_or_default().to_owned();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }
}

/// What the library is told of a run beyond its parameters; `None`: nothing. Compiles the grammar, and
/// takes in what was said before.
pub fn extension(
    spec: &RunSpec,
    tokens: Option<&SharedTokens>,
) -> anyhow::Result<Option<(RunExtension, Failure)>> {
    let draws = &spec.draws;
    if *draws == DrawRequest::default() && spec.constraint.is_none() {
        return Ok(None);
    }
    let begun = spec.begun.as_ref();
    let failure = Failure::default();
    let hook = match &spec.constraint {
        None => None,
        Some(constraint) => Some(Box::new(Kept {
            follower: follower(constraint, tokens, begun)?,
            failure: failure.clone(),
        }) as _),
    };
    let extension = RunExtension {
        hook,
        seed: draws.seed.map(|seed| run_seed(seed, begun)),
        min_p: draws.min_p,
        logit_bias: draws.logit_bias.clone(),
    };
    Ok(Some((extension, failure)))
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
    let tokens = tokens.context("the model's tokens are not known")?.get()?;
    let begun = match begun {
        None => Vec::new(),
        Some(BegunAnswer {
            token_ids: Some(ids),
            ..
        }) => ids
            .iter()
            .flat_map(|&id| tokens.piece(id))
            .copied()
            .collect(),
        Some(BegunAnswer { text, .. }) => text.clone().into_bytes(),
    };
    Follower::new(
        &constraint.grammar,
        &constraint.limits,
        constraint.thought.clone(),
        tokens,
        &begun,
    )
}

struct Kept {
    follower: Follower,
    failure: Failure,
}

impl LogitsHook for Kept {
    fn on_row(&mut self, drawn: &[i32], logits: &mut [f32]) -> Draw {
        // Who panics leaves it as it is, and the run ends.
        self.failure.set("following it failed");
        let next = self.follower.row(drawn, logits);
        self.failure.take();
        match next {
            Ok(Next::Token) => Draw::GoesOn,
            Ok(Next::End) => Draw::EndsHere,
            Err(error) => {
                self.failure.set(&format!("{error:#}"));
                Draw::EndsHere
            }
        }
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
