//! For how long an instance's model stays loaded.

use super::Instance;
use crate::generation::{KeepAlive, KeptUntil};
use crate::supervisor::keepers::Kept;

impl Instance {
    /// For how long a request that says nothing of it keeps the model; `setting`: that of all models.
    pub fn keep_alive(&self, setting: KeepAlive) -> KeepAlive {
        self.model.facts.keep_alive.unwrap_or(setting)
    }

    /// What keeps it loaded although nothing waits for it; `setting`: that of all models.
    pub fn kept(&self, setting: KeepAlive) -> Kept {
        let until = |until| Kept {
            until: Some(until),
            in_use: None,
        };
        if self.unload_wanted {
            return until(KeptUntil::Time(self.since));
        }
        // A handle's worker is its client's.
        if self.is_pinned || self.handle.is_some() {
            return until(KeptUntil::ForEver);
        }
        match self.keepers.kept() {
            Kept {
                until: None,
                in_use: None,
            } => until(self.keep_alive(setting).from(self.since)),
            kept => kept,
        }
    }
}
