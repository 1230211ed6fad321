//! The control socket: a command on one line in, its outcome as a line of JSON back: to reload, to unload a model
//! whose files are to go, to look into the models folder again, or to say what is loaded. Only the daemon's own
//! user and root may connect. Where the socket cannot be made the daemon serves without one, and SIGHUP is still
//! heard.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::engine::LocalEngine;
use crate::chat::Engine;
use crate::http::{UnixSocketFile, bind_unix};
use crate::settings::{ChangedKeys, FileMode};
use crate::supervisor::Unloaded;

pub const RELOAD: &str = "reload";
/// Behind it stands the path of the model's file, as JSON's text.
pub const UNLOAD: &str = "unload ";
/// What is in the models folder is served, and the configuration stays as it is.
pub const RESCAN: &str = "rescan";
/// Which models have a worker.
pub const LOADED: &str = "loaded";

/// Where the socket lies unless systemd says otherwise (`RUNTIME_DIRECTORY`).
const DEFAULT_FOLDER: &str = "/run/rkllmd";
const NAME: &str = "control.sock";
/// Only its owner may connect, and root, as always.
const MODE: FileMode = FileMode::new(0o600);
const BACKLOG: u32 = 16;
/// A client that has not sent its line by then is let go.
const LINE_TIMEOUT: Duration = Duration::from_secs(5);
const LINE_BYTES: u64 = 16 << 10;
/// An accept that fails would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What came of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum ReloadOutcome {
    Applied(Applied),
    /// The daemon goes on as it was.
    Refused {
        problems: Vec<String>,
    },
}

/// What a reload has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub keys: ChangedKeys,
    /// Models that were not installed before.
    pub added: Vec<String>,
    /// Models whose files or settings are others now.
    pub changed: Vec<String>,
    pub removed: Vec<String>,
    /// What is wrong with single models; it does not keep the rest from being used.
    pub problems: Vec<String>,
}

impl Applied {
    /// In words, a line each; never empty.
    pub fn lines(&self) -> Vec<String> {
        let named = [
            ("in force now", &self.keys.now),
            (
                "in force for each model when it is loaded next",
                &self.keys.at_next_load,
            ),
            ("NOT in force before a restart", &self.keys.at_restart),
            ("models added", &self.added),
            ("models changed", &self.changed),
            ("models removed", &self.removed),
        ];
        let mut lines: Vec<String> = named
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what}: {}", names.join(", ")))
            .collect();
        if lines.is_empty() {
            lines.push("nothing has changed".to_owned());
        }
        lines.extend(
            self.problems
                .iter()
                .map(|problem| format!("warning: {problem}")),
        );
        lines
    }
}

/// What came of asking for a model to be unloaded before its files go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum UnloadOutcome {
    /// It is not loaded, or not any more.
    Unloaded,
    /// The daemon serves no model of this file.
    NotServed,
    /// It is loading, in use or waited for, and stays.
    InUse,
    Failed {
        reason: String,
    },
}

/// What came of looking into the models folder again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum RescanOutcome {
    Served,
    Failed { reason: String },
}

/// The models that have a worker, and so take memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedModels {
    pub models: Vec<String>,
}

/// A command that waits for the outcome of a reload.
pub(super) type ReloadRequest = oneshot::Sender<ReloadOutcome>;

/// Where the daemon of this machine, or of this unit, listens for commands.
pub fn socket_path() -> PathBuf {
    let folder = std::env::var_os("RUNTIME_DIRECTORY").and_then(|folders| {
        // Several are separated by colons; the first is the unit's main one.
        std::env::split_paths(&folders).next()
    });
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
    folder
        .unwrap_or_else(|| PathBuf::from(DEFAULT_FOLDER))
        .join(NAME)
}

/// Listens for commands until it is dropped.
pub(super) fn listen(
    path: &Path,
    requests: mpsc::Sender<ReloadRequest>,
    engine: Arc<LocalEngine>,
) -> Option<UnixSocketFile> {
    match bind_unix(path, MODE, None, BACKLOG) {
        Ok((listener, file)) => {
            tracing::debug!(path = %path.display(), "listening for commands");
            tokio::spawn(serve(listener, requests, engine));
            Some(file)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::debug!(path = %path.display(), %error, "no control socket; SIGHUP reloads");
            None
        }
        Err(error) => {
            tracing::info!(path = %path.display(), %error, "no control socket; SIGHUP reloads");
            None
        }
    }
}

async fn serve(
    listener: UnixListener,
    requests: mpsc::Sender<ReloadRequest>,
    engine: Arc<LocalEngine>,
) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let (requests, engine) = (requests.clone(), Arc::clone(&engine));
                tokio::spawn(async move {
                    if let Err(error) = answer(client, requests, &engine).await {
                        tracing::debug!(%error, "a control client has gone");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a control client failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(
    mut client: UnixStream,
    requests: mpsc::Sender<ReloadRequest>,
    engine: &LocalEngine,
) -> io::Result<()> {
    let (reader, mut writer) = client.split();
    let mut command = String::new();
    let mut reader = BufReader::new(reader.take(LINE_BYTES));
    tokio::time::timeout(LINE_TIMEOUT, reader.read_line(&mut command)).await??;
    let command = command.trim_end();
    let mut line = if let Some(path) = command.strip_prefix(UNLOAD) {
        serde_json::to_vec(&unload(engine, path).await)?
    } else if command == RESCAN {
        serde_json::to_vec(&rescan(engine).await)?
    } else if command == LOADED {
        serde_json::to_vec(&loaded(engine))?
    } else if command == RELOAD {
        let (reply, outcome) = oneshot::channel();
        let ended = |_| io::Error::other("the daemon is ending");
        requests.send(reply).await.map_err(|_| ended(()))?;
        serde_json::to_vec(&outcome.await.map_err(|_| ended(()))?)?
    } else {
        serde_json::to_vec(&ReloadOutcome::Refused {
            problems: vec![format!(
                "unknown command; there are `{RELOAD}`, `{RESCAN}`, `{LOADED}` and `{UNLOAD}\"PATH\"`"
            )],
        })?
    };
    line.push(b'\n');
    writer.write_all(&line).await
}

async fn rescan(engine: &LocalEngine) -> RescanOutcome {
    let Some(pulls) = engine.pulls() else {
        let reason = "it serves no models folder".to_owned();
        return RescanOutcome::Failed { reason };
    };
    match pulls.rescan().await {
        Ok(()) => RescanOutcome::Served,
        Err(error) => RescanOutcome::Failed {
            reason: error.to_string(),
        },
    }
}

fn loaded(engine: &LocalEngine) -> LoadedModels {
    let statuses = engine.status().snapshot();
    let with_worker = statuses.iter().filter(|(_, status)| status.pid.is_some());
    LoadedModels {
        models: with_worker.map(|(id, _)| id.to_string()).collect(),
    }
}

/// Unloads the model of a file, unless something uses it.
async fn unload(engine: &LocalEngine, path: &str) -> UnloadOutcome {
    let failed = |reason: String| UnloadOutcome::Failed { reason };
    let path: PathBuf = match serde_json::from_str(path) {
        Ok(path) => path,
        Err(error) => return failed(format!("the path is no text of JSON: {error}")),
    };
    let catalog = engine.catalog();
    let mut models = catalog.models().iter();
    // However each of the two was told of the folder.
    let is_it = |own: &Path| std::path::absolute(own).is_ok_and(|own| own == path);
    let Some(model) = models.find(|model| is_it(&model.path)) else {
        return UnloadOutcome::NotServed;
    };
    let Some(supervisor) = engine.supervisor() else {
        return UnloadOutcome::NotServed;
    };
    match supervisor.unload(Arc::clone(&model.id)).await {
        Ok(Unloaded::Yes) => {
            tracing::info!(model = &*model.id, "unloaded, because its files are to go");
            UnloadOutcome::Unloaded
        }
        Ok(Unloaded::StillWanted) => UnloadOutcome::InUse,
        Ok(Unloaded::Unkillable) => {
            failed("its worker is still there although it was killed".to_owned())
        }
        Err(error) => failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_says_from_when_on_it_counts() {
        assert_eq!(Applied::default().lines(), ["nothing has changed"]);
        let applied = Applied {
            keys: ChangedKeys {
                now: vec!["queue.capacity".to_owned(), "log.filter".to_owned()],
                at_next_load: vec!["deadlines.spawn".to_owned()],
                at_restart: vec!["http.listen".to_owned()],
            },
            removed: vec!["old".to_owned()],
            problems: vec!["new.gguf: is no GGUF file".to_owned()],
            ..Applied::default()
        };
        let lines = [
            "in force now: queue.capacity, log.filter",
            "in force for each model when it is loaded next: deadlines.spawn",
            "NOT in force before a restart: http.listen",
            "models removed: old",
            "warning: new.gguf: is no GGUF file",
        ];
        assert_eq!(applied.lines(), lines);
    }
}
