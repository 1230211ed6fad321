//! Who gives up cells when a shared cache runs out of them. A decision only: it is told what each
//! sequence holds, and names those that lose theirs, in an order in which least is lost: what only
//! waits to be used again, longest unused first; runs that their host keeps waiting, youngest first;
//! and, for a run that goes on, the youngest run. A run that lost its cells is evaluated again later;
//! the oldest one never loses any, so that there is always one that comes to its end.

/// What a sequence's cells are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// For a later prompt that begins the same. A lower number was used longer ago.
    Idle { since: u64 },
    /// A higher number is a younger run.
    Running { age: u64 },
    /// A run whose host has taken none of its tokens for a while.
    Stalled { age: u64 },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Holding {
    pub(crate) cells: usize,
    /// What its run may count on, those cells included.
    pub(crate) promised: usize,
    pub(crate) standing: Standing,
}

/// What cells are wanted for, and so who has to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To spare an evaluation: only idle sequences.
    Prefix,
    /// A run that has not begun: no run that goes on.
    Admission,
    /// A run that goes on.
    Growth,
}

/// Cells that a run is promised beyond its prompt when it begins.
pub(crate) const AHEAD: usize = 256;

/// Which sequences are emptied so that `who` can have `wanted` cells in all; none if there is no room.
pub(crate) fn make_room(
    holdings: &[Holding],
    capacity: usize,
    who: usize,
    wanted: usize,
    need: Need,
) -> Option<Vec<usize>> {
    let others = || holdings.iter().enumerate().filter(|&(at, _)| at != who);
    let claimed: usize = others().map(|(_, holding)| holding.claim()).sum();
    let mut lacking = (claimed + wanted).saturating_sub(capacity);
    let mut candidates: Vec<(Rank, usize)> = others()
        .filter_map(|(at, holding)| Some((holding.rank(need, holdings[who].standing)?, at)))
        .collect();
    candidates.sort_unstable();
    let mut losing = Vec::new();
    for (_, at) in candidates {
        if lacking == 0 {
            break;
        }
        let gained = holdings[at].claim();
        if gained > 0 {
            lacking = lacking.saturating_sub(gained);
            losing.push(at);
        }
    }
    (lacking == 0).then_some(losing)
}

/// Which sequences give back the memory beyond their claims, so that all of it is no more than `capacity`
/// cells: `written` are those that have some, at present or after a claim has grown into them. Those that
/// have most to give are first.
pub(crate) fn give_back(claims: &[usize], written: &[usize], capacity: usize) -> Vec<usize> {
    let pairs = || claims.iter().zip(written);
    let all: usize = pairs().map(|(claim, written)| claim.max(written)).sum();
    let mut over = all.saturating_sub(capacity);
    let mut surplus: Vec<(usize, usize)> = pairs()
        .map(|(claim, written)| written.saturating_sub(*claim))
        .enumerate()
        .map(|(at, surplus)| (surplus, at))
        .filter(|&(surplus, _)| surplus > 0)
        .collect();
    surplus.sort_unstable_by(|a, b| b.cmp(a));
    let mut giving = Vec::new();
    for (surplus, at) in surplus {
        if over == 0 {
            break;
        }
        over = over.saturating_sub(surplus);
        giving.push(at);
    }
    giving
}

/// Lower ones lose first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Idle(u64),
    Stalled(std::cmp::Reverse<u64>),
    Running(std::cmp::Reverse<u64>),
}

impl Holding {
    pub(crate) fn claim(&self) -> usize {
        self.cells.max(self.promised)
    }

    /// None: it keeps its cells.
    fn rank(&self, need: Need, asking: Standing) -> Option<Rank> {
        match self.standing {
            Standing::Idle { since } => Some(Rank::Idle(since)),
            Standing::Stalled { age } if need != Need::Prefix => {
                Some(Rank::Stalled(std::cmp::Reverse(age)))
            }
            Standing::Running { age } if need == Need::Growth => match asking {
                Standing::Running { age: asking } if age > asking => {
                    Some(Rank::Running(std::cmp::Reverse(age)))
                }
                _ => None,
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
