//! Whose turn it is among clients that wait for workers. Pure: no clock, no lock, no task.
//!
//! A turn is a lease. A client that has fewer of them now, for its weight, comes before one that has more,
//! so that a client with many handles gets no more of a scarce place than one with a chat; where there is room
//! nothing is held back. Clients that have equally many stand in a line: a client joins it when it
//! asks, and again at its end when its turn is over. So a client that asks again only after its
//! answer is not behind what another one has had waiting meanwhile.

use std::collections::HashMap;

use crate::generation::ClientKey;

/// A turn of a client of weight 1, so that it can be divided by any weight.
const SCALE: u64 = 1 << 16;

/// Where a request stands; the least one is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing {
    /// Turns that its client has or has asked for before it, for its weight.
    turns: u64,
    /// Since when the client stands in line.
    since: u64,
    arrival: u64,
}

/// A request that waits. Arrivals and ends of turns are counted by one counter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting<'a> {
    pub arrival: u64,
    pub client: &'a ClientKey,
}

/// Whose lease it is: a worker's process, and which of its slots.
pub(super) type LeasedSlot = (u32, u8);

#[derive(Debug, Default)]
pub(super) struct ClientTurns {
    /// The client of each lease.
    taken: HashMap<LeasedSlot, ClientKey>,
    /// When the last turn of a client ended that had more requests waiting.
    ended: HashMap<ClientKey, u64>,
}

impl ClientTurns {
    /// Where each of `waiting` stands; they are in the order in which they came.
    pub fn standings(&self, waiting: &[Waiting<'_>]) -> Vec<Standing> {
        let mut turns: HashMap<&ClientKey, u64> = HashMap::new();
        for client in self.taken.values() {
            *turns.entry(client).or_default() += 1;
        }
        let mut standings = Vec::with_capacity(waiting.len());
        for Waiting { arrival, client } in waiting {
            let turns = turns.entry(client).or_default();
            let ended = self.ended.get(client);
            standings.push(Standing {
                turns: *turns * SCALE / u64::from(client.weight().get()),
                since: ended.map_or(*arrival, |ended| *arrival.max(ended)),
                arrival: *arrival,
            });
            *turns += 1;
        }
        standings
    }

    pub fn begun(&mut self, lease: LeasedSlot, client: ClientKey) {
        self.taken.insert(lease, client);
    }

    /// It turned out to be another client's, if it has not ended by now.
    pub fn used_for(&mut self, lease: LeasedSlot, client: ClientKey) {
        if let Some(taken) = self.taken.get_mut(&lease) {
            *taken = client;
        }
    }

    /// The lease was given back or lost. `waits`: whether this client has more requests waiting.
    pub fn ended(&mut self, lease: LeasedSlot, now: u64, waits: impl Fn(&ClientKey) -> bool) {
        if let Some(client) = self.taken.remove(&lease) {
            self.ended.insert(client, now);
        }
        self.ended.retain(|client, _| waits(client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(name: usize) -> ClientKey {
        ClientKey::new(name.to_string())
    }

    /// Clients that each keep so many requests waiting or served, on so many places.
    struct Model {
        turns: ClientTurns,
        clock: u64,
        waiting: Vec<(u64, usize)>,
        running: Vec<(u32, usize)>,
        served: Vec<usize>,
        /// Who was served, in order.
        log: Vec<usize>,
    }

    impl Model {
        fn new(clients: usize) -> Self {
            Self {
                turns: ClientTurns::default(),
                clock: 0,
                waiting: Vec::new(),
                running: Vec::new(),
                served: vec![0; clients],
                log: Vec::new(),
            }
        }

        fn ask(&mut self, who: usize) {
            self.clock += 1;
            self.waiting.push((self.clock, who));
        }

        /// Grants one turn if a place is free.
        fn grant(&mut self, places: usize) -> bool {
            if self.running.len() >= places {
                return false;
            }
            let keys: Vec<_> = self.waiting.iter().map(|(_, who)| client(*who)).collect();
            let waiting: Vec<_> = self
                .waiting
                .iter()
                .zip(&keys)
                .map(|((arrival, _), client)| Waiting {
                    arrival: *arrival,
                    client,
                })
                .collect();
            let standings = self.turns.standings(&waiting);
            let Some((at, _)) = standings.iter().enumerate().min_by_key(|(_, it)| **it) else {
                return false;
            };
            let (_, who) = self.waiting.remove(at);
            let pid = u32::try_from(self.log.len()).unwrap();
            self.turns.begun((pid, 0), client(who));
            self.running.push((pid, who));
            self.log.push(who);
            true
        }

        /// Ends a turn. Its client asks again only then.
        fn end(&mut self, nth: usize) {
            let (pid, who) = self.running.remove(nth);
            self.clock += 1;
            let waiting = &self.waiting;
            self.turns.ended((pid, 0), self.clock, |key| {
                waiting.iter().any(|(_, who)| client(*who) == *key)
            });
            self.served[who] += 1;
        }
    }

    #[test]
    fn a_client_with_four_handles_and_one_with_a_chat_alternate() {
        let mut model = Model::new(2);
        for _ in 0..4 {
            model.ask(0);
        }
        model.ask(1);
        for _ in 0..50 {
            model.grant(1);
            let who = model.running[0].1;
            model.end(0);
            // The next place is given before the client has read its answer and asks again.
            model.grant(1);
            model.ask(who);
        }
        let pairs = model.log[1..].windows(2);
        assert!(pairs.clone().count() > 40);
        for pair in pairs {
            assert_ne!(pair[0], pair[1], "{:?}", model.log);
        }
    }

    #[test]
    fn a_client_of_weight_three_has_three_turns_where_another_has_one() {
        let weight = crate::generation::Weight::try_from(3).unwrap();
        let clients = [client(0), ClientKey::of_weight("heavy", weight)];
        let mut turns = ClientTurns::default();
        let waiting: Vec<_> = (0..16)
            .map(|arrival| Waiting {
                arrival,
                client: &clients[arrival as usize % 2],
            })
            .collect();
        let mut order: Vec<_> = turns
            .standings(&waiting)
            .into_iter()
            .zip(&waiting)
            .collect();
        order.sort_by_key(|(standing, _)| *standing);
        let heavy = |it: &(Standing, &Waiting<'_>)| *it.1.client == clients[1];
        assert_eq!(order[..8].iter().filter(|it| heavy(it)).count(), 6);
        // What it has counts as well.
        for pid in 0..3 {
            turns.begun((pid, 0), clients[1].clone());
        }
        let standings = turns.standings(&waiting);
        let first = standings
            .into_iter()
            .zip(&waiting)
            .min_by_key(|(standing, _)| *standing);
        assert!(first.is_some_and(|(_, first)| *first.client == clients[0]));
    }

    #[test]
    fn where_there_is_room_nothing_is_held_back() {
        let mut model = Model::new(1);
        for _ in 0..4 {
            model.ask(0);
        }
        for _ in 0..4 {
            assert!(model.grant(4));
        }
    }

    proptest! {
        /// Whatever the clients have waiting: with as many of one turn after the other as there are
        /// clients, each has had at least about its share.
        #[test]
        fn clients_that_always_wait_share_alike(
            depths in prop::collection::vec(1usize..6, 2..5),
            places in 1usize..3,
            order in prop::collection::vec(any::<prop::sample::Index>(), 200),
        ) {
            let mut model = Model::new(depths.len());
            for (who, depth) in depths.iter().enumerate() {
                // One that waits for each place, so that a client is never out of line.
                for _ in 0..depth + places {
                    model.ask(who);
                }
            }
            for nth in order {
                while model.grant(places) {}
                let nth = nth.index(model.running.len());
                let who = model.running[nth].1;
                model.end(nth);
                model.ask(who);
            }
            // Places that are held for long count as turns, too.
            let most = model.served.iter().max().unwrap();
            let least = model.served.iter().min().unwrap();
            prop_assert!(*least > 0);
            if places == 1 {
                prop_assert!(most - least <= 1, "{:?}", model.served);
            }
        }

        #[test]
        fn what_is_remembered_is_bounded_by_what_waits(
            steps in prop::collection::vec((0usize..50, any::<bool>()), 1..100),
        ) {
            let mut model = Model::new(50);
            for (who, ends) in steps {
                model.ask(who);
                model.grant(2);
                if ends && !model.running.is_empty() {
                    model.end(0);
                }
                prop_assert!(model.turns.ended.len() <= model.waiting.len() + 1);
                prop_assert!(model.turns.taken.len() <= 2);
            }
        }
    }
}
