//! Which worker to grant, start or evict next. Pure: it decides, the event loop acts.
//!
//! Requests are looked at in the order they came. A loaded model serves its own request even while
//! an older one waits for a place, unless the place can be freed right now: so two models that
//! alternate do not reload for every request, and neither waits for ever. A worker whose place an older
//! request needs is not joined any more, so that it becomes idle.

use std::time::{Duration, Instant};

/// A model's worker, as far as placement is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupancy {
    /// No process.
    Empty,
    /// Loading, or brought into its slots what it pins.
    Busy,
    /// Loaded and in use.
    InUse {
        loaded_at: Instant,
        /// Its next waiter can join those that are on it.
        has_room: bool,
    },
    /// Ending; its place becomes free soon.
    Leaving,
    /// Outlived SIGKILL. Its place never becomes free without a reboot, so it is not counted as
    /// one; but nothing may join it on the NPU.
    Stuck,
    /// Loaded, nothing to do.
    Idle {
        loaded_at: Instant,
        last_used: Instant,
    },
}

/// One model in the eyes of `decide`.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub occupancy: Occupancy,
    pub uses_npu: bool,
    /// It must not be loaded before.
    pub not_before: Option<Instant>,
    /// The place of the request that is next for this model among all that wait.
    pub oldest_waiter: Option<u64>,
    /// Whether another model may have to go for it; not for a mere preload.
    pub may_evict: bool,
    /// Until when it stays loaded although nothing uses it; `None`: until its place is needed.
    pub kept_until: Option<Instant>,
}

/// The next thing to do; the index is that of the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Grant(usize),
    Load(usize),
    Evict(usize),
    /// No client keeps it any more.
    Unload(usize),
    /// Nothing now; look again at this time.
    WaitUntil(Instant),
    /// Nothing until something changes.
    Nothing,
}

/// The limits that placement keeps.
#[derive(Clone, Copy, Debug)]
pub struct PlacementLimits {
    pub max_loaded: usize,
    pub minimum_residency: Duration,
}

pub fn decide(candidates: &[Candidate], limits: PlacementLimits, now: Instant) -> Decision {
    let mut waiting: Vec<(u64, usize)> = candidates
        .iter()
        .enumerate()
        .filter_map(|(index, candidate)| Some((candidate.oldest_waiter?, index)))
        .collect();
    waiting.sort_unstable();
    let occupied = candidates
        .iter()
        .filter(|candidate| !matches!(candidate.occupancy, Occupancy::Empty | Occupancy::Stuck))
        .count();
    let npu_is_blocked = candidates
        .iter()
        .any(|candidate| candidate.occupancy == Occupancy::Stuck && candidate.uses_npu);
    let mut leaving = candidates
        .iter()
        .filter(|candidate| candidate.occupancy == Occupancy::Leaving)
        .count();
    let mut look_again: Option<Instant> = None;
    for (index, candidate) in candidates.iter().enumerate() {
        match idle_until(candidate) {
            Some(until) if until <= now => return Decision::Unload(index),
            Some(until) => look_again = Some(look_again.map_or(until, |it| it.min(until))),
            None => {}
        }
    }
    let mut awaited: Vec<usize> = Vec::new();
    for (_, index) in waiting {
        let candidate = &candidates[index];
        let not_before = candidate.not_before.unwrap_or(now);
        match candidate.occupancy {
            Occupancy::Idle { .. } => return Decision::Grant(index),
            Occupancy::InUse { has_room: true, .. } if !awaited.contains(&index) => {
                return Decision::Grant(index);
            }
            Occupancy::InUse { .. } => {}
            Occupancy::Busy | Occupancy::Leaving | Occupancy::Stuck => {}
            Occupancy::Empty if candidate.uses_npu && npu_is_blocked => {}
            Occupancy::Empty if not_before > now => {
                look_again = Some(look_again.map_or(not_before, |other| other.min(not_before)));
            }
            Occupancy::Empty if occupied < limits.max_loaded => return Decision::Load(index),
            // A place is already being freed for this one.
            Occupancy::Empty if leaving > 0 => leaving -= 1,
            Occupancy::Empty if !candidate.may_evict => {}
            Occupancy::Empty => match least_recently_used(candidates, limits, now) {
                Evictable::Now(victim) => return Decision::Evict(victim),
                Evictable::From(time) => {
                    look_again = Some(look_again.map_or(time, |other| other.min(time)));
                }
                Evictable::None => {
                    awaited.extend(longest_in_use(candidates, limits, now, &awaited))
                }
            },
        }
    }
    look_again.map_or(Decision::Nothing, Decision::WaitUntil)
}

/// Until when a worker may do nothing that has nothing to do.
fn idle_until(candidate: &Candidate) -> Option<Instant> {
    let is_idle = matches!(candidate.occupancy, Occupancy::Idle { .. });
    candidate
        .kept_until
        .filter(|_| is_idle && candidate.oldest_waiter.is_none())
}

/// The worker whose end of use is waited for where none is idle: the one that was loaded first of those
/// that have had their time, and that are not awaited for another request.
fn longest_in_use(
    candidates: &[Candidate],
    limits: PlacementLimits,
    now: Instant,
    awaited: &[usize],
) -> Option<usize> {
    let in_use = candidates.iter().enumerate().filter_map(|(index, it)| {
        let Occupancy::InUse { loaded_at, .. } = it.occupancy else {
            return None;
        };
        Some((loaded_at, index))
    });
    in_use
        .filter(|(loaded_at, index)| {
            *loaded_at + limits.minimum_residency <= now && !awaited.contains(index)
        })
        .min()
        .map(|(_, index)| index)
}

enum Evictable {
    Now(usize),
    From(Instant),
    None,
}

fn least_recently_used(
    candidates: &[Candidate],
    limits: PlacementLimits,
    now: Instant,
) -> Evictable {
    let mut victim: Option<(Instant, usize)> = None;
    let mut earliest: Option<Instant> = None;
    for (index, candidate) in candidates.iter().enumerate() {
        let Occupancy::Idle {
            loaded_at,
            last_used,
        } = candidate.occupancy
        else {
            continue;
        };
        let evictable_from = loaded_at + limits.minimum_residency;
        if evictable_from <= now {
            victim = Some(victim.map_or((last_used, index), |other| other.min((last_used, index))));
        } else {
            earliest = Some(earliest.map_or(evictable_from, |other| other.min(evictable_from)));
        }
    }
    match (victim, earliest) {
        (Some((_, index)), _) => Evictable::Now(index),
        (None, Some(time)) => Evictable::From(time),
        (None, None) => Evictable::None,
    }
}

#[cfg(test)]
mod tests;
