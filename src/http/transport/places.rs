//! Places for connections, and who gives up theirs when there is none. Pure: no socket, no clock.
//!
//! An address has at most its share. Where a place is wanted and none is free, the connection that has
//! been idle longest gives up its own: of the same address where that has its share, else of all. One
//! that is busy is never closed for another.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// Of so many connections one may be on its way out besides.
const LEAVING_PART: usize = 8;

/// Names a place that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::http) struct Seat(u64);

/// What becomes of a connection that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Admission {
    Seated(Seat),
    /// In the place of another, which is to be closed.
    InPlaceOf {
        seat: Seat,
        closed: Seat,
    },
    /// Its address has its share, all of it busy.
    Refused,
    /// There is no place before a busy connection, or one that was closed, ends.
    Full,
}

#[derive(Debug)]
pub(in crate::http) struct Places {
    all: usize,
    share: usize,
    next: u64,
    taken: HashMap<Seat, Taken>,
    /// Closed for another, and not over yet: it may have to write an answer.
    leaving: HashSet<Seat>,
    by_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Taken {
    /// `None`: a Unix socket, which has no shares.
    address: Option<IpAddr>,
    /// Since when it is idle, as a number that grows. `None`: it is busy.
    idle_since: Option<u64>,
}

impl Places {
    /// `share`: of one address.
    pub fn new(all: usize, share: usize) -> Self {
        Self {
            all,
            share,
            next: 0,
            taken: HashMap::new(),
            leaving: HashSet::new(),
            by_address: HashMap::new(),
        }
    }

    /// A connection has come; it is idle at first.
    pub fn admit(&mut self, address: Option<IpAddr>) -> Admission {
        let has = address.and_then(|address| self.by_address.get(&address));
        let has_its_share = has.is_some_and(|has| *has >= self.share);
        if !has_its_share && self.taken.len() < self.all {
            return Admission::Seated(self.take(address));
        }
        let may_close = self.leaving.len() < (self.all / LEAVING_PART).max(1);
        let of_it = |taken: &Taken| !has_its_share || taken.address == address;
        let idle = self
            .taken
            .iter()
            .filter(|(_, taken)| may_close && of_it(taken));
        let idle = idle.filter_map(|(seat, taken)| Some((taken.idle_since?, *seat)));
        let Some((_, closed)) = idle.min_by_key(|(since, _)| *since) else {
            return match has_its_share {
                true => Admission::Refused,
                false => Admission::Full,
            };
        };
        // From now on it does not count; that it ends is its own task's part.
        self.leave(closed);
        self.leaving.insert(closed);
        let seat = self.take(address);
        Admission::InPlaceOf { seat, closed }
    }

    pub fn is_busy(&mut self, seat: Seat) {
        if let Some(taken) = self.taken.get_mut(&seat) {
            taken.idle_since = None;
        }
    }

    pub fn is_idle(&mut self, seat: Seat) {
        self.next += 1;
        if let Some(taken) = self.taken.get_mut(&seat) {
            taken.idle_since = Some(self.next);
        }
    }

    /// The connection is over.
    pub fn leave(&mut self, seat: Seat) {
        self.leaving.remove(&seat);
        let Some(taken) = self.taken.remove(&seat) else {
            return;
        };
        if let Some(address) = taken.address
            && let Some(count) = self.by_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }

    fn take(&mut self, address: Option<IpAddr>) -> Seat {
        self.next += 1;
        let seat = Seat(self.next);
        let idle_since = Some(self.next);
        let taken = Taken {
            address,
            idle_since,
        };
        self.taken.insert(seat, taken);
        if let Some(address) = address {
            *self.by_address.entry(address).or_default() += 1;
        }
        seat
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(number: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, number]))
    }

    fn seated(places: &mut Places, of: u8) -> Seat {
        match places.admit(address(of)) {
            Admission::Seated(seat) => seat,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_address_gives_up_its_own_idle_ones_first() {
        let mut places = Places::new(4, 2);
        let other = seated(&mut places, 2);
        let first = seated(&mut places, 1);
        let second = seated(&mut places, 1);
        let Admission::InPlaceOf { seat, closed } = places.admit(address(1)) else {
            panic!("it has two idle ones");
        };
        assert_eq!(closed, first);
        places.leave(closed);
        places.is_busy(second);
        places.is_busy(seat);
        assert_eq!(places.admit(address(1)), Admission::Refused);
        let third = seated(&mut places, 3);
        places.is_busy(third);
        assert!(matches!(
            places.admit(address(4)),
            Admission::InPlaceOf { closed, .. } if closed == other
        ));
    }

    #[test]
    fn the_one_that_was_idle_longest_goes() {
        let mut places = Places::new(3, 3);
        let seats: Vec<Seat> = (1..4).map(|of| seated(&mut places, of)).collect();
        places.is_busy(seats[0]);
        places.is_idle(seats[0]);
        places.is_busy(seats[1]);
        let admitted = places.admit(address(9));
        assert!(matches!(admitted, Admission::InPlaceOf { closed, .. } if closed == seats[2]));
        // It has not left, and no more than one may be about to.
        assert_eq!(places.admit(None), Admission::Full);
        places.leave(seats[2]);
        let Admission::InPlaceOf { seat, closed } = places.admit(None) else {
            panic!("the first is idle");
        };
        assert_eq!(closed, seats[0]);
        places.leave(closed);
        places.is_busy(seat);
        let Admission::InPlaceOf { seat, closed } = places.admit(None) else {
            panic!("the one before is idle");
        };
        places.leave(closed);
        places.is_busy(seat);
        assert_eq!(places.admit(None), Admission::Full);
        places.leave(seats[1]);
        assert!(matches!(places.admit(None), Admission::Seated(_)));
    }

    proptest! {
        #[test]
        fn no_bound_is_passed_and_no_busy_one_is_closed(
            all in 1..6_usize,
            share in 1..4_usize,
            steps in proptest::collection::vec((0..4_u8, 0..4_u8, any::<prop::sample::Index>()), 0..100),
        ) {
            let mut places = Places::new(all, share);
            let mut open: Vec<(Seat, u8, bool)> = Vec::new();
            for (what, of, which) in steps {
                let chosen = (!open.is_empty()).then(|| which.index(open.len()));
                match (what, chosen) {
                    (1, Some(chosen)) => {
                        places.is_busy(open[chosen].0);
                        open[chosen].2 = true;
                    }
                    (2, Some(chosen)) => {
                        places.is_idle(open[chosen].0);
                        open[chosen].2 = false;
                    }
                    (3, Some(chosen)) => places.leave(open.swap_remove(chosen).0),
                    _ => match places.admit(address(of)) {
                        Admission::Seated(seat) => open.push((seat, of, false)),
                        Admission::InPlaceOf { seat, closed } => {
                            let index = open.iter().position(|(seat, ..)| *seat == closed);
                            let (_, _, busy) = open.swap_remove(index.expect("it was open"));
                            prop_assert!(!busy);
                            places.leave(closed);
                            open.push((seat, of, false));
                        }
                        Admission::Refused => {
                            let own = open.iter().filter(|(_, other, _)| *other == of);
                            prop_assert!(own.clone().count() >= share && own.clone().all(|it| it.2));
                        }
                        Admission::Full => {
                            prop_assert!(open.len() >= all && open.iter().all(|it| it.2));
                        }
                    },
                }
                prop_assert!(open.len() <= all);
                for of in 0..4 {
                    prop_assert!(open.iter().filter(|it| it.1 == of).count() <= share);
                }
            }
        }
    }
}
