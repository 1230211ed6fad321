//! Responses that are made whether or not their clients wait, and what their clients have been told so far. A key has a
//! limited number of them at a time. Each has its events in memory, numbered from 0 and charged to its client, so that any
//! number of readers can follow it from any of them; the oldest go where there are too many, and all of them some time
//! after its end. Of an end there is one, and nothing is told behind it.
//!
//! [`BackgroundResponses`] knows no clock; whoever makes a response lets it go when its time is over.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::watch;

use super::kept_items::Item;
use crate::generation::{ClientKey, GenerationError};
use crate::http::request::error::RequestError;
use crate::memory::{Account, Charge, OverBudget};
use crate::settings::ResponseSettings;

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

impl BackgroundResponse {
    fn new(
        beginning: Beginning,
        account: &Account,
        limit_bytes: usize,
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

    fn delete(&self) {
        self.told().is_deleted = true;
        self.wish_end(RequestError::Cancelled);
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
        let bytes = (self.bytes + self.now.len()).next_multiple_of(STEP_BYTES);
        self.charge.grow_to(bytes)
    }
}

/// Those of one client, the oldest one first.
#[derive(Debug, Default)]
struct OfClient {
    is_a_key: bool,
    responses: VecDeque<Arc<BackgroundResponse>>,
}

#[derive(Debug, Default)]
struct Shelf {
    clients: HashMap<Arc<str>, OfClient>,
    /// The daemon ends.
    is_closed: bool,
}

/// Those of all clients.
#[derive(Debug)]
pub(crate) struct BackgroundResponses {
    limits: ResponseSettings,
    shelf: Mutex<Shelf>,
}

impl BackgroundResponses {
    pub fn new(limits: &ResponseSettings) -> Self {
        Self {
            limits: limits.clone(),
            shelf: Mutex::default(),
        }
    }

    /// Whether any may.
    pub fn may_begin(&self) -> bool {
        self.limits.max_background_per_key > 0
    }

    /// How long the events of one are there behind its end.
    pub fn events_kept_for(&self) -> Duration {
        self.limits.background_events_kept_for
    }

    /// Takes one of the client's places. Of its responses that have ended as many keep their events.
    ///
    /// # Errors
    ///
    /// There is no place, no memory, or no more time.
    pub fn begin(
        &self,
        client: &ClientKey,
        account: &Account,
        beginning: Beginning,
    ) -> Result<Arc<BackgroundResponse>, RequestError> {
        let most = self.limits.max_background_per_key;
        let mut shelf = self.shelf();
        if shelf.is_closed {
            return Err(RequestError::Generation {
                error: GenerationError::ShuttingDown,
                prompt_param: "",
            });
        }
        let of = shelf.clients.get(client.name());
        let running = of.map_or(0, |of| {
            of.responses.iter().filter(|it| !it.is_over()).count()
        });
        if running >= most {
            return Err(RequestError::TooManyInBackground { most });
        }
        let limit_bytes = self.limits.background_events_limit_bytes;
        let response = Arc::new(BackgroundResponse::new(beginning, account, limit_bytes)?);
        let of = shelf.clients.entry(client.name().into()).or_default();
        of.is_a_key = client.is_a_key();
        of.responses.push_back(Arc::clone(&response));
        let mut ended = of.responses.iter().filter(|it| it.is_over()).count();
        of.responses.retain(|it| {
            let goes = ended > most && it.is_over();
            ended -= usize::from(goes);
            !goes
        });
        Ok(response)
    }

    /// The client's response of this id: it is made, or its events are still there.
    pub fn find(&self, client: &str, id: &str) -> Option<Arc<BackgroundResponse>> {
        let shelf = self.shelf();
        let mut responses = shelf.clients.get(client)?.responses.iter();
        responses.find(|it| it.id == id).map(Arc::clone)
    }

    /// It ends, and is not kept; until then it may be.
    pub fn delete(&self, client: &str, id: &str) -> Option<Arc<BackgroundResponse>> {
        let response = self.take(client, id)?;
        response.delete();
        Some(response)
    }

    /// Its events have been there for long enough.
    pub fn let_go(&self, client: &str, id: &str) {
        drop(self.take(client, id));
    }

    /// What came from a key goes with it. `keys`: the names of those that there are.
    pub fn keep_keys(&self, keys: &HashSet<String>) {
        let mut gone = Vec::new();
        self.shelf().clients.retain(|name, of| {
            let stays = !of.is_a_key || keys.contains(&**name);
            if !stays {
                gone.extend(of.responses.drain(..));
            }
            stays
        });
        for response in gone {
            response.told().is_deleted = true;
            response.wish_end(RequestError::InvalidKey);
        }
    }

    /// Ends all that are made, and lets none begin.
    pub fn close(&self) {
        let mut shelf = self.shelf();
        shelf.is_closed = true;
        for response in shelf.clients.values().flat_map(|of| &of.responses) {
            response.wish_end(RequestError::Generation {
                error: GenerationError::ShuttingDown,
                prompt_param: "",
            });
        }
    }

    fn take(&self, client: &str, id: &str) -> Option<Arc<BackgroundResponse>> {
        let mut shelf = self.shelf();
        let of = shelf.clients.get_mut(client)?;
        let place = of.responses.iter().position(|it| it.id == id)?;
        let taken = of.responses.remove(place);
        if of.responses.is_empty() {
            shelf.clients.remove(client);
        }
        taken
    }

    /// Held for no wait.
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
