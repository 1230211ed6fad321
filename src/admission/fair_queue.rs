//! The order in which waiting requests are served. Pure policy: no clock, no lock, no task.
//!
//! Bounded in total, and a client's own requests keep their order. Clients share what is served by their
//! weights: each has a tally of what it was served, divided by its weight, and the one with the least is
//! next. What a request costs is known when it is over; until then it counts as much as requests do on
//! average. A client that comes, or comes back, begins where the others are: nothing is saved up. So one
//! client with many requests delays another by at most one of its own at a time.

mod tally;

use std::collections::hash_map::HashMap;
use std::collections::{BTreeMap, VecDeque};
use std::hash::Hash;

use tally::{Charged, Tally};

/// Identifies a waiting entry.
pub type Ticket = u64;

/// A unit of cost adds so much to the tally of a client of weight 1.
const SCALE: u64 = 1 << 16;
/// Weight of the newest cost in the average.
const NEWEST: f64 = 0.2;
/// Tallies of clients without a request that are kept, beside as many as others have.
const KEPT: usize = 64;

/// Where a client stands: its tally, and of equal ones whose turn was longer ago.
type Standing = (u64, u64);

#[derive(Debug)]
struct Account<T> {
    line: VecDeque<(Ticket, T)>,
    weight: u32,
    tally: Tally,
    /// When it had its last turn.
    since: u64,
    /// Requests that were taken out and whose cost is not known yet.
    running: usize,
}

impl<T> Account<T> {
    fn is_here(&self) -> bool {
        !self.line.is_empty() || self.running > 0
    }

    fn standing(&self) -> Standing {
        (self.tally.now(), self.since)
    }
}

/// What a request counts as until its cost is known.
#[derive(Debug)]
#[must_use = "its client has been charged, and the cost is to be put right"]
pub struct Charge<C> {
    client: C,
    cost: u64,
    charged: Charged,
}

#[derive(Debug)]
pub struct FairQueue<C, T> {
    capacity: usize,
    clients: HashMap<C, Account<T>>,
    /// The clients with waiting entries.
    order: BTreeMap<Standing, C>,
    length: usize,
    running: usize,
    next_ticket: Ticket,
    /// Turns so far.
    turns: u64,
    /// The tally of the client that was served last, before it was.
    reached: u64,
    average_cost: Option<f64>,
}

impl<C: Clone + Eq + Hash, T> FairQueue<C, T> {
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            clients: HashMap::new(),
            order: BTreeMap::new(),
            length: 0,
            running: 0,
            next_ticket: 0,
            turns: 0,
            reached: 0,
            average_cost: None,
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

    /// Adds an entry at the end of the line of its client, which has this weight now; gives it back when
    /// the queue is full.
    pub fn push(&mut self, client: C, weight: u32, entry: T) -> Result<Ticket, T> {
        if self.length >= self.capacity {
            return Err(entry);
        }
        Ok(self.push_again(client, weight, entry))
    }

    /// Adds an entry that was accepted before and has had a turn, however full the queue is.
    pub fn push_again(&mut self, client: C, weight: u32, entry: T) -> Ticket {
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let begins_at = self.begins_at();
        let account = self.clients.entry(client.clone()).or_insert(Account {
            line: VecDeque::new(),
            weight,
            tally: Tally::from(begins_at),
            since: 0,
            running: 0,
        });
        account.weight = weight.max(1);
        if account.line.is_empty() {
            self.turns += 1;
            account.tally.comes_back(begins_at);
            account.since = self.turns;
            self.order.insert(account.standing(), client);
        }
        account.line.push_back((ticket, entry));
        self.length += 1;
        ticket
    }

    /// How many waiting entries are served before one that `client` would add now, if all cost as much
    /// as they do on average.
    pub fn ahead_of_next(&self, client: &C, weight: u32) -> usize {
        let account = self.clients.get(client);
        let own = account.map_or(0, |account| account.line.len());
        let (tally, since) = match account {
            Some(account) if own > 0 => account.standing(),
            Some(account) => (account.tally.now().max(self.begins_at()), u64::MAX),
            None => (self.begins_at(), u64::MAX),
        };
        let this = NthEntry {
            step: self.step(weight),
            standing: (tally, since),
            nth: own as u64,
        };
        let others = self.order.iter().filter(|(_, other)| *other != client);
        others.fold(own, |ahead, (&standing, other)| {
            let Some(account) = self.clients.get(other) else {
                return ahead;
            };
            let step = self.step(account.weight);
            let at = |nth| NthEntry {
                step,
                standing,
                nth,
            };
            // All before this one in tally, and perhaps the one that has the same.
            let before = this.tally().saturating_sub(standing.0).div_ceil(step);
            let ties = at(before).is_before(&this);
            let before = usize::try_from(before + u64::from(ties)).unwrap_or(usize::MAX);
            ahead + account.line.len().min(before)
        })
    }

    /// The entry that is served next, and its client.
    pub fn next(&self) -> Option<(&C, &T)> {
        let client = self.order.values().next()?;
        let (_, entry) = self.clients.get(client)?.line.front()?;
        Some((client, entry))
    }

    /// The next entry to serve, and what it counts as until `settle`.
    pub fn pop(&mut self) -> Option<(T, Charge<C>)> {
        let (standing, client) = self.order.pop_first()?;
        let cost = self.expected_cost();
        let account = self.clients.get_mut(&client)?;
        let (_, entry) = account.line.pop_front()?;
        self.length -= 1;
        self.running += 1;
        self.turns += 1;
        self.reached = self.reached.max(standing.0);
        account.running += 1;
        account.since = self.turns;
        let charged = account.tally.charge(tally_of(cost, account.weight));
        if !account.line.is_empty() {
            self.order.insert(account.standing(), client.clone());
        }
        let charge = Charge {
            client,
            cost,
            charged,
        };
        Some((entry, charge))
    }

    /// What was taken out is over. `cost`: what it was in truth; `None`: not known.
    pub fn settle(&mut self, charge: Charge<C>, cost: Option<u64>) {
        let Charge {
            client,
            cost: expected,
            charged,
        } = charge;
        self.running = self.running.saturating_sub(1);
        let cost = cost.unwrap_or(expected);
        let newest = cost as f64;
        self.average_cost = Some(match self.average_cost {
            Some(average) => average + NEWEST * (newest - average),
            None => newest,
        });
        if let Some(account) = self.clients.get_mut(&client) {
            account.running = account.running.saturating_sub(1);
            let before = account.standing();
            account
                .tally
                .settle(charged, tally_of(cost, account.weight));
            if !account.line.is_empty() {
                self.order.remove(&before);
                self.order.insert(account.standing(), client);
            }
        }
        self.forget();
    }

    /// Takes an entry out of its line, if it is still waiting.
    pub fn remove(&mut self, client: &C, ticket: Ticket) -> Option<T> {
        let line = &mut self.clients.get_mut(client)?.line;
        let at = line.iter().position(|(waiting, _)| *waiting == ticket)?;
        let (_, entry) = line.remove(at)?;
        self.length -= 1;
        self.leave_if_empty(client);
        Some(entry)
    }

    /// Takes out every entry that `condition` holds for.
    pub fn remove_where(&mut self, condition: impl Fn(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        let clients: Vec<C> = self.order.values().cloned().collect();
        for client in clients {
            let Some(account) = self.clients.get_mut(&client) else {
                continue;
            };
            for (ticket, entry) in std::mem::take(&mut account.line) {
                if condition(&entry) {
                    removed.push(entry);
                } else {
                    account.line.push_back((ticket, entry));
                }
            }
            self.leave_if_empty(&client);
        }
        self.length -= removed.len();
        removed
    }

    /// All waiting entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let lines = self.clients.values().flat_map(|account| &account.line);
        lines.map(|(_, entry)| entry)
    }

    /// All waiting entries as they are served if all cost as much as they do on average and none comes.
    pub fn in_order(&self) -> Vec<&T> {
        let mut entries = Vec::with_capacity(self.length);
        for account in self.clients.values() {
            let (step, standing) = (self.step(account.weight), account.standing());
            for ((_, entry), nth) in account.line.iter().zip(0..) {
                let place = NthEntry {
                    step,
                    standing,
                    nth,
                };
                entries.push(((place.tally(), nth, standing.1), entry));
            }
        }
        entries.sort_by_key(|(place, _)| *place);
        entries.into_iter().map(|(_, entry)| entry).collect()
    }

    fn leave_if_empty(&mut self, client: &C) {
        if let Some(account) = self.clients.get(client)
            && account.line.is_empty()
        {
            self.order.remove(&account.standing());
            self.forget();
        }
    }

    /// Forgets clients that would begin in the same way if they were new.
    fn forget(&mut self) {
        if self.order.is_empty() && self.running == 0 {
            self.clients.clear();
            self.reached = 0;
        }
        let (reached, most) = (self.reached, 2 * (self.order.len() + self.running) + KEPT);
        if self.clients.len() > most {
            self.clients
                .retain(|_, account| account.is_here() || account.tally.now() > reached);
        }
        // Where ever new ones come, none of them would be caught up with.
        if self.clients.len() > most {
            self.clients.retain(|_, account| account.is_here());
        }
    }

    /// The tally of a client that comes: no more than that of any who waits.
    fn begins_at(&self) -> u64 {
        let least = self.order.first_key_value().map(|(standing, _)| standing.0);
        least.map_or(self.reached, |least| least.min(self.reached))
    }

    fn expected_cost(&self) -> u64 {
        self.average_cost.map_or(1, |cost| cost.ceil() as u64)
    }

    /// What a turn adds to the tally of a client of this weight.
    fn step(&self, weight: u32) -> u64 {
        tally_of(self.expected_cost(), weight).max(1)
    }
}

fn tally_of(cost: u64, weight: u32) -> u64 {
    cost.saturating_mul(SCALE) / u64::from(weight.max(1))
}

/// The nth entry of a client, counted from 0, as it will stand when those before it were served.
struct NthEntry {
    step: u64,
    standing: Standing,
    nth: u64,
}

impl NthEntry {
    fn tally(&self) -> u64 {
        let steps = self.step.saturating_mul(self.nth);
        self.standing.0.saturating_add(steps)
    }

    /// Whether of two with the same tally this one is first: its client's turn was longer ago.
    fn is_before(&self, other: &Self) -> bool {
        if self.tally() != other.tally() {
            return false;
        }
        match (self.nth, other.nth) {
            (0, 0) => self.standing.1 < other.standing.1,
            // A turn that is still to come is later than any that was.
            (0, _) => true,
            (_, 0) => false,
            // The one that goes further at a turn has had its last one at a lower tally.
            _ if self.step != other.step => self.step > other.step,
            (nth, others) if nth == others => self.standing.1 < other.standing.1,
            (nth, others) => nth < others,
        }
    }
}

#[cfg(test)]
mod tests;
