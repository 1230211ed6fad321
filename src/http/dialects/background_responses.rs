//! Responses that are made whether or not their clients wait, and what their clients have been told so far. A key has a
//! limited number of them at a time. Of those that have ended as many can still be followed, until their time is over.
//!
//! [`BackgroundResponses`] knows no clock; the task that makes a response lets it go when its time is over.

mod line;
mod response;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::generation::{ClientKey, GenerationError};
use crate::http::request::error::RequestError;
use crate::memory::Account;
use crate::settings::ResponseSettings;

use line::Line;
pub(crate) use response::{BackgroundResponse, Beginning, Behind};

/// Those of one client, the oldest one first.
#[derive(Debug, Default)]
struct OfClient {
    is_a_key: bool,
    line: Arc<Line>,
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
    /// There is no place, no memory, or no more time, or its beginning is too large.
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
        if beginning.bytes() > limit_bytes {
            return Err(RequestError::out_of_range(
                "background",
                format!(
                    "repeats its request in each of its first events, for which {limit_bytes} bytes are no room \
                     (`background-events-limit-bytes` in the [responses] settings)"
                ),
            ));
        }
        let line = of.map(|of| Arc::clone(&of.line)).unwrap_or_default();
        let ticket = line.ticket();
        let response = BackgroundResponse::new(beginning, account, limit_bytes, ticket)?;
        let response = Arc::new(response);
        let of = shelf.clients.entry(client.name().into()).or_default();
        of.is_a_key = client.is_a_key();
        of.line = line;
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
        let found = responses.find(|it| it.id == id && !it.is_deleted());
        found.map(Arc::clone)
    }

    /// It ends, and is not kept; until then it may be. One that is still made has its place up to its end, so that no
    /// client has more of them made than it may.
    pub fn delete(&self, client: &str, id: &str) -> Option<Arc<BackgroundResponse>> {
        let response = self.find(client, id)?;
        if response.delete(RequestError::Cancelled) {
            self.let_go(client, id);
        }
        Some(response)
    }

    /// It has ended, and its events have been there for long enough.
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
            response.delete(RequestError::InvalidKey);
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

    /// Waits for the end of all that are there, which are kept by then.
    pub async fn ended(&self) {
        let all: Vec<Arc<BackgroundResponse>> = {
            let shelf = self.shelf();
            let of = shelf.clients.values();
            of.flat_map(|of| &of.responses).map(Arc::clone).collect()
        };
        for response in all {
            response.ended().await;
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
