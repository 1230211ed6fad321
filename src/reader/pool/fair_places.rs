//! Places for readers at work, given out fairly. A place that becomes free goes to the waiting client
//! that holds the fewest, among those to the one that was served longest ago. So a client holds a
//! second place only while no client waits that holds none, and many calls of one client delay another
//! client by one of them at the most.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::lock;
use crate::generation::ClientKey;

tokio::task_local! {
    static CLIENT: ClientKey;
}

/// Does `work`, whose calls of readers count as this client's.
pub fn on_behalf_of<F: Future>(
    client: ClientKey,
    work: F,
) -> impl Future<Output = F::Output> + use<F> {
    CLIENT.scope(client, work)
}

/// Whose call it is: the daemon's own, where no client has asked for it.
pub(super) fn caller() -> ClientKey {
    CLIENT
        .try_with(Clone::clone)
        .unwrap_or_else(|_| ClientKey::new("the daemon"))
}

#[derive(Debug)]
pub(super) struct FairPlaces {
    claims: Mutex<Claims>,
}

/// Held while a reader works.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<FairPlaces>,
    client: ClientKey,
}

#[derive(Debug)]
struct Claims {
    free: usize,
    taken: usize,
    /// Clients that hold a place or wait for one.
    clients: HashMap<ClientKey, Client>,
    /// In the order in which they came.
    waiting: Vec<Waiting>,
    grants: u64,
    arrivals: u64,
    /// Looks at who waits: what a call costs the others.
    #[cfg(test)]
    looks: u64,
}

#[derive(Debug, Default)]
struct Client {
    holds: usize,
    /// Of its calls, those that wait.
    waits: usize,
    /// The number of its last grant; 0 where it had none.
    last_grant: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    client: ClientKey,
    reply: oneshot::Sender<Place>,
}

impl FairPlaces {
    pub fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            claims: Mutex::new(Claims {
                free: places,
                taken: 0,
                clients: HashMap::new(),
                waiting: Vec::new(),
                grants: 0,
                arrivals: 0,
                #[cfg(test)]
                looks: 0,
            }),
        })
    }

    /// Places that are held now.
    pub fn taken(&self) -> usize {
        lock(&self.claims).taken
    }

    /// Waits for a place. Dropping the future gives up.
    pub async fn acquire(self: &Arc<Self>, client: ClientKey) -> Option<Place> {
        let (reply, granted) = oneshot::channel();
        let number = lock(&self.claims).arrived(client, reply);
        let _gives_up = GivesUp {
            places: self,
            number,
        };
        self.give_out();
        granted.await.ok()
    }

    fn give_out(self: &Arc<Self>) {
        loop {
            // Not in the condition: a place that is dropped takes the lock.
            let next = lock(&self.claims).next();
            let Some(Waiting { client, reply, .. }) = next else {
                return;
            };
            // One that has given up meanwhile drops the place, which is free again.
            let _ = reply.send(Place {
                places: Arc::clone(self),
                client,
            });
        }
    }
}

/// Takes a call out of those that wait, if it still is one of them.
struct GivesUp<'a> {
    places: &'a FairPlaces,
    number: u64,
}

impl Drop for GivesUp<'_> {
    fn drop(&mut self) {
        // Not dropped under the lock.
        let _gone = lock(&self.places.claims).take_out(self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.places.claims).put_back(&self.client);
        self.places.give_out();
    }
}

impl Claims {
    /// Gives the call's number.
    fn arrived(&mut self, client: ClientKey, reply: oneshot::Sender<Place>) -> u64 {
        self.arrivals += 1;
        let number = self.arrivals;
        self.clients.entry(client.clone()).or_default().waits += 1;
        self.waiting.push(Waiting {
            number,
            client,
            reply,
        });
        number
    }

    fn take_out(&mut self, number: u64) -> Option<Waiting> {
        // In the order of their numbers.
        let found = self
            .waiting
            .binary_search_by_key(&number, |waiting| waiting.number);
        let gone = self.waiting.remove(found.ok()?);
        self.changed(&gone.client, |client| client.waits -= 1);
        Some(gone)
    }

    /// A client that neither holds a place nor waits for one is forgotten.
    fn changed(&mut self, name: &ClientKey, change: impl FnOnce(&mut Client)) {
        let Some(client) = self.clients.get_mut(name) else {
            return;
        };
        change(client);
        if client.holds == 0 && client.waits == 0 {
            self.clients.remove(name);
        }
    }

    /// Who gets a place now; counted as held from here on. While no place is free, as in a crowd, no client
    /// is looked at.
    fn next(&mut self) -> Option<Waiting> {
        if self.free == 0 {
            return None;
        }
        #[cfg(test)]
        {
            self.looks += self.waiting.len() as u64;
        }
        let standing = |waiting: &Waiting| {
            let client = self.clients.get(&waiting.client);
            client.map_or((0, 0), |client| (client.holds, client.last_grant))
        };
        let (at, _) = self
            .waiting
            .iter()
            .enumerate()
            .min_by_key(|(at, waiting)| (standing(waiting), *at))?;
        let next = self.waiting.remove(at);
        self.grants += 1;
        self.free -= 1;
        self.taken += 1;
        let client = self.clients.entry(next.client.clone()).or_default();
        client.waits -= 1;
        client.holds += 1;
        client.last_grant = self.grants;
        Some(next)
    }

    fn put_back(&mut self, client: &ClientKey) {
        self.free += 1;
        self.taken -= 1;
        self.changed(client, |client| client.holds -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::task::Poll;

    use super::*;

    type Wait<'a> = Pin<Box<dyn Future<Output = Option<Place>> + 'a>>;

    fn key(name: &str) -> ClientKey {
        ClientKey::new(name)
    }

    fn wait<'a>(places: &'a Arc<FairPlaces>, client: &str) -> Wait<'a> {
        Box::pin(places.acquire(key(client)))
    }

    /// The place, if it has come.
    async fn come(wait: &mut Wait<'_>) -> Option<Place> {
        poll_fn(|cx| match wait.as_mut().poll(cx) {
            Poll::Ready(place) => Poll::Ready(place),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn a_client_holds_a_second_place_only_while_no_other_waits() {
        let places = FairPlaces::new(2);
        let mut greedy: Vec<_> = (0..6).map(|_| wait(&places, "greedy")).collect();
        let first = come(&mut greedy[0]).await.expect("a place");
        let second = come(&mut greedy[1]).await.expect("no other waits");
        for other in &mut greedy[2..] {
            assert!(come(other).await.is_none());
        }
        let mut modest = wait(&places, "modest");
        assert!(come(&mut modest).await.is_none());
        drop(first);
        let held = come(&mut modest).await.expect("before all of the greedy");
        assert!(come(&mut greedy[2]).await.is_none());
        drop(held);
        let third = come(&mut greedy[2]).await.expect("no other waits");
        assert_eq!(places.taken(), 2);
        drop((second, third));
    }

    #[tokio::test]
    async fn clients_take_turns_at_one_place() {
        let places = FairPlaces::new(1);
        let mut waits: Vec<_> = ["a", "a", "a", "b", "b"]
            .into_iter()
            .map(|client| (client, wait(&places, client)))
            .collect();
        let mut order = Vec::new();
        let mut held = None;
        for (_, wait) in &mut waits {
            held = held.or(come(wait).await);
        }
        order.push("a");
        drop(waits.remove(0));
        while !waits.is_empty() {
            drop(held.take());
            for at in 0..waits.len() {
                if let Some(place) = come(&mut waits[at].1).await {
                    held = Some(place);
                    order.push(waits.remove(at).0);
                    break;
                }
            }
        }
        assert_eq!(order, ["a", "b", "a", "b", "a"]);
    }

    #[tokio::test]
    async fn waits_that_are_given_up_cost_no_place() {
        let places = FairPlaces::new(1);
        let mut first = wait(&places, "a");
        let held = come(&mut first).await.expect("a place");
        let mut gone = wait(&places, "b");
        assert!(come(&mut gone).await.is_none());
        let mut granted = wait(&places, "c");
        assert!(come(&mut granted).await.is_none());
        drop(gone);
        drop(held);
        // Granted, and given up before it was looked at.
        drop(granted);
        let mut last = wait(&places, "d");
        assert!(come(&mut last).await.is_some());
        assert_eq!(places.taken(), 0);
        assert!(lock(&places.claims).clients.is_empty());
    }

    #[tokio::test]
    async fn who_comes_into_a_crowd_looks_at_no_other() {
        let places = FairPlaces::new(1);
        let mut first = wait(&places, "first");
        let held = come(&mut first).await.expect("a place");
        let mut crowd: Vec<_> = (0..1000).map(|n| wait(&places, &n.to_string())).collect();
        let looks = lock(&places.claims).looks;
        for one in &mut crowd {
            assert!(come(one).await.is_none());
        }
        assert_eq!(lock(&places.claims).looks, looks, "while they came");
        // Half of them leave, in no order.
        let mut at = 0;
        crowd.retain(|_| {
            at += 1;
            at % 2 == 0
        });
        assert_eq!(lock(&places.claims).looks, looks, "while they left");
        assert_eq!(lock(&places.claims).waiting.len(), 500);
        assert_eq!(lock(&places.claims).clients.len(), 501);
        drop(held);
        assert_eq!(lock(&places.claims).looks, looks + 500, "once for a place");
        drop((first, crowd));
        assert!(lock(&places.claims).clients.is_empty());
        assert_eq!(places.taken(), 0);
    }

    #[tokio::test]
    async fn a_call_is_its_clients_whatever_it_passes() {
        assert_eq!(caller(), key("the daemon"));
        let inner = on_behalf_of(key("a"), async { caller() });
        assert_eq!(inner.await, key("a"));
    }
}
