//! What a reader has had no room for, of an answer whose run waits for no reader: a sequence of a batch. It is never
//! more than the run has credit for. Its slot is given back when the run is over, whatever of this is left.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::sleep_until;

use super::drive::Stop;
use crate::generation::{GenerationError, ReplyEvent};

#[derive(Debug)]
pub(super) struct Unread {
    events: VecDeque<ReplyEvent>,
    /// Since when the first of them waits.
    since: Instant,
    /// How long the reader may have something to read that it has no room for, in all.
    patience: Duration,
    /// How long it had, until the first of these was the first.
    waited: Duration,
}

impl Unread {
    pub fn new() -> Self {
        Self {
            events: VecDeque::new(),
            since: Instant::now(),
            patience: Duration::ZERO,
            waited: Duration::ZERO,
        }
    }

    /// With this patience from now on.
    pub fn waits_for(&mut self, patience: Duration) -> &mut Self {
        self.patience = patience;
        self
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub fn clear(&mut self) {
        self.events.clear();
    }

    /// Tells the reader this behind all that waits, now or when it has room. `Err`: it has gone.
    pub fn tell(
        &mut self,
        event: ReplyEvent,
        reader: &mpsc::Sender<ReplyEvent>,
    ) -> Result<(), Stop> {
        if self.events.is_empty() {
            self.since = Instant::now();
        }
        self.events.push_back(event);
        while let Some(first) = self.events.pop_front() {
            match reader.try_send(first) {
                Ok(()) => self.first_is_given(),
                Err(TrySendError::Full(first)) => {
                    self.events.push_front(first);
                    break;
                }
                Err(TrySendError::Closed(_)) => return Err(Stop::Cancelled),
            }
        }
        Ok(())
    }

    /// Tells the reader the first one that waits, once it has room. It can be dropped at any time without losing
    /// one. `Err`: the reader has gone, or has had its time.
    pub async fn give(&mut self, reader: &mpsc::Sender<ReplyEvent>) -> Result<(), Stop> {
        let until = self.since + self.patience.saturating_sub(self.waited);
        let permit = tokio::select! {
            biased;
            permit = reader.reserve() => permit.map_err(|_| Stop::Cancelled)?,
            () = sleep_until(until.into()) => {
                let stalled = self.patience;
                return Err(Stop::Failed(GenerationError::SlowReader { stalled }));
            }
        };
        if let Some(first) = self.events.pop_front() {
            permit.send(first);
            self.first_is_given();
        }
        Ok(())
    }

    fn first_is_given(&mut self) {
        let now = Instant::now();
        self.waited += now.saturating_duration_since(self.since);
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::ReplyPiece;
    use crate::generation::RunStart;

    fn event(nth: u32) -> ReplyEvent {
        ReplyEvent::Piece(ReplyPiece::Text(nth.to_string()))
    }

    #[tokio::test]
    async fn what_waits_comes_in_order_and_before_what_is_told_later() {
        let (reader, mut read) = mpsc::channel(2);
        let mut unread = Unread::new();
        unread.waits_for(Duration::from_secs(60));
        for nth in 0..5 {
            unread.tell(event(nth), &reader).expect("it is there");
        }
        let mut told = vec![read.recv().await];
        unread.tell(event(5), &reader).expect("it is there");
        while !unread.is_empty() {
            told.push(read.recv().await);
            unread.give(&reader).await.expect("it has room");
        }
        drop(reader);
        while let Some(event) = read.recv().await {
            told.push(Some(event));
        }
        assert_eq!(told, (0..6).map(|nth| Some(event(nth))).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_reader_has_its_time_in_all() {
        let (reader, mut read) = mpsc::channel(1);
        let began = Instant::now();
        let mut unread = Unread::new();
        unread.waits_for(Duration::from_millis(200));
        for nth in 0..3 {
            unread.tell(event(nth), &reader).expect("it is there");
        }
        read.recv().await.expect("an event");
        unread.give(&reader).await.expect("it has room");
        let refused = unread.give(&reader).await;
        assert!(
            matches!(refused, Err(Stop::Failed(GenerationError::SlowReader { stalled }))
                if stalled == Duration::from_millis(200))
        );
        assert!(began.elapsed() >= Duration::from_millis(200), "it has some");
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_is_missed_at_once() {
        let (reader, read) = mpsc::channel(1);
        let mut unread = Unread::new();
        unread.waits_for(Duration::from_secs(60));
        let start = ReplyEvent::Started(RunStart::default());
        unread.tell(start, &reader).expect("it is there");
        unread.tell(event(1), &reader).expect("it is there");
        drop(read);
        assert!(matches!(unread.give(&reader).await, Err(Stop::Cancelled)));
        assert!(matches!(
            unread.tell(event(2), &reader),
            Err(Stop::Cancelled)
        ));
    }
}
