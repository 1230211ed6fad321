//! For how long a model is kept loaded by the clients that have used it. Pure: no clock, no task.
//!
//! A client's last use says for how long it keeps the model, and the client that keeps it longest decides.
//! Uses of one client at the same time count like those of several. A use that goes on keeps the model
//! however long it takes; its time begins when it ends.

use std::collections::HashMap;
use std::time::Instant;

use crate::generation::{ClientKey, KeepAlive, KeptUntil};

/// What keeps a model loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// By uses that have ended, or by a setting where there was none.
    pub until: Option<KeptUntil>,
    /// After the longest of those that go on.
    pub in_use: Option<KeepAlive>,
}

impl Kept {
    /// Until when the model stays loaded if what uses it ended `now`.
    pub fn until(self, now: Instant) -> KeptUntil {
        let in_use = self.in_use.map(|keep_alive| keep_alive.from(now));
        self.until.max(in_use).unwrap_or(KeptUntil::ForEver)
    }
}

/// Clients that are told apart. Of more, those whose time ends first are only known together: what one of
/// them asks later does not take back what it asked before.
const MOST_CLIENTS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Keepers {
    /// By slot.
    in_use: HashMap<u8, Use>,
    ended: HashMap<ClientKey, Ended>,
    /// Of those that are not told apart, and of those whose time is over.
    others: Option<KeptUntil>,
}

#[derive(Debug)]
struct Use {
    client: ClientKey,
    keep_alive: KeepAlive,
    since: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    at: Instant,
    until: KeptUntil,
}

impl Keepers {
    pub fn begun(&mut self, slot: u8, client: ClientKey, keep_alive: KeepAlive, now: Instant) {
        let begun = Use {
            client,
            keep_alive,
            since: now,
        };
        self.in_use.insert(slot, begun);
    }

    /// The slot turned out to be used for another request, if it still is.
    pub fn used_for(&mut self, slot: u8, client: ClientKey, keep_alive: KeepAlive) {
        if let Some(used) = self.in_use.get_mut(&slot) {
            used.client = client;
            used.keep_alive = keep_alive;
        }
    }

    pub fn ended(&mut self, slot: u8, now: Instant) {
        if let Some(used) = self.in_use.remove(&slot) {
            self.note(used, now);
        }
    }

    /// A use that has ended as soon as it began.
    pub fn used(&mut self, client: ClientKey, keep_alive: KeepAlive, now: Instant) {
        let used = Use {
            client,
            keep_alive,
            since: now,
        };
        self.note(used, now);
    }

    fn note(&mut self, used: Use, now: Instant) {
        let until = used.keep_alive.from(now);
        let before = self.ended.get(&used.client);
        let beside = before.filter(|before| before.at >= used.since);
        let ended = Ended {
            at: now,
            until: beside.map_or(until, |beside| beside.until.max(until)),
        };
        self.ended.insert(used.client, ended);
        self.forget_some(now);
    }

    /// Its worker has ended, and with it every use.
    pub fn all_ended(&mut self, now: Instant) {
        let slots: Vec<u8> = self.in_use.keys().copied().collect();
        for slot in slots {
            self.ended(slot, now);
        }
    }

    /// The model was unloaded: its next user begins anew.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Nothing where no client has used the model.
    pub fn kept(&self) -> Kept {
        let ended = self.ended.values().map(|ended| ended.until);
        Kept {
            until: ended.chain(self.others).max(),
            in_use: self.in_use.values().map(|used| used.keep_alive).max(),
        }
    }

    fn forget_some(&mut self, now: Instant) {
        let over = self.ended.extract_if(|_, ended| ended.until.is_over(now));
        self.others = over.map(|(_, ended)| ended.until).chain(self.others).max();
        while self.ended.len() > MOST_CLIENTS {
            let first = self.ended.iter().min_by_key(|(_, ended)| ended.until);
            let Some(client) = first.map(|(client, _)| client.clone()) else {
                return;
            };
            let until = self.ended.remove(&client).map(|ended| ended.until);
            self.others = self.others.max(until);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use proptest::prelude::*;

    const AT_ONCE: KeepAlive = KeepAlive::For(Duration::ZERO);

    fn client(name: usize) -> ClientKey {
        ClientKey::new(name.to_string())
    }

    fn seconds(seconds: u64) -> KeepAlive {
        KeepAlive::For(Duration::from_secs(seconds))
    }

    fn kept_until(keepers: &Keepers, now: Instant) -> KeptUntil {
        keepers.kept().until(now)
    }

    fn used(keepers: &mut Keepers, who: usize, keep_alive: KeepAlive, now: Instant) {
        keepers.begun(0, client(who), keep_alive, now);
        keepers.ended(0, now);
    }

    #[test]
    fn the_longest_wish_wins() {
        let now = Instant::now();
        let mut keepers = Keepers::default();
        assert_eq!(keepers.kept(), Kept::default());
        used(&mut keepers, 1, seconds(60), now);
        used(&mut keepers, 2, AT_ONCE, now);
        assert_eq!(kept_until(&keepers, now), seconds(60).from(now));
        used(&mut keepers, 3, KeepAlive::ForEver, now);
        assert_eq!(kept_until(&keepers, now), KeptUntil::ForEver);
    }

    #[test]
    fn a_clients_last_use_takes_back_what_it_asked_before() {
        let now = Instant::now();
        let mut keepers = Keepers::default();
        used(&mut keepers, 1, KeepAlive::ForEver, now);
        let later = now + Duration::from_secs(1);
        used(&mut keepers, 1, AT_ONCE, later);
        assert_eq!(kept_until(&keepers, later), KeptUntil::Time(later));
    }

    #[test]
    fn uses_at_the_same_time_count_both_whichever_ends_last() {
        let now = Instant::now();
        for (first, second) in [(AT_ONCE, seconds(60)), (seconds(60), AT_ONCE)] {
            let mut keepers = Keepers::default();
            keepers.begun(0, client(1), first, now);
            keepers.begun(1, client(1), second, now);
            assert_eq!(kept_until(&keepers, now), seconds(60).from(now));
            keepers.ended(0, now);
            keepers.ended(1, now);
            assert_eq!(kept_until(&keepers, now), seconds(60).from(now));
        }
    }

    #[test]
    fn the_time_begins_with_the_end_of_a_use() {
        let now = Instant::now();
        let mut keepers = Keepers::default();
        keepers.begun(0, client(1), AT_ONCE, now);
        keepers.used_for(0, client(2), seconds(5));
        let later = now + Duration::from_secs(100);
        assert_eq!(kept_until(&keepers, later), seconds(5).from(later));
        keepers.all_ended(later);
        assert_eq!(kept_until(&keepers, later), seconds(5).from(later));
        let over = later + Duration::from_secs(5);
        assert!(kept_until(&keepers, over).is_over(over));
        keepers.forget();
        assert_eq!(keepers.kept(), Kept::default());
    }

    proptest! {
        /// However many clients there are, few are told apart, and the longest wish is known.
        #[test]
        fn a_crowd_takes_no_room(
            uses in prop::collection::vec((0usize..150, prop::option::of(0u64..20)), 0..150),
        ) {
            let mut now = Instant::now();
            let mut keepers = Keepers::default();
            let mut last: HashMap<usize, KeptUntil> = HashMap::new();
            for (who, keep) in uses {
                now += Duration::from_millis(100);
                let keep_alive = keep.map_or(KeepAlive::ForEver, seconds);
                used(&mut keepers, who, keep_alive, now);
                last.insert(who, keep_alive.from(now));
                prop_assert!(keepers.ended.len() <= MOST_CLIENTS);
                let longest = last.values().max().copied();
                let kept = keepers.kept().until;
                prop_assert!(kept >= longest);
                if last.len() <= MOST_CLIENTS {
                    let is_over = |it: Option<KeptUntil>| it.is_some_and(|it| it.is_over(now));
                    prop_assert!(kept == longest || is_over(kept) && is_over(longest));
                }
            }
        }
    }
}
