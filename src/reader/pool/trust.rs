//! What is known of models' files by what readers of them did. Only a model that is known to be
//! well-behaved may have the last place: whatever others do, it is left for it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::generation::ModelId;
use crate::ipc::ReaderCommand;

/// A request of fewer bytes weighs nothing: what ends a reader then is the model's.
const SMALL_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Trust {
    #[default]
    Unknown,
    Proven,
    /// Until files are read anew.
    Broken,
}

#[derive(Debug, Default)]
struct Standing {
    trust: Trust,
    /// Large requests that ended a reader: one may be the request's own weight.
    failures: u32,
}

#[derive(Debug, Default)]
pub(super) struct Standings(BTreeMap<ModelId, Standing>);

impl Standings {
    pub fn of(&self, model: &ModelId) -> Trust {
        self.0
            .get(model)
            .map_or(Trust::Unknown, |known| known.trust)
    }

    /// One that has broken something stays so.
    pub fn proven(&mut self, model: &ModelId) {
        let standing = self.0.entry(Arc::clone(model)).or_default();
        if standing.trust == Trust::Unknown {
            standing.trust = Trust::Proven;
        }
    }

    /// A request has ended a reader of the model, or was not answered in time.
    pub fn failed(&mut self, model: &ModelId, command: &ReaderCommand) {
        let Some(bytes) = bytes_beside_files(command) else {
            return;
        };
        let standing = self.0.entry(Arc::clone(model)).or_default();
        standing.failures += 1;
        if bytes < SMALL_BYTES || standing.failures > 1 {
            standing.trust = Trust::Broken;
        }
    }

    /// Files are read anew.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// The client's bytes that a reader works on together with the model's files. `None`: it works on
/// nothing of the model's.
fn bytes_beside_files(command: &ReaderCommand) -> Option<usize> {
    match command {
        ReaderCommand::Render { request, .. } => Some(request.len()),
        ReaderCommand::Plain { texts, .. } => Some(texts.iter().map(String::len).sum()),
        ReaderCommand::Encode { text, .. } => Some(text.len()),
        ReaderCommand::Decode { tokens } => Some(size_of_val(&**tokens)),
        ReaderCommand::Constrain { .. } => None,
        ReaderCommand::List { .. } | ReaderCommand::Open { .. } | ReaderCommand::Vocabulary => {
            Some(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::Wanted;
    use crate::settings::ConstraintSettings;

    fn render(bytes: usize) -> ReaderCommand {
        ReaderCommand::Render {
            request: " ".repeat(bytes),
            counted_bytes: 0,
        }
    }

    #[test]
    fn a_model_that_has_broken_something_stays_so_until_files_are_read_anew() {
        let (mut standings, model) = (Standings::default(), ModelId::from("m"));
        assert_eq!(standings.of(&model), Trust::Unknown);
        standings.proven(&model);
        // It may have been the request's weight.
        standings.failed(&model, &render(SMALL_BYTES));
        assert_eq!(standings.of(&model), Trust::Proven);
        standings.failed(&model, &render(SMALL_BYTES));
        standings.proven(&model);
        assert_eq!(standings.of(&model), Trust::Broken);
        standings.clear();
        standings.failed(&model, &render(SMALL_BYTES - 1));
        assert_eq!(standings.of(&model), Trust::Broken);
    }

    #[test]
    fn a_clients_schema_is_no_fault_of_the_models() {
        let (mut standings, model) = (Standings::default(), ModelId::from("m"));
        let schema = ReaderCommand::Constrain {
            wanted: Wanted::JsonObject,
            limits: ConstraintSettings::default().limits(),
        };
        for _ in 0..3 {
            standings.failed(&model, &schema);
        }
        assert_eq!(standings.of(&model), Trust::Unknown);
    }
}
