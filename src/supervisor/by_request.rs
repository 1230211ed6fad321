//! Models that are loaded and unloaded because somebody asks for just that.

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::event_loop::Message;
use super::{QueueEnd, Supervisor};
use crate::generation::{ClientKey, GenerationError, ModelId};

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

impl Supervisor {
    /// Loads a model as a request for it would, in the turn of a client and no longer than one may wait
    /// for a worker. Returns once it is loaded. Dropping the future withdraws the request.
    ///
    /// # Errors
    ///
    /// It could not be loaded, or no place became free in time.
    pub async fn load(&self, client: ClientKey, model: ModelId) -> Result<(), GenerationError> {
        let limit = self.handles.queue_deadline();
        let lease = self.lease(client, ModelId::clone(&model), QueueEnd::Back);
        match timeout(limit, lease).await {
            Ok(lease) => lease.map(drop),
            Err(_) => Err(GenerationError::QueueDeadline {
                model: model.to_string(),
                waited: limit,
            }),
        }
    }

    /// Unloads a model that nothing uses or waits for. Returns once its worker has ended, within the
    /// deadline for that.
    ///
    /// # Errors
    ///
    /// The daemon is shutting down.
    pub async fn unload(&self, model: ModelId) -> Result<Unloaded, GenerationError> {
        let (reply, ended) = oneshot::channel();
        self.messages
            .send(Message::Unload { model, reply })
            .map_err(|_| GenerationError::ShuttingDown)?;
        ended.await.map_err(|_| GenerationError::ShuttingDown)
    }
}
