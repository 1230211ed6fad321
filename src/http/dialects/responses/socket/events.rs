//! What is written to a socket: events, each a message, the next one taken when the one before is in the socket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, timeout};

use crate::http::request::context::RequestContext;
use crate::http::transport::messages::End;
use crate::http::transport::websocket::{FragmentPosition, Socket};

/// Bytes of an event that are written at once.
const FRAGMENT_BYTES: usize = 64 * 1024;

/// An event on its way.
pub(super) struct Sent {
    pub json: Bytes,
    /// What is charged to its request is until it is written.
    pub _context: Option<Arc<RequestContext>>,
}

/// Who makes events waits for who writes them: one waits at the most, of each who makes them.
pub(super) fn queue() -> (mpsc::Sender<Sent>, mpsc::Receiver<Sent>) {
    mpsc::channel(1)
}

/// Writes events as they come, and a ping into silence, until no more can come.
pub(super) async fn write(
    socket: &Socket,
    mut waiting: mpsc::Receiver<Sent>,
    keep_alive: Duration,
    slow_reader: Duration,
) -> Result<(), End> {
    let mut pings = tokio::time::interval(keep_alive);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    loop {
        tokio::select! {
            sent = waiting.recv() => match sent {
                Some(sent) => write_text(socket, sent.json.clone(), slow_reader).await?,
                None => return Ok(()),
            },
            _ = pings.tick() => taken(socket.ping(), slow_reader).await?,
        }
    }
}

async fn write_text(socket: &Socket, mut text: Bytes, slow_reader: Duration) -> Result<(), End> {
    let mut is_first = true;
    loop {
        let fragment = text.split_to(text.len().min(FRAGMENT_BYTES));
        let is_last = text.is_empty();
        let sent = socket.fragment(fragment, FragmentPosition { is_first, is_last });
        taken(sent, slow_reader).await?;
        if is_last {
            return Ok(());
        }
        is_first = false;
    }
}

async fn taken<E>(
    sent: impl Future<Output = Result<(), E>>,
    slow_reader: Duration,
) -> Result<(), End> {
    match timeout(slow_reader, sent).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(End::ClientLeft),
        Err(_) => Err(End::SlowReader),
    }
}
