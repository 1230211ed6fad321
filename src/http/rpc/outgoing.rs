//! What waits for one connection's reader: messages in the order they were sent, bounded in bytes and
//! charged to the client. A sender waits for room, so a slow reader slows its own runs down and nothing
//! grows. A message that finds room and bytes is sent without a timer, and without the accountant.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use super::outbound::{Outbound, Pieces};
use crate::memory::{Account, Allowance, Charge, Taken};

/// What a message costs beyond its bytes.
pub(super) const OVERHEAD_BYTES: usize = 128;
/// A message that may go uncharged, where it is the only such one of its connection.
const SMALL_BYTES: usize = 4096;
/// The last word on a call waits so many times longer than a notification, as a slow reader's
/// connection outlives its run: one that reads on until then learns why its run ended.
pub(super) const LAST_WORD: u32 = 3;

/// The sending end; clones share the room.
#[derive(Clone)]
pub(crate) struct Outgoing {
    allowance: Allowance,
    queue: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
    small: Arc<Semaphore>,
    limit_bytes: usize,
    patience: Duration,
    /// Bytes a second of a message with tensors.
    slowest: u32,
    progress: Progress,
    /// Told when an answer could not be sent in time.
    given_up: Arc<Notify>,
}

/// A message with the room it takes until it is written.
pub(crate) struct Queued {
    message: Outbound,
    room: Room,
    progress: Progress,
    stall: Duration,
    slowest: u32,
}

/// What lets a message wait, to be dropped when it is in the socket.
pub(crate) struct Room {
    _permit: OwnedSemaphorePermit,
    _pass: Pass,
    /// What was charged for it before.
    _charge: Option<Charge>,
}

enum Pass {
    Charged {
        _taken: Taken,
    },
    /// The connection's one small message that is not charged: a refusal for want of memory must not
    /// want memory.
    Small {
        _permit: OwnedSemaphorePermit,
    },
}

/// When the client last took a part of a message that has more of them. Who waits behind such a message
/// waits for a client that reads.
#[derive(Clone, Debug)]
pub(crate) struct Progress(Arc<(Instant, AtomicU64)>);

/// The reading end.
pub(crate) struct Queue(mpsc::UnboundedReceiver<Queued>);

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotSent {
    #[error("the client did not read for {} ms", .0.as_millis())]
    SlowReader(Duration),
    #[error("the client is gone")]
    Gone,
}

impl Progress {
    fn new() -> Self {
        Self(Arc::new((Instant::now(), AtomicU64::new(0))))
    }

    pub fn made(&self) {
        let (start, last) = &*self.0;
        let passed = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        last.store(passed, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        let (start, last) = &*self.0;
        *start + Duration::from_millis(last.load(Ordering::Relaxed))
    }
}

impl Queue {
    pub async fn recv(&mut self) -> Option<Queued> {
        self.0.recv().await
    }

    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Queued>> {
        self.0.poll_recv(cx)
    }
}

impl Queued {
    /// The message, changed into what the transport writes.
    pub fn framed(mut self, frame: impl FnOnce(&mut Outbound)) -> Self {
        frame(&mut self.message);
        self
    }

    pub fn into_pieces(self) -> (Pieces, Room) {
        let pieces = self.message.into_pieces().telling(self.progress);
        let pieces = pieces.within(self.stall, self.slowest);
        (pieces, self.room)
    }

    /// How long the client may take nothing of a message with tensors: the file of one is held for it.
    pub fn stall(&self) -> Duration {
        self.stall
    }
}

impl Outgoing {
    /// `slowest`: bytes a second that the client must take of a message with tensors.
    pub fn new(
        account: Account,
        limit_bytes: usize,
        patience: Duration,
        slowest: u32,
    ) -> (Self, Queue) {
        let (queue, reader) = mpsc::unbounded_channel();
        // A semaphore counts in 32 bits where many are taken at once.
        let limit_bytes = limit_bytes.min(u32::MAX as usize >> 1);
        let outgoing = Self {
            allowance: Allowance::new(account),
            queue,
            room: Arc::new(Semaphore::new(limit_bytes)),
            small: Arc::new(Semaphore::new(1)),
            limit_bytes,
            patience,
            slowest,
            progress: Progress::new(),
            given_up: Arc::default(),
        };
        (outgoing, Queue(reader))
    }

    pub fn account(&self) -> &Account {
        self.allowance.account()
    }

    /// Sends what belongs to a run.
    pub async fn send(&self, message: impl Into<Outbound>) -> Result<(), NotSent> {
        self.send_within(message.into(), self.patience).await
    }

    /// Sends an answer, or the end of a run that was answered at once. If that fails too the client is
    /// given up: the task that serves its connection ends it.
    pub async fn send_answer(&self, message: impl Into<Outbound>) -> Result<(), NotSent> {
        let sent = self.send_within(message.into(), self.last_word()).await;
        if let Err(NotSent::SlowReader(_)) = sent {
            self.given_up.notify_one();
        }
        sent
    }

    fn last_word(&self) -> Duration {
        self.patience.saturating_mul(LAST_WORD)
    }

    /// Resolves when the reader is given up; one task waits for it.
    pub async fn given_up(&self) {
        self.given_up.notified().await;
    }

    async fn send_within(&self, mut message: Outbound, patience: Duration) -> Result<(), NotSent> {
        // Tensors count whole, since the worker's memory holds them whole: a run is not made while the
        // result of the one before waits. One larger than all the room is sent when there is nothing else.
        let whole = (message.whole_bytes() + OVERHEAD_BYTES).min(self.limit_bytes);
        let wanted = u32::try_from(whole).unwrap_or(u32::MAX);
        // Likewise one that is larger than about all that the client may have.
        let most = self.account().most_bytes();
        let charged = (message.held_bytes() + OVERHEAD_BYTES).min(most - most / 8);
        let _charge = message.take_charge();
        let charged = charged.saturating_sub(_charge.as_ref().map_or(0, Charge::bytes));
        let at_once = || {
            let room = Arc::clone(&self.room).try_acquire_many_owned(wanted).ok()?;
            let _taken = self.allowance.try_take(charged)?;
            Some((room, Pass::Charged { _taken }))
        };
        let (_permit, _pass) = match at_once() {
            Some(both) => both,
            None => self.wait_for_room(wanted, charged, patience).await?,
        };
        let queued = Queued {
            message,
            room: Room {
                _permit,
                _pass,
                _charge,
            },
            progress: self.progress.clone(),
            stall: self.last_word(),
            slowest: self.slowest,
        };
        self.queue.send(queued).map_err(|_| NotSent::Gone)
    }

    async fn wait_for_room(
        &self,
        wanted: u32,
        charged: usize,
        patience: Duration,
    ) -> Result<(OwnedSemaphorePermit, Pass), NotSent> {
        let both = async {
            let room = Arc::clone(&self.room).acquire_many_owned(wanted).await;
            // Other answers to this client, or to all, go first.
            let pass = tokio::select! {
                biased;
                taken = self.allowance.take_within(charged, patience) => match taken {
                    Ok(_taken) => Some(Pass::Charged { _taken }),
                    Err(_) => None,
                },
                permit = Arc::clone(&self.small).acquire_owned(), if charged <= SMALL_BYTES => {
                    permit.ok().map(|_permit| Pass::Small { _permit })
                }
            };
            (room, pass)
        };
        let mut both = std::pin::pin!(both);
        let begun = Instant::now();
        loop {
            let until = self.progress.last().max(begun) + patience;
            tokio::select! {
                both = tokio::time::timeout_at(until, &mut both) => match both {
                    Ok((room, Some(pass))) => {
                        return Ok((room.map_err(|_| NotSent::Gone)?, pass));
                    }
                    // It has taken something of a long message meanwhile.
                    Err(_) if self.progress.last() + patience > until => {}
                    Err(_) | Ok((_, None)) => return Err(NotSent::SlowReader(patience)),
                },
                () = self.queue.closed() => return Err(NotSent::Gone),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::ClientKey;
    use crate::memory::{Accountant, Standing};

    fn account() -> Account {
        let client = ClientKey::new("one");
        Accountant::new(1 << 30).account(client, Standing::Ordinary)
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_not_read_stops_the_sender() {
        let (outgoing, mut queue) = Outgoing::new(account(), 4096, Duration::from_secs(30), 1);
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
    async fn a_refusal_for_want_of_memory_is_sent_all_the_same() {
        let account = account();
        let all = account.charge(account.most_bytes()).unwrap();
        let (outgoing, mut queue) = Outgoing::new(account, 1 << 20, Duration::from_secs(30), 1);
        let started = tokio::time::Instant::now();
        outgoing.send("refused".to_owned()).await.unwrap();
        assert_eq!(started.elapsed(), Duration::ZERO);
        // A second one waits until the first is written, a large one for memory.
        let second = outgoing.send("refused".to_owned()).await;
        assert!(matches!(second, Err(NotSent::SlowReader(_))));
        drop(queue.recv().await);
        outgoing.send("refused".to_owned()).await.unwrap();
        drop(all);
        outgoing.send("x".repeat(8192)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_charged_before_is_not_charged_again() {
        let account = account();
        let most = account.most_bytes();
        let text = "x".repeat(1 << 20);
        let charge = account.charge(text.len() + OVERHEAD_BYTES).unwrap();
        let all = account.charge(most - charge.bytes()).unwrap();
        let (outgoing, mut queue) = Outgoing::new(account, 4 << 20, Duration::from_secs(1), 1024);
        let message = Outbound::from(text).charged(charge);
        outgoing.send(message).await.unwrap();
        let account = outgoing.account();
        assert!(account.charge(1).is_err(), "it is charged while it waits");
        drop(queue.recv().await);
        drop(account.charge(1 << 20).unwrap());
        drop(all);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_larger_than_the_room_is_sent_alone() {
        let (outgoing, mut queue) = Outgoing::new(account(), 4096, Duration::from_secs(1), 1);
        let large = "x".repeat(1 << 20);
        outgoing.send(large.clone()).await.unwrap();
        assert!(outgoing.send("y".to_owned()).await.is_err());
        let (mut pieces, room) = queue.recv().await.unwrap().into_pieces();
        let mut got = Vec::new();
        while let Some(piece) = pieces.next_piece().unwrap() {
            got.extend_from_slice(&piece);
        }
        assert_eq!(got, large.as_bytes());
        drop(room);
        assert_eq!(outgoing.send("y".to_owned()).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_waits_for_a_reader_that_is_gone() {
        let (outgoing, queue) = Outgoing::new(account(), 4096, Duration::from_secs(3600), 1);
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
