//! Which settings a running daemon takes over, and from when on. Pure: it compares two sets of
//! settings; the daemon does the rest.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    DeadlineSettings, HubSettings, MemorySettings, ReaderSettings, RecoverySettings, Settings,
    known_keys,
};

/// From when on a changed key counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    Now,
    /// For each model when it is loaded next.
    AtNextLoad,
    AtRestart,
}

/// Keys whose values have changed, as `section.name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedKeys {
    pub now: Vec<String>,
    pub at_next_load: Vec<String>,
    pub at_restart: Vec<String>,
}

impl Applies {
    /// When a change of this key counts. What listeners, connections and workers were made with is
    /// theirs until they are made anew.
    pub fn of(section: &str, name: &str) -> Self {
        match (section, name) {
            ("memory", "requests-limit-bytes" | "slowest-bytes-per-second") => Self::AtRestart,
            ("models", "parallel" | "pool-contexts") => Self::AtNextLoad,
            ("hub", "max-pulls") => Self::AtRestart,
            ("models" | "hub" | "queue" | "memory" | "log", _)
            | ("deadlines", "unload" | "reader-open" | "reader-call" | "models-read") => Self::Now,
            ("reader", "max-processes") => Self::AtRestart,
            ("reader", _) => Self::Now,
            ("deadlines", "drain" | "total" | "background" | "reader-at-start") => Self::AtRestart,
            ("deadlines", _) => Self::AtNextLoad,
            ("recovery", "resume") => Self::AtRestart,
            ("recovery", _) => Self::Now,
            _ => Self::AtRestart,
        }
    }
}

impl Settings {
    /// What a daemon that was started with `self` runs with after it has reloaded `new`.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Self {
        let new = new.clone();
        Self {
            models: new.models,
            hub: HubSettings {
                max_pulls: self.hub.max_pulls,
                ..new.hub
            },
            queue: new.queue,
            memory: MemorySettings {
                requests_limit_bytes: self.memory.requests_limit_bytes,
                slowest_bytes_per_second: self.memory.slowest_bytes_per_second,
                ..new.memory
            },
            log: new.log,
            deadlines: DeadlineSettings {
                drain: self.deadlines.drain,
                total: self.deadlines.total,
                background: self.deadlines.background,
                reader_at_start: self.deadlines.reader_at_start,
                ..new.deadlines
            },
            recovery: RecoverySettings {
                resume: self.recovery.resume,
                ..new.recovery
            },
            http: self.http.clone(),
            runtime: self.runtime.clone(),
            library: self.library.clone(),
            prefixes: self.prefixes.clone(),
            chat: self.chat.clone(),
            constraints: self.constraints.clone(),
            responses: self.responses.clone(),
            rpc: self.rpc.clone(),
            embeddings: self.embeddings.clone(),
            tokenizer: self.tokenizer.clone(),
            board: self.board.clone(),
            admin: self.admin.clone(),
            confinement: self.confinement.clone(),
            reader: ReaderSettings {
                max_processes: self.reader.max_processes,
                ..new.reader
            },
        }
    }

    /// Which keys `new` changes.
    pub fn changed_keys(&self, new: &Self) -> ChangedKeys {
        let json = |settings: &Self| serde_json::to_value(settings).unwrap_or_default();
        let (old, new) = (json(self), json(new));
        let mut changed = ChangedKeys::default();
        for key in known_keys() {
            let value = |settings: &Value| settings[&key.section][&key.name].clone();
            if value(&old) != value(&new) {
                match Applies::of(&key.section, &key.name) {
                    Applies::Now => changed.now.push(key.path()),
                    Applies::AtNextLoad => changed.at_next_load.push(key.path()),
                    Applies::AtRestart => changed.at_restart.push(key.path()),
                }
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::CliOverrides;

    /// A valid value of a key that is not its default.
    fn other_value(default: &Value, path: &str) -> String {
        match (path, default) {
            ("http.listen", _) => "127.0.0.1:9".to_owned(),
            ("http.cors-origins", _) => "https://ui.lan".to_owned(),
            ("hub.endpoint", _) => "https://hub.lan".to_owned(),
            ("hub.proxy", _) => "http://proxy.lan:3128".to_owned(),
            ("hub.quota-bytes", _) => "4097".to_owned(),
            ("models.aliases", _) => "gpt-* = qwen3".to_owned(),
            ("http.auth", _) => "none".to_owned(),
            ("http.half-closed-generations", _) => "answer".to_owned(),
            ("http.unix-socket-mode" | "rpc.unix-socket-mode", _) => "0600".to_owned(),
            ("http.unix-socket-auth", _) => "keys".to_owned(),
            ("chat.control-tokens", _) => "reject".to_owned(),
            ("constraints.white-space", _) => "none".to_owned(),
            ("constraints.redraw-runs", _) => "logits".to_owned(),
            ("constraints.max-schema-depth" | "constraints.kept-grammars", _) => "7".to_owned(),
            ("constraints.max-lexer-steps", _) => "10001".to_owned(),
            ("log.filter", _) => "debug".to_owned(),
            ("runtime.log-level", _) => "1".to_owned(),
            (
                "models.max-loaded"
                | "models.parallel"
                | "models.pool-contexts"
                | "hub.max-pulls"
                | "hub.max-tries"
                | "reader.max-processes"
                | "responses.max-background-per-key"
                | "responses.max-streams-per-socket",
                _,
            ) => "7".to_owned(),
            ("reader.memory-limit-bytes", _) => "300000000".to_owned(),
            ("reader.sandbox", _) => "off".to_owned(),
            ("confinement.worker-reads" | "confinement.worker-writes", _) => "/other".to_owned(),
            ("deadlines.total", _) => "17s".to_owned(),
            ("library.tensor-limit-bytes", _) => "1048576".to_owned(),
            ("library.tensors-held-limit-bytes", _) => "4294967296".to_owned(),
            ("prefixes.folder", _) => "/other".to_owned(),
            ("prefixes.limit-bytes", _) => "4097".to_owned(),
            ("memory.requests-limit-bytes", _) => "33554432".to_owned(),
            ("memory.worker-soft-limit-bytes" | "memory.worker-hard-limit-bytes", _)
            | (_, Value::Number(_)) => "4097".to_owned(),
            (_, Value::Bool(value)) => (!value).to_string(),
            (_, Value::Array(_)) => "other".to_owned(),
            (_, Value::String(text)) if !text.contains('/') => "17s".to_owned(),
            _ => "/other".to_owned(),
        }
    }

    /// What is announced for a key is what happens to it, for every key there is.
    #[test]
    fn exactly_what_is_said_to_apply_is_taken_over() {
        let old = Settings::default();
        for key in known_keys() {
            let value = other_value(&key.default, &key.path());
            let environment = [(key.variable().into(), value.clone().into())];
            let nowhere = std::path::Path::new("/dev/null");
            let new = Settings::load(Some(nowhere), environment, &CliOverrides::default())
                .unwrap_or_else(|error| panic!("{} = {value}: {error}", key.path()));
            assert_ne!(new, old, "{} has another value", key.path());
            let changed = old.changed_keys(&new);
            let path = vec![key.path()];
            let (said, taken_over) = match Applies::of(&key.section, &key.name) {
                Applies::Now => (changed.now, true),
                Applies::AtNextLoad => (changed.at_next_load, true),
                Applies::AtRestart => (changed.at_restart, false),
            };
            assert_eq!(said, path);
            let expected = if taken_over { &new } else { &old };
            assert_eq!(&old.reloaded(&new), expected, "{}", key.path());
        }
    }
}
