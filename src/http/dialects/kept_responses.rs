//! Responses that are kept in memory so that requests can go on from them. What is kept is its client's alone, and
//! bounded in number by client, in bytes over all of them, and in age. Each response counts with the whole
//! conversation that it goes on from, so none depends on another's being kept. On disk, if settings have it so, is what
//! is in memory, and a response is there before it is in memory.
//!
//! [`Shelf`] decides, without a clock; [`KeptResponses`] has the lock, which is held for no wait.

mod disk;
mod file;
mod found;
mod moment;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::disk::Disk;
use super::kept_items::Item;
use super::named_items::NamedItems;
use crate::auth::CurrentKeys;
use crate::generation::ClientKey;
use crate::settings::ResponseSettings;

/// What a response takes beside its texts and those of its conversation.
const RESPONSE_BYTES: usize = 256;

/// A response, and what it goes on from.
#[derive(Debug)]
pub(crate) struct KeptResponse {
    pub id: String,
    /// The resource, as its client got it.
    pub json: Bytes,
    /// The conversation with its answer, but for instructions, which hold for one request.
    pub items: Vec<Arc<Item>>,
    /// Of `items`, so many were there before the answer.
    pub asked: usize,
    /// Whether requests may go on from it: it has an answer, be that cut.
    pub is_answered: bool,
    /// Whether it was made in the background.
    pub is_background: bool,
}

impl KeptResponse {
    /// About so many bytes are held.
    pub fn bytes(&self) -> usize {
        let items: usize = self.items.iter().map(|item| item.bytes()).sum();
        RESPONSE_BYTES + self.id.len() + self.json.len() + items
    }

    fn may_be_kept(&self, limits: &ResponseSettings) -> bool {
        limits.max_kept_per_key > 0 && self.bytes() <= limits.kept_limit_bytes
    }
}

/// What is kept, in the order of its age.
#[derive(Debug, Default)]
struct Shelf {
    clients: HashMap<Arc<str>, OfClient>,
    bytes: usize,
    /// What is kept no more, until its memory is given back.
    gone: Vec<Entry>,
}

#[derive(Debug, Default)]
struct OfClient {
    is_a_key: bool,
    responses: VecDeque<Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    client: Arc<str>,
    response: Arc<KeptResponse>,
    bytes: usize,
    kept_at: Instant,
}

impl Shelf {
    /// Whether it is kept: one that is larger than all that may be is not.
    fn keep(
        &mut self,
        client: &ClientKey,
        response: impl Into<Arc<KeptResponse>>,
        limits: &ResponseSettings,
        now: Instant,
    ) -> bool {
        let (client, is_a_key, response) = (client.name(), client.is_a_key(), response.into());
        self.forget_older(limits.kept_for, now);
        if !response.may_be_kept(limits) {
            return false;
        }
        let bytes = response.bytes();
        while self.count(client) >= limits.max_kept_per_key {
            self.forget_oldest_of(client);
        }
        while self.bytes + bytes > limits.kept_limit_bytes {
            let most = self.clients.iter().max_by_key(|(_, of)| of.bytes);
            let Some((most, _)) = most else {
                break;
            };
            let most = Arc::clone(most);
            self.forget_oldest_of(&most);
        }
        self.bytes += bytes;
        let client: Arc<str> = client.into();
        let of = self.clients.entry(Arc::clone(&client)).or_default();
        of.is_a_key = is_a_key;
        of.bytes += bytes;
        of.responses.push_back(Entry {
            client,
            response,
            bytes,
            kept_at: now,
        });
        true
    }

    fn find(
        &mut self,
        client: &str,
        id: &str,
        kept_for: Duration,
        now: Instant,
    ) -> Option<Arc<KeptResponse>> {
        self.forget_older(kept_for, now);
        let mut responses = self.clients.get(client)?.responses.iter();
        let found = responses.find(|entry| entry.response.id == id)?;
        Some(Arc::clone(&found.response))
    }

    fn of_client(
        &mut self,
        client: &str,
        kept_for: Duration,
        now: Instant,
    ) -> Vec<Arc<KeptResponse>> {
        self.forget_older(kept_for, now);
        let responses = self.clients.get(client).map(|of| of.responses.iter());
        let responses = responses.into_iter().flatten();
        responses.map(|entry| Arc::clone(&entry.response)).collect()
    }

    fn forget(&mut self, client: &str, id: &str, kept_for: Duration, now: Instant) {
        self.forget_older(kept_for, now);
        let Some(of) = self.clients.get_mut(client) else {
            return;
        };
        let place = of.responses.iter().position(|it| it.response.id == id);
        let gone = place.and_then(|place| of.responses.remove(place));
        self.is_gone(client, gone);
    }

    fn keep_keys(&mut self, keys: &HashSet<String>) {
        let (bytes, gone) = (&mut self.bytes, &mut self.gone);
        self.clients.retain(|name, of| {
            let stays = !of.is_a_key || keys.contains(&**name);
            if !stays {
                *bytes -= of.bytes;
                gone.extend(of.responses.drain(..));
            }
            stays
        });
    }

    fn count(&self, client: &str) -> usize {
        self.clients.get(client).map_or(0, |of| of.responses.len())
    }

    fn forget_oldest_of(&mut self, client: &str) {
        let of = self.clients.get_mut(client);
        let gone = of.and_then(|of| of.responses.pop_front());
        self.is_gone(client, gone);
    }

    fn is_gone(&mut self, client: &str, gone: Option<Entry>) {
        let bytes = gone.as_ref().map_or(0, |gone| gone.bytes);
        self.gone.extend(gone);
        self.bytes -= bytes;
        if let Some(of) = self.clients.get_mut(client) {
            of.bytes -= bytes;
            if of.responses.is_empty() {
                self.clients.remove(client);
            }
        }
    }

    fn forget_older(&mut self, kept_for: Duration, now: Instant) {
        let (bytes, gone) = (&mut self.bytes, &mut self.gone);
        let is_old = |entry: &mut Entry| now.saturating_duration_since(entry.kept_at) >= kept_for;
        self.clients.retain(|_, of| {
            while let Some(oldest) = of.responses.pop_front_if(is_old) {
                of.bytes -= oldest.bytes;
                *bytes -= oldest.bytes;
                gone.push(oldest);
            }
            !of.responses.is_empty()
        });
    }
}

/// What is kept for all clients.
pub(crate) struct KeptResponses {
    limits: ResponseSettings,
    shelf: Mutex<Shelf>,
    /// `None`: in memory alone.
    disk: Option<Disk>,
    /// Those that count now: what a request of another is answered is not kept.
    keys: CurrentKeys,
}

impl KeptResponses {
    pub fn new(limits: &ResponseSettings) -> Self {
        Self {
            limits: limits.clone(),
            shelf: Mutex::default(),
            disk: None,
            keys: CurrentKeys::default(),
        }
    }

    /// The same for clients who have these keys.
    #[must_use]
    pub fn with_keys(self, keys: CurrentKeys) -> Self {
        Self { keys, ..self }
    }

    /// As the settings have it, with what is there from before. To be called before anything is served, so that nothing
    /// is held up. `state_folder`: where this daemon, and no other, may write.
    pub fn of_folder(limits: &ResponseSettings, state_folder: Option<&Path>) -> Self {
        if !limits.keep_on_disk {
            if let Some(folder) = state_folder {
                found::clear(folder, limits);
            }
            return Self::new(limits);
        }
        let kept = Self {
            disk: Some(Disk::new(state_folder)),
            ..Self::new(limits)
        };
        let found = state_folder.map(|folder| found::read(folder, limits));
        let now = Instant::now();
        let mut refused = Vec::new();
        // All at once, so that what has no room goes at once.
        kept.with_shelf(|shelf| {
            for (response, whose, age) in found.into_iter().flatten() {
                let client = ClientKey::new(whose.client.as_str());
                let client = match whose.is_a_key {
                    true => client.of_tenant(""),
                    false => client,
                };
                let (id, kept_at) = (response.id.clone(), now.checked_sub(age).unwrap_or(now));
                if !shelf.keep(&client, response, limits, kept_at) {
                    refused.push((whose.client.into(), id));
                }
            }
        });
        kept.forget_on_disk(refused);
        kept
    }

    /// Whether any is.
    pub fn keeps(&self) -> bool {
        self.limits.max_kept_per_key > 0
    }

    /// How many could not be written to disk.
    pub fn disk_failures(&self) -> Option<u64> {
        self.disk.as_ref().map(Disk::failures)
    }

    /// Keeps a response, which others may have to go for. On disk it is once this returns; until then this thread's other
    /// work goes on elsewhere. False: it is too large, the disk has not taken it, or its key has gone.
    pub fn keep(&self, client: &ClientKey, response: KeptResponse) -> bool {
        if !response.may_be_kept(&self.limits) || self.has_lost_its_key(client) {
            return false;
        }
        let response = Arc::new(response);
        if let Some(disk) = &self.disk
            && !disk.write(client, &response)
        {
            return false;
        }
        let now = Instant::now();
        let id = response.id.clone();
        let is_kept = self.with_shelf(|shelf| {
            // Looked at here: once a key has gone, what it has on the shelf goes, and nothing comes behind that.
            !self.has_lost_its_key(client) && shelf.keep(client, response, &self.limits, now)
        });
        if !is_kept {
            self.forget_on_disk(vec![(client.name().into(), id)]);
        }
        is_kept
    }

    /// Its request was let in with a key that counts no more.
    fn has_lost_its_key(&self, client: &ClientKey) -> bool {
        let keyring = self.keys.get().filter(|_| client.is_a_key());
        keyring.is_some_and(|keyring| !keyring.has_client(client.name()))
    }

    /// The client's response of this id.
    pub fn find(&self, client: &str, id: &str) -> Option<Arc<KeptResponse>> {
        let now = Instant::now();
        self.with_shelf(|shelf| shelf.find(client, id, self.limits.kept_for, now))
    }

    /// What the client may name of its responses.
    pub fn named_items(&self, client: &str) -> NamedItems {
        let now = Instant::now();
        let kept = self.with_shelf(|shelf| shelf.of_client(client, self.limits.kept_for, now));
        NamedItems::of(kept)
    }

    pub fn forget(&self, client: &str, id: &str) {
        let now = Instant::now();
        self.with_shelf(|shelf| shelf.forget(client, id, self.limits.kept_for, now));
    }

    /// Forgets a response for good.
    ///
    /// # Errors
    ///
    /// It could not be removed from disk, and is kept.
    pub async fn delete(&self, client: &str, id: &str) -> io::Result<()> {
        if let Some(disk) = &self.disk {
            disk.delete(client, id).await?;
        }
        self.forget(client, id);
        Ok(())
    }

    /// What came from a key goes with it. `keys`: the names of those that there are.
    pub fn keep_keys(&self, keys: &HashSet<String>) {
        self.with_shelf(|shelf| shelf.keep_keys(keys));
    }

    /// The lock is held for a few instructions: what is kept no more gives its memory back without it.
    fn with_shelf<T>(&self, work: impl FnOnce(&mut Shelf) -> T) -> T {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let made = work(&mut shelf);
        let gone = std::mem::take(&mut shelf.gone);
        drop(shelf);
        if self.disk.is_some() {
            let of = |gone: &Entry| (Arc::clone(&gone.client), gone.response.id.clone());
            self.forget_on_disk(gone.iter().map(of).collect());
        }
        drop(gone);
        made
    }

    fn forget_on_disk(&self, gone: Vec<(Arc<str>, String)>) {
        if let Some(disk) = &self.disk {
            disk.forget(gone);
        }
    }
}

#[cfg(test)]
mod tests;
