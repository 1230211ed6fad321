//! What waits for one connection's reader: messages in the order they were sent, bounded in bytes. A
//! sender waits for room, so a slow reader slows its own runs down and nothing grows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

/// What a message costs beyond its bytes.
const OVERHEAD_BYTES: usize = 128;
/// The last word on a call waits so many times longer than a notification, as a slow reader's
/// connection outlives its run: one that reads on until then learns why its run ended.
const LAST_WORD: u32 = 3;

/// The sending end; clones share the room.
#[derive(Clone)]
pub(crate) struct Outgoing {
    queue: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
    limit_bytes: usize,
    patience: Duration,
    /// Told when an answer could not be sent in time.
    given_up: Arc<Notify>,
}

/// A message with the room it takes until it is written.
pub(crate) struct Queued {
    pub text: String,
    /// To be dropped when the message is in the socket.
    pub room: OwnedSemaphorePermit,
}

/// The reading end.
pub(crate) type Queue = mpsc::UnboundedReceiver<Queued>;

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotSent {
    #[error("the client did not read for {} ms", .0.as_millis())]
    SlowReader(Duration),
    #[error("the client is gone")]
    Gone,
}

impl Outgoing {
    pub fn new(limit_bytes: usize, patience: Duration) -> (Self, Queue) {
        let (queue, reader) = mpsc::unbounded_channel();
        // A semaphore counts in 32 bits where many are taken at once.
        let limit_bytes = limit_bytes.min(u32::MAX as usize >> 1);
        let outgoing = Self {
            queue,
            room: Arc::new(Semaphore::new(limit_bytes)),
            limit_bytes,
            patience,
            given_up: Arc::default(),
        };
        (outgoing, reader)
    }

    /// Sends what belongs to a run.
    pub async fn send(&self, text: String) -> Result<(), NotSent> {
        self.send_within(text, self.patience).await
    }

    /// Sends an answer, or the end of a run that was answered at once. If that fails too the reader is
    /// given up: whoever serves its connection ends it.
    pub async fn send_answer(&self, text: String) -> Result<(), NotSent> {
        let patience = self.patience.saturating_mul(LAST_WORD);
        let sent = self.send_within(text, patience).await;
        if let Err(NotSent::SlowReader(_)) = sent {
            self.given_up.notify_one();
        }
        sent
    }

    /// Resolves when the reader is given up; one task waits for it.
    pub async fn given_up(&self) {
        self.given_up.notified().await;
    }

    async fn send_within(&self, text: String, patience: Duration) -> Result<(), NotSent> {
        // One larger than all the room is sent when there is nothing else.
        let bytes = (text.len() + OVERHEAD_BYTES).min(self.limit_bytes);
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(wanted);
        let room = tokio::select! {
            room = tokio::time::timeout(patience, room) => match room {
                Err(_) => return Err(NotSent::SlowReader(patience)),
                Ok(room) => room.map_err(|_| NotSent::Gone)?,
            },
            () = self.queue.closed() => return Err(NotSent::Gone),
        };
        let message = Queued { text, room };
        self.queue.send(message).map_err(|_| NotSent::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_stops_the_sender() {
        let (outgoing, mut queue) = Outgoing::new(4096, Duration::from_secs(30));
        let text = "x".repeat(1000);
        let mut sent = 0;
        let stopped = loop {
            match outgoing.send(text.clone()).await {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(stopped, NotSent::SlowReader(Duration::from_secs(30)));
        assert_eq!(sent, 3, "messages of 1128 bytes in 4096");
        drop(queue.recv().await);
        assert_eq!(outgoing.send(text).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_larger_than_the_room_is_sent_alone() {
        let (outgoing, mut queue) = Outgoing::new(4096, Duration::from_secs(1));
        let large = "x".repeat(1 << 20);
        outgoing.send(large.clone()).await.unwrap();
        assert!(outgoing.send("y".to_owned()).await.is_err());
        assert_eq!(queue.recv().await.unwrap().text, large);
        assert_eq!(outgoing.send("y".to_owned()).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_waits_for_a_reader_that_is_gone() {
        let (outgoing, queue) = Outgoing::new(4096, Duration::from_secs(3600));
        outgoing.send("x".repeat(4096)).await.unwrap();
        let started = tokio::time::Instant::now();
        let waiting = tokio::spawn({
            let outgoing = outgoing.clone();
            async move { outgoing.send("y".to_owned()).await }
        });
        tokio::task::yield_now().await;
        drop(queue);
        assert_eq!(waiting.await.unwrap(), Err(NotSent::Gone));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
