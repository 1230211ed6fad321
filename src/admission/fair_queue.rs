//! The order in which waiting requests are served. Pure policy: no clock, no lock, no task.
//!
//! Bounded in total; clients take turns, and a client's own requests keep their order. So one
//! client with many requests delays another by at most one of its own at a time.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::Hash;

/// Identifies a waiting entry.
pub type Ticket = u64;

#[derive(Debug)]
pub struct FairQueue<C, T> {
    capacity: usize,
    waiting: HashMap<C, VecDeque<(Ticket, T)>>,
    /// Clients with waiting entries, the next one to be served in front.
    turns: VecDeque<C>,
    length: usize,
    next_ticket: Ticket,
}

impl<C: Clone + Eq + Hash, T> FairQueue<C, T> {
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            length: 0,
            next_ticket: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Changes how many entries may wait. Those that wait already stay.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity;
    }

    /// Adds an entry at the end of its client's line; gives it back when the queue is full.
    pub fn push(&mut self, client: C, entry: T) -> Result<Ticket, T> {
        if self.length >= self.capacity {
            return Err(entry);
        }
        Ok(self.push_again(client, entry))
    }

    /// Adds an entry that was accepted before and has had a turn, however full the queue is.
    pub fn push_again(&mut self, client: C, entry: T) -> Ticket {
        self.next_ticket += 1;
        let line = match self.waiting.entry(client.clone()) {
            Entry::Occupied(line) => line.into_mut(),
            Entry::Vacant(place) => {
                self.turns.push_back(client);
                place.insert(VecDeque::new())
            }
        };
        line.push_back((self.next_ticket, entry));
        self.length += 1;
        self.next_ticket
    }

    /// How many waiting entries are served before one that `client` would add now.
    pub fn ahead_of_next(&self, client: &C) -> usize {
        let own = self.waiting.get(client).map_or(0, VecDeque::len);
        let mut before_it = true;
        let mut ahead = own;
        for other in &self.turns {
            if other == client {
                before_it = false;
                continue;
            }
            // One for each turn of the client's own, and one more where its turn comes first.
            let turns = own + usize::from(before_it);
            let line = self.waiting.get(other).map_or(0, VecDeque::len);
            ahead += line.min(turns);
        }
        ahead
    }

    /// The client whose entry is served next.
    pub fn next_client(&self) -> Option<&C> {
        self.turns.front()
    }

    /// The next entry to serve; its client goes to the end of the turns.
    pub fn pop(&mut self) -> Option<T> {
        let client = self.turns.pop_front()?;
        let line = self.waiting.get_mut(&client)?;
        let (_, entry) = line.pop_front()?;
        self.length -= 1;
        if line.is_empty() {
            self.waiting.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        Some(entry)
    }

    /// Takes an entry out of its line, if it is still waiting.
    pub fn remove(&mut self, client: &C, ticket: Ticket) -> Option<T> {
        let line = self.waiting.get_mut(client)?;
        let at = line.iter().position(|(waiting, _)| *waiting == ticket)?;
        let (_, entry) = line.remove(at)?;
        self.length -= 1;
        self.drop_if_empty(client);
        Some(entry)
    }

    /// Takes out every entry that `condition` holds for.
    pub fn remove_where(&mut self, condition: impl Fn(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        let clients: Vec<C> = self.turns.iter().cloned().collect();
        for client in clients {
            let Some(line) = self.waiting.get_mut(&client) else {
                continue;
            };
            for (ticket, entry) in std::mem::take(line) {
                if condition(&entry) {
                    removed.push(entry);
                } else {
                    line.push_back((ticket, entry));
                }
            }
            self.drop_if_empty(&client);
        }
        self.length -= removed.len();
        removed
    }

    /// All waiting entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.waiting.values().flatten().map(|(_, entry)| entry)
    }

    fn drop_if_empty(&mut self, client: &C) {
        if self.waiting.get(client).is_some_and(VecDeque::is_empty) {
            self.waiting.remove(client);
            self.turns.retain(|waiting| waiting != client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn clients_take_turns() {
        let mut queue = FairQueue::new(8);
        for n in 0..4 {
            queue.push("greedy", n).unwrap();
        }
        queue.push("modest", 100).unwrap();
        let served: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(served, [0, 100, 1, 2, 3]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(u8),
        Pop,
        Remove(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u8..4).prop_map(Step::Push),
            2 => Just(Step::Pop),
            1 => (0usize..8).prop_map(Step::Remove),
        ]
    }

    proptest! {
        #[test]
        fn as_many_are_served_before_an_entry_as_was_said(before in prop::collection::vec(0u8..4, 0..20), pops in 0usize..6, client in 0u8..4) {
            let mut queue = FairQueue::new(32);
            for waiting in before {
                queue.push(waiting, "other").unwrap();
            }
            for _ in 0..pops {
                queue.pop();
            }
            let said = queue.ahead_of_next(&client);
            queue.push(client, "this").unwrap();
            let served = std::iter::from_fn(|| queue.pop()).position(|entry| entry == "this");
            prop_assert_eq!(served, Some(said));
        }

        #[test]
        fn nothing_is_lost_reordered_within_a_client_or_over_capacity(steps in prop::collection::vec(step(), 0..60)) {
            let mut queue = FairQueue::new(5);
            // Ticket, client, number; in the order of arrival.
            let mut expected: Vec<(Ticket, u8, u32)> = Vec::new();
            let mut passed_over: HashMap<u8, usize> = HashMap::new();
            for (number, step) in (0u32..).zip(steps) {
                match step {
                    Step::Push(client) => match queue.push(client, number) {
                        Ok(ticket) => expected.push((ticket, client, number)),
                        Err(back) => {
                            prop_assert_eq!(back, number);
                            prop_assert_eq!(expected.len(), 5);
                        }
                    },
                    Step::Pop => {
                        let served = queue.pop();
                        let Some(served) = served else {
                            prop_assert!(expected.is_empty());
                            continue;
                        };
                        let at = expected.iter().position(|e| e.2 == served).unwrap();
                        let (_, client, _) = expected[at];
                        prop_assert!(expected[..at].iter().all(|e| e.1 != client), "order within a client");
                        expected.remove(at);
                        passed_over.remove(&client);
                        let mut others: Vec<u8> = expected.iter().map(|e| e.1).filter(|c| *c != client).collect();
                        others.sort_unstable();
                        others.dedup();
                        for other in others {
                            let times = passed_over.entry(other).or_default();
                            *times += 1;
                            prop_assert!(*times <= 4, "no client waits for more turns than there are other clients");
                        }
                    }
                    Step::Remove(nth) => {
                        if let Some(&(ticket, client, number)) = expected.get(nth) {
                            prop_assert_eq!(queue.remove(&client, ticket), Some(number));
                            prop_assert_eq!(queue.remove(&client, ticket), None);
                            expected.remove(nth);
                            if !expected.iter().any(|e| e.1 == client) {
                                passed_over.remove(&client);
                            }
                        }
                    }
                }
                prop_assert_eq!(queue.len(), expected.len());
            }
        }
    }
}
