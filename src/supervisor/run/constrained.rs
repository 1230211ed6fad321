//! What a worker is told of the format that an answer is kept to.

use super::Serving;
use crate::generation::GenerationError;
use crate::ipc::RunConstraint;
use crate::reader::ReaderError;
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
        let vocabulary = match worker.knows_tokens() {
            true => None,
            false => {
                let asked = self.services.readers.vocabulary(&worker.model);
                let vocabulary = tokio::select! {
                    biased;
                    () = self.job.events.closed() => return Err(Outcome::Silence),
                    vocabulary = asked => vocabulary,
                };
                let failed = |error: ReaderError| {
                    Outcome::Failed(match error {
                        ReaderError::NoTokenizer { .. } => GenerationError::CannotConstrain,
                        error => GenerationError::Internal(error.to_string()),
                    })
                };
                Some(vocabulary.map_err(failed)?)
            }
        };
        Ok(Some(Box::new(RunConstraint {
            grammar: constraint.grammar.to_string(),
            limits: constraint.limits,
            thought: constraint.thought.clone(),
            vocabulary,
        })))
    }
}
