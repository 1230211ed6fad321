//! What a worker is told of the format that an answer is kept to, and of tokens that are drawn again.

use super::Serving;
use crate::constraint::Vocabulary;
use crate::generation::{Abilities, GenerationError, RunExtensions};
use crate::ipc::{RedrawSpec, RunConstraint};
use crate::reader::ReaderError;
use crate::supervisor::drive::Outer;
use crate::supervisor::outcome::Outcome;
use crate::supervisor::worker::Worker;

/// What a run's tokens are looked at with.
#[derive(Default)]
pub(super) struct Followed {
    pub constraint: Option<Box<RunConstraint>>,
    pub redraws: Option<RedrawSpec>,
    /// `None`: the worker was told it before.
    pub vocabulary: Option<Vocabulary>,
}

impl Followed {
    /// It tells the worker of no tokens, nor does it count on its knowing them.
    pub fn is_nothing(&self) -> bool {
        self.constraint.is_none() && self.redraws.is_none() && self.vocabulary.is_none()
    }
}

impl Serving<'_> {
    /// With the model's tokens, if the worker was not told them before.
    pub(super) async fn followed(
        &mut self,
        worker: &Worker,
        runtime: Abilities,
    ) -> Result<Followed, Outcome> {
        let request = &self.job.request;
        let constraint = request.constraint.clone();
        let has_to_be_kept = request.has_to_be_kept();
        let redraws = request.is_redrawn(runtime).then_some(RedrawSpec {
            limits: request.redraws,
            is_needed: has_to_be_kept,
        });
        // Its reader was told that bans are kept.
        let keeps_bans = redraws.is_some() && request.draws.bans_tokens();
        let is_needed = has_to_be_kept || keeps_bans || request.draws.logprobs.is_some();
        // A run of it shows whether the library's tokens are these.
        let is_to_show = request.is_to_show_tokens(runtime);
        let has_hook =
            (worker.facts.run_extensions).is_some_and(|known| known >= RunExtensions::Draws);
        let constraint = constraint.filter(|_| has_to_be_kept || has_hook || redraws.is_some());
        if constraint.is_none() && redraws.is_none() && !is_to_show {
            return Ok(Followed::default());
        }
        let vocabulary = match worker.knows_tokens() {
            true => None,
            false => {
                let asked = self.services.readers.vocabulary(&worker.model);
                let mut outer = Outer {
                    total: self.total,
                    cut_off: Some(&mut self.job.cut_off),
                };
                let vocabulary = tokio::select! {
                    biased;
                    () = self.job.events.closed() => return Err(Outcome::Silence),
                    error = outer.pass() => return Err(Outcome::Failed(error)),
                    vocabulary = asked => vocabulary,
                };
                let failed = |error: ReaderError| {
                    Outcome::Failed(match error {
                        ReaderError::NoTokenizer { .. } => GenerationError::CannotConstrain,
                        error => GenerationError::Internal(error.to_string()),
                    })
                };
                match vocabulary {
                    Ok(vocabulary) => Some(vocabulary),
                    // The answer is as it would be without.
                    Err(_) if !is_needed => {
                        self.ids_are_trusted &= redraws.is_none();
                        return Ok(Followed::default());
                    }
                    Err(error) => return Err(failed(error)),
                }
            }
        };
        Ok(Followed {
            constraint: constraint.map(|constraint| {
                Box::new(RunConstraint {
                    grammar: constraint.grammar.to_string(),
                    limits: constraint.limits,
                    how: constraint.how.clone(),
                    thought: constraint.thought.clone(),
                })
            }),
            redraws,
            vocabulary,
        })
    }
}
