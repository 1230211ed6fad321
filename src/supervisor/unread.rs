//! What a reader has had no room for, of an answer whose run waits for no reader: a sequence of a batch. It is never
//! more than a whole answer, and is charged to its request: where there is no memory for it the reader was too slow.
//! Its slot is given back when the run is over, whatever of this is left.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::sleep_until;

use super::drive::Stop;
use crate::conversation::{ReplyPiece, TokenLogprobs};
use crate::generation::{GenerationError, ReplyEvent};
use crate::memory::{Account, Charge};

/// It is charged in steps of this size.
const STEP_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Unread {
    events: VecDeque<ReplyEvent>,
    /// What they take, about.
    bytes: usize,
    charge: Charge,
    /// Since when the first of them waits.
    since: Instant,
    /// How long the reader may have something to read that it has no room for, in all.
    patience: Duration,
    /// How long it had, until the first of these was the first.
    waited: Duration,
}

impl Unread {
    pub fn new(account: &Account) -> Self {
        Self {
            events: VecDeque::new(),
            bytes: 0,
            charge: account.open(),
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
        self.events = VecDeque::new();
        self.bytes = 0;
        self.charge.shrink_to(0);
    }

    /// Tells the reader this behind all that waits, now or when it has room. `Err`: it has gone, or there is no
    /// memory for more that it has not read.
    pub fn tell(
        &mut self,
        event: ReplyEvent,
        reader: &mpsc::Sender<ReplyEvent>,
    ) -> Result<(), Stop> {
        let event = match self.events.is_empty() {
            true => match reader.try_send(event) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Closed(_)) => return Err(Stop::Cancelled),
                Err(TrySendError::Full(event)) => {
                    self.since = Instant::now();
                    event
                }
            },
            false => event,
        };
        self.bytes += bytes_of(&event);
        self.events.push_back(event);
        while !self.events.is_empty() {
            match reader.try_reserve() {
                Ok(permit) => self.send_first(permit),
                Err(TrySendError::Full(())) => break,
                Err(TrySendError::Closed(())) => return Err(Stop::Cancelled),
            }
        }
        self.see_to_memory()
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
        self.send_first(permit);
        Ok(())
    }

    fn send_first(&mut self, permit: mpsc::Permit<'_, ReplyEvent>) {
        let Some(first) = self.events.pop_front() else {
            return;
        };
        self.bytes -= bytes_of(&first);
        permit.send(first);
        let now = Instant::now();
        self.waited += now.saturating_duration_since(self.since);
        self.since = now;
        if self.events.is_empty() {
            self.charge.shrink_to(0);
        }
    }

    fn see_to_memory(&mut self) -> Result<(), Stop> {
        if self.bytes <= self.charge.bytes() {
            return Ok(());
        }
        let steps = self.bytes.next_multiple_of(STEP_BYTES);
        self.charge.grow_to(steps).map_err(|_| {
            let stalled = self.waited + self.since.elapsed();
            Stop::Failed(GenerationError::SlowReader { stalled })
        })
    }
}

fn bytes_of(event: &ReplyEvent) -> usize {
    let held = match event {
        ReplyEvent::Piece(piece) => bytes_of_piece(piece),
        ReplyEvent::Pieces(pieces) => {
            let each = |piece: &ReplyPiece| size_of::<ReplyPiece>() + bytes_of_piece(piece);
            pieces.iter().map(each).sum()
        }
        ReplyEvent::Started(_) | ReplyEvent::Finished(_) | ReplyEvent::Failed(_) => 0,
    };
    size_of::<ReplyEvent>() + held
}

fn bytes_of_piece(piece: &ReplyPiece) -> usize {
    let scores = |tokens: &[TokenLogprobs]| -> usize {
        let alternatives = tokens.iter().map(|token| 1 + token.top.len());
        alternatives.sum::<usize>() * size_of::<TokenLogprobs>()
    };
    match piece {
        ReplyPiece::Reasoning(text) | ReplyPiece::Text(text) => text.len(),
        ReplyPiece::ScoredText(scored) => scored.text.len() + scores(&scored.tokens),
        ReplyPiece::PromptLogprobs(tokens) => scores(tokens),
        ReplyPiece::ToolCall { name, .. } => name.len(),
        ReplyPiece::ToolArguments { delta, .. } => delta.len(),
        ReplyPiece::ToolCallEnd { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::{ClientKey, RunStart};
    use crate::memory::{Accountant, Standing};

    fn account(accountant: &Accountant) -> Account {
        accountant.account(ClientKey::new("c"), Standing::Ordinary)
    }

    fn event(nth: u32) -> ReplyEvent {
        ReplyEvent::Piece(ReplyPiece::Text(nth.to_string()))
    }

    #[tokio::test]
    async fn what_waits_comes_in_order_and_before_what_is_told_later() {
        let (reader, mut read) = mpsc::channel(2);
        let mut unread = Unread::new(&account(&Accountant::new(4 << 20)));
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
        let mut unread = Unread::new(&account(&Accountant::new(4 << 20)));
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
        let mut unread = Unread::new(&account(&Accountant::new(4 << 20)));
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

    #[tokio::test]
    async fn what_waits_is_charged_until_it_is_given() {
        let accountant = Accountant::new(4 << 20);
        let (reader, mut read) = mpsc::channel(1);
        let mut unread = Unread::new(&account(&accountant));
        unread.waits_for(Duration::from_secs(60));
        let text = || ReplyEvent::Piece(ReplyPiece::Text("x".repeat(STEP_BYTES)));
        unread.tell(text(), &reader).expect("it is there");
        assert_eq!(accountant.used_bytes(), 0, "it was given");
        unread.tell(text(), &reader).expect("it is there");
        assert_eq!(accountant.used_bytes(), 2 * STEP_BYTES as u64);
        read.recv().await.expect("an event");
        unread.give(&reader).await.expect("it has room");
        assert_eq!(accountant.used_bytes(), 0);
        let refused = (0..64).find_map(|_| unread.tell(text(), &reader).err());
        assert!(matches!(
            refused,
            Some(Stop::Failed(GenerationError::SlowReader { .. }))
        ));
        unread.clear();
        assert_eq!(accountant.used_bytes(), 0);
    }
}
