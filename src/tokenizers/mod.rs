//! Tokens for clients that ask for no run. Each model with a `tokenizer.json` gets a small process
//! when somebody first asks, which ends when nobody has asked for a while: so an answer waits neither
//! for the NPU nor for a model to load, and the daemon holds no vocabulary. A process that does not
//! answer in time is killed; the next request gets another one.

mod connection;
mod error;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

pub use error::TokenizerError;

use crate::generation::ModelId;
use crate::ipc::{TokenizerCommand, TokenizerEvent};
use crate::models::Catalog;
use crate::settings::Settings;
use crate::supervisor::{Role, Spawner, WorkerEnvironment};
use crate::telemetry::Metrics;
use connection::{Connection, Failure};

/// Requests that may wait for one model's process.
const WAITING: usize = 64;

/// A text's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    pub tokens: Vec<u32>,
    /// The bytes of each token, where they were asked for.
    pub pieces: Option<Vec<Vec<u8>>>,
}

/// How a text is made into tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Add the special tokens that belong around a text.
    pub add_special: bool,
    pub with_pieces: bool,
}

/// The tokenizers of all models.
#[derive(Clone, Debug)]
pub struct Tokenizers {
    models: Arc<HashMap<ModelId, mpsc::Sender<Request>>>,
}

#[derive(Debug)]
struct Request {
    command: TokenizerCommand,
    reply: oneshot::Sender<Result<TokenizerEvent, TokenizerError>>,
}

/// What one model's task works with.
struct Place {
    model: ModelId,
    tokenizer_json: PathBuf,
    spawner: Spawner,
    limits: Limits,
    metrics: Metrics,
}

#[derive(Clone, Copy)]
struct Limits {
    /// From starting a process to its being open, with the vocabulary read.
    open: Duration,
    /// One request.
    call: Duration,
    /// A process that was asked nothing for so long ends.
    idle: Duration,
}

impl Tokenizers {
    /// Starts a task for each model that has a tokenizer; processes start when they are needed.
    pub fn start(settings: &Settings, catalog: &Catalog, metrics: &Metrics) -> io::Result<Self> {
        let mut models = HashMap::new();
        let mut spawner = None;
        for model in catalog.models() {
            let Some(tokenizer_json) = model.tokenizer_json.clone() else {
                continue;
            };
            let spawner = match &spawner {
                Some(spawner) => Spawner::clone(spawner),
                None => spawner
                    .insert(Spawner::start(
                        Role::Tokenizer,
                        WorkerEnvironment::new(&[], 0, settings.runtime.core_dumps),
                    )?)
                    .clone(),
            };
            let (requests, queue) = mpsc::channel(WAITING);
            let place = Place {
                model: ModelId::clone(&model.id),
                tokenizer_json,
                spawner,
                limits: Limits {
                    open: settings.deadlines.library_open,
                    call: settings.deadlines.control_call,
                    idle: settings.tokenizer.idle_timeout,
                },
                metrics: metrics.clone(),
            };
            tokio::spawn(place.serve(queue));
            models.insert(ModelId::clone(&model.id), requests);
        }
        let models = Arc::new(models);
        Ok(Self { models })
    }

    /// The tokens of `text`.
    pub async fn encode(
        &self,
        model: &str,
        text: String,
        how: Encoding,
    ) -> Result<Encoded, TokenizerError> {
        let command = TokenizerCommand::Encode {
            text,
            add_special: how.add_special,
            with_pieces: how.with_pieces,
        };
        match self.ask(model, command).await? {
            TokenizerEvent::Encoded { tokens, pieces } => Ok(Encoded { tokens, pieces }),
            other => Err(unexpected(model, other)),
        }
    }

    /// The text of `tokens`.
    pub async fn decode(&self, model: &str, tokens: Vec<u32>) -> Result<String, TokenizerError> {
        match self.ask(model, TokenizerCommand::Decode { tokens }).await? {
            TokenizerEvent::Decoded { text } => Ok(text),
            other => Err(unexpected(model, other)),
        }
    }

    async fn ask(
        &self,
        model: &str,
        command: TokenizerCommand,
    ) -> Result<TokenizerEvent, TokenizerError> {
        let Some(requests) = self.models.get(model) else {
            return Err(TokenizerError::Unknown {
                model: model.to_owned(),
            });
        };
        let (reply, answer) = oneshot::channel();
        requests
            .try_send(Request { command, reply })
            .map_err(|_| TokenizerError::Busy {
                model: model.to_owned(),
                waiting: WAITING,
            })?;
        answer.await.unwrap_or(Err(TokenizerError::Ended {
            model: model.to_owned(),
            reason: "the daemon is shutting down".to_owned(),
        }))
    }
}

fn unexpected(model: &str, event: TokenizerEvent) -> TokenizerError {
    match event {
        TokenizerEvent::NoSuchToken { index } => TokenizerError::NoSuchToken { index },
        TokenizerEvent::Failed { reason } => TokenizerError::Failed {
            model: model.to_owned(),
            reason,
        },
        // Not shown: it may hold somebody else's text.
        TokenizerEvent::Opened
        | TokenizerEvent::Encoded { .. }
        | TokenizerEvent::Decoded { .. } => TokenizerError::Failed {
            model: model.to_owned(),
            reason: "an answer to another question".to_owned(),
        },
    }
}

impl Place {
    async fn serve(self, mut queue: mpsc::Receiver<Request>) {
        let mut process: Option<Connection> = None;
        loop {
            let request = match &process {
                None => queue.recv().await,
                Some(_) => match timeout(self.limits.idle, queue.recv()).await {
                    Ok(request) => request,
                    Err(_) => {
                        // Dropping it ends it.
                        process = None;
                        continue;
                    }
                },
            };
            let Some(Request { command, reply }) = request else {
                return;
            };
            // Its client has gone while it waited.
            if reply.is_closed() {
                continue;
            }
            let answer = self.answer(&mut process, &command).await;
            let _ = reply.send(answer);
        }
    }

    /// Asks the process, or a fresh one where it has ended since it was last asked.
    async fn answer(
        &self,
        process: &mut Option<Connection>,
        command: &TokenizerCommand,
    ) -> Result<TokenizerEvent, TokenizerError> {
        if let Some(mut open) = process.take() {
            match self.call(&mut open, command).await {
                Ok(event) => {
                    *process = Some(open);
                    return Ok(event);
                }
                Err(Failure::Deadline) => return Err(self.too_late("control-call")),
                Err(Failure::Ended(_)) => {}
            }
        }
        let mut open = match timeout(self.limits.open, self.open()).await {
            Ok(opened) => opened?,
            Err(_) => return Err(self.too_late("library-open")),
        };
        match self.call(&mut open, command).await {
            Ok(event) => {
                *process = Some(open);
                Ok(event)
            }
            Err(Failure::Deadline) => Err(self.too_late("control-call")),
            Err(Failure::Ended(reason)) => Err(self.ended(reason)),
        }
    }

    async fn open(&self) -> Result<Connection, TokenizerError> {
        let spawned = self.spawner.spawn().await;
        let opened = spawned.and_then(|spawned| Connection::new(spawned, &self.model));
        let mut open = opened.map_err(|error| self.ended(error.to_string()))?;
        let command = connection::open_command(&self.tokenizer_json);
        match open.ask(&command).await {
            Ok(TokenizerEvent::Opened) => Ok(open),
            Ok(other) => Err(unexpected(&self.model, other)),
            Err(error) => Err(self.ended(error.to_string())),
        }
    }

    async fn call(
        &self,
        open: &mut Connection,
        command: &TokenizerCommand,
    ) -> Result<TokenizerEvent, Failure> {
        match timeout(self.limits.call, open.ask(command)).await {
            Ok(Ok(event)) => Ok(event),
            Ok(Err(error)) => Err(Failure::Ended(error.to_string())),
            Err(_) => Err(Failure::Deadline),
        }
    }

    fn too_late(&self, deadline: &'static str) -> TokenizerError {
        self.metrics.deadline_passed(deadline);
        let limit = match deadline {
            "control-call" => self.limits.call,
            _ => self.limits.open,
        };
        tracing::error!(
            model = &*self.model,
            deadline,
            limit_ms = limit.as_millis(),
            "a tokenizer did not answer in time"
        );
        TokenizerError::DeadlineExceeded { deadline, limit }
    }

    fn ended(&self, reason: String) -> TokenizerError {
        tracing::error!(model = &*self.model, reason, "a tokenizer process failed");
        TokenizerError::Ended {
            model: self.model.to_string(),
            reason,
        }
    }
}
