//! What is known of one model's prefixes, as long as its file and library are the same.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::orders::{Fault, Held};
use crate::supervisor::prefixes::marks::{Marked, Marks};
use crate::supervisor::prefixes::policy::{FileSize, ReturnRate};
use crate::supervisor::prefixes::record::Identity;

/// So long after a slot has lost a prefix that was worth keeping, answers are followed by a save.
pub(super) const CROWDED_FOR: Duration = Duration::from_secs(600);
/// Prefixes that were lost, of a model, that are remembered to see whether they come back.
const MOST_REMEMBERED: usize = 256;
/// Failures in a row after which a model's prefixes are not swapped any more.
const MOST_STRIKES: u8 = 2;

#[derive(Debug)]
pub struct OfModel {
    pub of: Identity,
    pub size: FileSize,
    pub returns: ReturnRate,
    lost: VecDeque<Lost>,
    crowded_at: Option<Instant>,
    strikes: u8,
    /// A save or load was on a worker with others when that ended: the next ones are made alone.
    is_suspect: bool,
    /// Pinned prompts in whose service workers were lost, and how many in a row: that others go well says
    /// nothing of these.
    lost_at: HashMap<String, u8>,
}

/// A prefix that a slot had.
#[derive(Debug)]
struct Lost {
    tenant: String,
    marks: Marks,
}

impl OfModel {
    pub fn new(of: Identity) -> Self {
        Self {
            of,
            size: FileSize::default(),
            returns: ReturnRate::default(),
            lost: VecDeque::new(),
            crowded_at: None,
            strikes: 0,
            is_suspect: false,
            lost_at: HashMap::new(),
        }
    }

    /// Whether any is remembered that was lost.
    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Whether slots have lately lost what is worth keeping.
    pub fn is_crowded(&self, now: Instant) -> bool {
        let lost = self.crowded_at;
        lost.is_some_and(|at| now.saturating_duration_since(at) < CROWDED_FOR)
    }

    pub fn failed(&mut self, fault: Fault) {
        match fault {
            Fault::ForGood => self.strikes = MOST_STRIKES,
            Fault::Own => self.strikes += 1,
            Fault::OfOneInCompany => self.is_suspect = true,
            Fault::None => {}
        }
    }

    pub fn succeeded(&mut self) {
        self.strikes = 0;
        self.is_suspect = false;
    }

    /// It has ended no worker, whatever it is good for.
    pub fn is_cleared(&mut self) {
        self.is_suspect = false;
    }

    /// Whether something may be saved or loaded where nothing else runs, or where something does.
    pub fn may_swap(&self, is_alone: bool) -> bool {
        !self.is_off() && (is_alone || !self.is_suspect)
    }

    pub fn is_off(&self) -> bool {
        self.strikes >= MOST_STRIKES
    }

    /// Whether a pinned prompt may be brought into a slot.
    pub fn may_pin(&self, text: &str) -> bool {
        let lost = self.lost_at.get(text);
        !self.is_off() && lost.is_none_or(|&lost| lost < MOST_STRIKES)
    }

    /// A worker was lost with it.
    pub fn is_lost_at(&mut self, text: &str) {
        *self.lost_at.entry(text.to_owned()).or_default() += 1;
    }

    /// It went well.
    pub fn is_pinned(&mut self, text: &str) {
        self.lost_at.remove(text);
    }

    /// What was not tried any more is.
    pub fn forgive_pinned(&mut self) {
        self.lost_at.clear();
    }

    pub fn is_lost(&mut self, held: &Held<'_>, now: Instant) {
        self.returns.one_is_lost();
        self.crowded_at = Some(now);
        if self.lost.len() == MOST_REMEMBERED {
            self.lost.pop_front();
        }
        self.lost.push_back(Lost {
            tenant: held.owner.tenant.clone(),
            marks: held.text.marked().marks().clone(),
        });
    }

    /// A prompt that begins with half of a lost prefix is its next turn.
    pub fn look_for_returned(&mut self, prompt: &Marked<'_>, tenant: &str) {
        let before = self.lost.len();
        self.lost.retain(|lost| {
            lost.tenant != tenant || prompt.shared_with(&lost.marks) * 2 < lost.marks.length
        });
        if self.lost.len() < before {
            self.returns.one_is_back();
        }
    }
}
