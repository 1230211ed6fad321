//! Models that are loaded and unloaded because somebody asks for just that.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::event_loop::Message;
use super::{QueueEnd, Supervisor, Wish};
use crate::generation::{ClientKey, GenerationError, KeepAlive, ModelId};

/// What came of asking for a model to be unloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unloaded {
    /// It has no worker any more, or had none.
    Yes,
    /// It is loading, in use or waited for.
    StillWanted,
    /// Its worker outlived being killed.
    Unkillable,
}

/// When a model may be unloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnloadWhen {
    /// Now, or not at all.
    Idle,
    /// As soon as nothing uses it or waits for it.
    OnceIdle,
}

impl Supervisor {
    /// Loads a model as a request for it would, in the turn of a client and no longer than one may wait
    /// for a worker; it stays as after any use. Returns once it is loaded, and how long that took where it
    /// was not before. Dropping the future withdraws the request.
    ///
    /// # Errors
    ///
    /// It could not be loaded, or no place became free in time.
    pub async fn load(
        &self,
        client: ClientKey,
        model: ModelId,
        keep_alive: Option<KeepAlive>,
    ) -> Result<Option<Duration>, GenerationError> {
        let (reply, is_loaded) = oneshot::channel();
        let message = Message::Keep {
            model: ModelId::clone(&model),
            client: client.clone(),
            keep_alive,
            reply,
        };
        let _ = self.messages.send(message);
        if is_loaded.await.unwrap_or(false) {
            return Ok(None);
        }
        let since = Instant::now();
        let limit = self.handles.queue_deadline();
        let wish = Wish {
            keep_alive,
            ..Wish::default()
        };
        let lease = self.lease_with(client, ModelId::clone(&model), QueueEnd::Back, wish);
        match timeout(limit, lease).await {
            Ok(lease) => lease.map(|_| Some(since.elapsed())),
            Err(_) => Err(GenerationError::QueueDeadline {
                model: model.to_string(),
                waited: limit,
            }),
        }
    }

    /// Unloads a model, or as soon as nothing uses it or waits for it, also where the future is dropped.
    /// Returns once its worker has ended, or after the longest time that a request waits.
    ///
    /// # Errors
    ///
    /// The daemon is shutting down.
    pub async fn unload_once_idle(&self, model: ModelId) -> Result<Unloaded, GenerationError> {
        self.unload_when(model, UnloadWhen::OnceIdle).await
    }

    /// Likewise, but for a model that something uses or waits for, which stays. Evaluating what it pins is no use of it,
    /// and ends before.
    pub async fn unload(&self, model: ModelId) -> Result<Unloaded, GenerationError> {
        let limit = self.handles.queue_deadline();
        let stopped = timeout(limit, self.prefixes().stop_pinning(&model)).await;
        let _not_pinned = stopped.unwrap_or_default();
        self.unload_when(model, UnloadWhen::Idle).await
    }

    async fn unload_when(
        &self,
        model: ModelId,
        when: UnloadWhen,
    ) -> Result<Unloaded, GenerationError> {
        let (reply, ended) = oneshot::channel();
        self.messages
            .send(Message::Unload { model, when, reply })
            .map_err(|_| GenerationError::ShuttingDown)?;
        match timeout(self.handles.queue_deadline(), ended).await {
            Ok(ended) => ended.map_err(|_| GenerationError::ShuttingDown),
            Err(_) => Ok(Unloaded::StillWanted),
        }
    }
}
