//! Responses that are kept in memory so that requests can go on from them. What is kept is its client's alone, and
//! bounded in number by client, in bytes over all of them, and in age. Each response counts with the whole
//! conversation that it goes on from, so none depends on another's being kept.
//!
//! [`Shelf`] decides, without a clock; [`KeptResponses`] has the lock, which is held for no wait.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::kept_items::Item;
use super::named_items::NamedItems;
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
    response: Arc<KeptResponse>,
    bytes: usize,
    kept_at: Instant,
}

impl Shelf {
    /// Whether it is kept: one that is larger than all that may be is not.
    fn keep(
        &mut self,
        client: &ClientKey,
        response: KeptResponse,
        limits: &ResponseSettings,
        now: Instant,
    ) -> bool {
        let (client, is_a_key) = (client.name(), client.is_a_key());
        self.forget_older(limits.kept_for, now);
        let bytes = response.bytes();
        if limits.max_kept_per_key == 0 || bytes > limits.kept_limit_bytes {
            return false;
        }
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
        let of = self.clients.entry(client.into()).or_default();
        of.is_a_key = is_a_key;
        of.bytes += bytes;
        of.responses.push_back(Entry {
            response: Arc::new(response),
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
#[derive(Debug)]
pub(crate) struct KeptResponses {
    limits: ResponseSettings,
    shelf: Mutex<Shelf>,
}

impl KeptResponses {
    pub fn new(limits: &ResponseSettings) -> Self {
        Self {
            limits: limits.clone(),
            shelf: Mutex::default(),
        }
    }

    /// Whether any is.
    pub fn keeps(&self) -> bool {
        self.limits.max_kept_per_key > 0
    }

    /// Keeps a response, which others may have to go for. False: it is too large.
    pub fn keep(&self, client: &ClientKey, response: KeptResponse) -> bool {
        let now = Instant::now();
        self.with_shelf(|shelf| shelf.keep(client, response, &self.limits, now))
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
        drop(gone);
        made
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FOR: Duration = Duration::from_secs(100);

    fn response(id: usize, json_bytes: usize) -> KeptResponse {
        KeptResponse {
            id: format!("resp_{id}"),
            json: vec![b'x'; json_bytes].into(),
            items: Vec::new(),
            asked: 0,
            is_answered: true,
            is_background: false,
        }
    }

    fn limits(count: usize, bytes: usize) -> ResponseSettings {
        ResponseSettings {
            max_kept_per_key: count,
            kept_limit_bytes: bytes,
            kept_for: FOR,
            ..ResponseSettings::default()
        }
    }

    #[test]
    fn a_response_is_its_clients_alone_and_grows_old() {
        let (mut shelf, start) = (Shelf::default(), Instant::now());
        let limits = limits(2, 1 << 20);
        shelf.keep(&ClientKey::new("a"), response(1, 10), &limits, start);
        let at = |shelf: &mut Shelf, client: &str, seconds| {
            let now = start + Duration::from_secs(seconds);
            shelf.find(client, "resp_1", FOR, now).is_some()
        };
        let is_empty = |shelf: &Shelf| shelf.bytes == 0 && shelf.clients.is_empty();
        assert!(at(&mut shelf, "a", 99) && !at(&mut shelf, "b", 0));
        shelf.forget("b", "resp_1", FOR, start);
        assert!(at(&mut shelf, "a", 0));
        shelf.forget("a", "resp_1", FOR, start);
        assert!(!at(&mut shelf, "a", 0) && is_empty(&shelf));
        // Whoever comes next, what is old goes.
        shelf.keep(&ClientKey::new("a"), response(1, 10), &limits, start);
        assert!(!at(&mut shelf, "b", 100) && is_empty(&shelf));
        shelf.keep(&ClientKey::new("a"), response(1, 10), &limits, start);
        shelf.forget("b", "resp_1", FOR, start + FOR);
        assert!(is_empty(&shelf));
    }

    #[test]
    fn what_came_from_a_key_goes_with_it() {
        let (mut shelf, now) = (Shelf::default(), Instant::now());
        let limits = limits(2, 1 << 20);
        let key = |name: &str| ClientKey::new(name).of_tenant("");
        for (id, client) in [key("one"), key("other"), ClientKey::new("address")]
            .iter()
            .enumerate()
        {
            shelf.keep(client, response(id, 10), &limits, now);
        }
        shelf.keep_keys(&HashSet::from(["other".to_owned()]));
        let mut has = |client: &str, id: &str| shelf.find(client, id, FOR, now).is_some();
        assert!(!has("one", "resp_0") && has("other", "resp_1") && has("address", "resp_2"));
        let bytes: usize = shelf.clients.values().map(|of| of.bytes).sum();
        assert_eq!(shelf.bytes, bytes);
    }

    #[test]
    fn who_has_the_most_makes_place() {
        let (mut shelf, now) = (Shelf::default(), Instant::now());
        let limits = limits(100, 4096);
        shelf.keep(&ClientKey::new("small"), response(1, 10), &limits, now);
        for id in 2..20 {
            shelf.keep(&ClientKey::new("large"), response(id, 1000), &limits, now);
        }
        let mut has = |client: &str, id: &str| shelf.find(client, id, FOR, now).is_some();
        assert!(has("small", "resp_1"));
        assert!(has("large", "resp_19") && !has("large", "resp_2"));
    }

    proptest! {
        #[test]
        fn no_bound_is_passed_and_the_newest_is_there(
            kept in prop::collection::vec((0..3usize, 0..3000usize, 0..40u64), 1..60),
            count in 0..5usize,
        ) {
            let (mut shelf, mut now) = (Shelf::default(), Instant::now());
            let limits = limits(count, 8192);
            for (id, (client, bytes, seconds)) in kept.into_iter().enumerate() {
                now += Duration::from_secs(seconds);
                let client = ["a", "b", "c"][client];
                shelf.keep(&ClientKey::new(client), response(id, bytes), &limits, now);
                let found = shelf.find(client, &format!("resp_{id}"), FOR, now);
                prop_assert_eq!(found.is_some(), count > 0);
                prop_assert!(shelf.bytes <= limits.kept_limit_bytes);
                let mut bytes = 0;
                for of in shelf.clients.values() {
                    prop_assert!(of.responses.len() <= count && !of.responses.is_empty());
                    let own: usize = of.responses.iter().map(|entry| entry.bytes).sum();
                    prop_assert_eq!(own, of.bytes);
                    let is_old = |entry: &Entry| now - entry.kept_at >= FOR;
                    prop_assert!(!of.responses.iter().any(is_old));
                    bytes += own;
                }
                prop_assert_eq!(bytes, shelf.bytes);
            }
        }
    }
}
