//! What a worker is told of the format that an answer is kept to.

use super::Serving;
use crate::constraint::Need;
use crate::generation::{GenerationError, RunExtensions};
use crate::ipc::RunConstraint;
use crate::reader::ReaderError;
use crate::supervisor::drive::Outer;
use crate::supervisor::outcome::Outcome;
use crate::supervisor::worker::Worker;

impl Serving<'_> {
    /// With the model's tokens, if the worker was not told them before.
    pub(super) async fn constraint(
        &mut self,
        worker: &Worker,
    ) -> Result<Option<Box<RunConstraint>>, Outcome> {
        let Some(constraint) = self.job.request.constraint.clone() else {
            return Ok(None);
        };
        let is_needed = constraint.need == Need::Needed;
        if !is_needed
            && worker
                .facts
                .run_extensions
                .is_none_or(|known| known < RunExtensions::Draws)
        {
            return Ok(None);
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
                    Err(_) if !is_needed => return Ok(None),
                    Err(error) => return Err(failed(error)),
                }
            }
        };
        Ok(Some(Box::new(RunConstraint {
            grammar: constraint.grammar.to_string(),
            limits: constraint.limits,
            how: constraint.how.clone(),
            thought: constraint.thought.clone(),
            vocabulary,
        })))
    }
}
