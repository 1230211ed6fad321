//! Keeps a run to its grammar, in the library's hook: between two tokens, on a thread that computes for
//! other slots as well.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::{Context, anyhow};
use rkllm_sys::{Draw, LogitsHook, RunExtension};

use crate::constraint::{Follower, ModelTokens, Next, Vocabulary};
use crate::ipc::{BegunAnswer, RunConstraint};

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

    fn set(&self, error: &anyhow::Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
    }
}

/// Compiles the grammar, and takes in what was said before.
pub fn extension(
    constraint: &RunConstraint,
    tokens: Option<&SharedTokens>,
    begun: Option<&BegunAnswer>,
) -> anyhow::Result<(RunExtension, Failure)> {
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
    let follower = Follower::new(
        &constraint.grammar,
        &constraint.limits,
        constraint.thought.clone(),
        tokens,
        &begun,
    )?;
    let failure = Failure::default();
    let hook = Kept {
        follower,
        failure: failure.clone(),
    };
    let extension = RunExtension {
        hook: Some(Box::new(hook)),
        ..RunExtension::default()
    };
    Ok((extension, failure))
}

struct Kept {
    follower: Follower,
    failure: Failure,
}

impl LogitsHook for Kept {
    fn on_row(&mut self, drawn: &[i32], logits: &mut [f32]) -> Draw {
        match self.follower.row(drawn, logits) {
            Ok(Next::Token) => Draw::GoesOn,
            Ok(Next::End) => Draw::EndsHere,
            Err(error) => {
                self.failure.set(&error);
                Draw::EndsHere
            }
        }
    }
}
