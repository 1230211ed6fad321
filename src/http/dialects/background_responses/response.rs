//! One response that is made whether or not its client waits. It has its events in memory, numbered from 0 and charged to
//! its client, so that any number of readers can follow it from any of them; the oldest go where there are too many. Of
//! an end there is one, and nothing is told behind it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::watch;

use super::line::Ticket;
use crate::http::dialects::kept_items::Item;
use crate::http::request::error::RequestError;
use crate::memory::{Account, Charge, OverBudget};

/// What an event takes beside its bytes.
const EVENT_BYTES: usize = 64;
/// Charged in steps of this size, that no token pays for.
const STEP_BYTES: usize = 64 * 1024;
/// What is read at once is not filled beyond this.
const FRAME_BYTES: usize = 16 * 1024;

/// A response in the background.
#[derive(Debug)]
pub(crate) struct BackgroundResponse {
    pub id: String,
    told: Mutex<Told>,
    limit_bytes: usize,
    /// Is sent to when there is more to read.
    more: watch::Sender<()>,
    /// Why it is to end before its answer does.
    wish: watch::Sender<Option<RequestError>>,
    /// Until it waits for its model, or waits no more.
    ticket: Ticket,
}

#[derive(Debug)]
struct Told {
    /// The number of the first event that is still there.
    first: u64,
    events: VecDeque<Bytes>,
    bytes: usize,
    charge: Charge,
    /// JSON of the response as it is now.
    now: Bytes,
    /// The conversation that is answered, until the end.
    items: Vec<Arc<Item>>,
    is_over: bool,
    /// It is not to be kept.
    is_deleted: bool,
}

/// What a reader finds behind the events that it has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Events, and the number of the one behind them.
    Events(Bytes, u64),
    NothingYet,
    /// It has ended, and the reader has its end.
    TheEnd,
    /// The next one has made place for later ones.
    Gone,
}

/// What a response is at its beginning.
pub(crate) struct Beginning {
    pub id: String,
    pub events: Vec<Bytes>,
    pub now: Bytes,
    pub items: Vec<Arc<Item>>,
}

impl Beginning {
    /// What its events take.
    pub(super) fn bytes(&self) -> usize {
        let events = self.events.iter();
        events.map(|event| EVENT_BYTES + event.len()).sum()
    }
}

impl BackgroundResponse {
    pub(super) fn new(
        beginning: Beginning,
        account: &Account,
        limit_bytes: usize,
        ticket: Ticket,
    ) -> Result<Self, OverBudget> {
        let Beginning {
            id,
            events,
            now,
            items,
        } = beginning;
        let response = Self {
            id,
            told: Mutex::new(Told {
                first: 0,
                events: VecDeque::new(),
                bytes: 0,
                charge: account.open(),
                now,
                items,
                is_over: false,
                is_deleted: false,
            }),
            limit_bytes,
            more: watch::Sender::new(()),
            wish: watch::Sender::new(None),
            ticket,
        };
        response.tell(events, None)?;
        Ok(response)
    }

    /// Adds events, and how the response is from then on.
    ///
    /// # Errors
    ///
    /// Their bytes cannot be had. They are told all the same.
    pub fn tell(
        &self,
        events: impl IntoIterator<Item = Bytes>,
        now: Option<Bytes>,
    ) -> Result<(), OverBudget> {
        let mut events = events.into_iter().peekable();
        // Who follows is not woken for nothing, since each wake begins its wait for a sign of life anew.
        if events.peek().is_none() && now.is_none() {
            return Ok(());
        }
        let mut told = self.told();
        if told.is_over {
            return Ok(());
        }
        let charged = told.add(events, now, self.limit_bytes);
        drop(told);
        self.more.send_replace(());
        charged
    }

    /// Adds the last events.
    pub fn end(&self, events: impl IntoIterator<Item = Bytes>, now: Option<Bytes>) {
        let mut told = self.told();
        if told.is_over {
            return;
        }
        // An end is told whatever there is left; what it takes is charged once its request has given back what it had.
        let _ = told.add(events, now, self.limit_bytes);
        told.is_over = true;
        told.items = Vec::new();
        drop(told);
        self.more.send_replace(());
        self.gets_in_line();
    }

    /// It is in its model's queue.
    pub fn gets_in_line(&self) {
        self.ticket.give_back();
    }

    /// Waits until it may get in line: what its client has begun before it is there, or has ended. Prompts are made
    /// beside each other, and a later one may be through first.
    pub async fn turn_comes(&self) {
        self.ticket.comes().await;
    }

    /// Of a response that has ended, and whose request has given back what it had: events that cannot be charged go.
    pub fn settle(&self) {
        let mut told = self.told();
        if told.charge_all().is_err() {
            told.first += told.events.len() as u64;
            told.events.clear();
            told.bytes = 0;
        }
    }

    /// What there is from this event on.
    pub fn behind(&self, next: u64) -> Behind {
        let told = self.told();
        let Some(from) = next.checked_sub(told.first) else {
            return Behind::Gone;
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        if from >= told.events.len() {
            return match told.is_over {
                true => Behind::TheEnd,
                false => Behind::NothingYet,
            };
        }
        let (mut frame, mut number) = (BytesMut::new(), next);
        for event in told.events.range(from..) {
            if !frame.is_empty() && frame.len() + event.len() > FRAME_BYTES {
                break;
            }
            frame.put_slice(event);
            number += 1;
        }
        Behind::Events(frame.freeze(), number)
    }

    /// Tells when there may be more to read.
    pub fn follow(&self) -> watch::Receiver<()> {
        self.more.subscribe()
    }

    /// The numbers of the events that are there: the first, and the one behind the last.
    pub fn numbers(&self) -> (u64, u64) {
        let told = self.told();
        (told.first, told.first + told.events.len() as u64)
    }

    /// JSON of the response.
    pub fn now(&self) -> Bytes {
        self.told().now.clone()
    }

    /// The conversation that is answered, unless it has ended.
    pub fn items(&self) -> Option<Vec<Arc<Item>>> {
        let told = self.told();
        (!told.is_over).then(|| told.items.clone())
    }

    pub fn is_over(&self) -> bool {
        self.told().is_over
    }

    pub fn is_deleted(&self) -> bool {
        self.told().is_deleted
    }

    /// Asks for its end. The first reason stays.
    pub fn wish_end(&self, why: RequestError) {
        self.wish.send_if_modified(|wish| {
            let is_first = wish.is_none();
            if is_first {
                *wish = Some(why);
            }
            is_first
        });
    }

    /// Waits until its end is asked for.
    pub async fn end_wished(&self) -> RequestError {
        let mut wish = self.wish.subscribe();
        let wished = wish.wait_for(Option::is_some).await;
        // Its sender is here.
        wished
            .ok()
            .and_then(|why| why.clone())
            .unwrap_or(RequestError::Cancelled)
    }

    /// Waits for its end.
    pub async fn ended(&self) {
        let mut more = self.follow();
        while !self.is_over() {
            if more.changed().await.is_err() {
                return;
            }
        }
    }

    /// It ends, and is not kept. Whether it has ended already.
    pub(super) fn delete(&self, why: RequestError) -> bool {
        let mut told = self.told();
        told.is_deleted = true;
        let is_over = told.is_over;
        drop(told);
        self.wish_end(why);
        is_over
    }

    /// Held for no wait.
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn add(
        &mut self,
        events: impl IntoIterator<Item = Bytes>,
        now: Option<Bytes>,
        limit_bytes: usize,
    ) -> Result<(), OverBudget> {
        if let Some(now) = now {
            self.now = now;
        }
        for event in events {
            self.bytes += EVENT_BYTES + event.len();
            self.events.push_back(event);
        }
        // The last one stays, however large it is.
        while self.bytes > limit_bytes && self.events.len() > 1 {
            if let Some(gone) = self.events.pop_front() {
                self.bytes -= EVENT_BYTES + gone.len();
                self.first += 1;
            }
        }
        self.charge_all()
    }

    fn charge_all(&mut self) -> Result<(), OverBudget> {
        let bytes = self.bytes + self.now.len();
        // No token asks the accountant.
        match bytes <= self.charge.bytes() {
            true => Ok(()),
            false => self.charge.grow_to(bytes.next_multiple_of(STEP_BYTES)),
        }
    }
}

#[cfg(test)]
mod tests;
