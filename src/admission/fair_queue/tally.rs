//! What a client was served, in the order's measure. What a request cost is known when it is over, and
//! its client may come back before: then it counts from where the others are, or from where it has been, whichever
//! is more once the cost is known. So it makes no difference which of the two is known first.

/// Counted from several places: the client stands where it is furthest.
#[derive(Debug)]
pub struct Tally {
    /// From its first place on, and from each at which it came back while something of it ran.
    counts: Vec<Count>,
    next_number: u64,
}

#[derive(Debug)]
struct Count {
    number: u64,
    tally: u64,
    /// Charges that were made after it began and before the next one did, and are not settled.
    open: usize,
}

/// What was charged, and since which of its client's places it counts.
#[derive(Clone, Copy, Debug)]
pub struct Charged {
    number: u64,
    tally: u64,
}

impl Tally {
    pub fn from(place: u64) -> Self {
        let count = Count {
            number: 0,
            tally: place,
            open: 0,
        };
        Self {
            counts: vec![count],
            next_number: 1,
        }
    }

    pub fn now(&self) -> u64 {
        let tallies = self.counts.iter().map(|count| count.tally);
        tallies.max().unwrap_or(0)
    }

    /// Its client comes back, who begins there at the least.
    pub fn comes_back(&mut self, place: u64) {
        self.counts.push(Count {
            number: self.next_number,
            tally: place,
            open: 0,
        });
        self.next_number += 1;
        self.merge();
    }

    /// From how many it is counted.
    #[cfg(test)]
    pub fn places(&self) -> usize {
        self.counts.len()
    }

    pub fn charge(&mut self, tally: u64) -> Charged {
        for count in &mut self.counts {
            count.tally = count.tally.saturating_add(tally);
        }
        let number = self.counts.last_mut().map_or(0, |last| {
            last.open += 1;
            last.number
        });
        Charged { number, tally }
    }

    /// What was charged has cost so much in truth.
    pub fn settle(&mut self, charged: Charged, tally: u64) {
        for count in &mut self.counts {
            if count.number <= charged.number {
                let without = count.tally.saturating_sub(charged.tally);
                count.tally = without.saturating_add(tally);
            }
            if count.number == charged.number {
                count.open = count.open.saturating_sub(1);
            }
        }
        self.merge();
    }

    /// Of two between which no open charge lies the higher one will always be.
    fn merge(&mut self) {
        let mut at = 0;
        while at + 1 < self.counts.len() {
            if self.counts[at].open > 0 {
                at += 1;
                continue;
            }
            let lower = self.counts.remove(at).tally;
            let next = &mut self.counts[at];
            next.tally = next.tally.max(lower);
        }
    }
}
