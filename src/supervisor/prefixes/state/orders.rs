//! What is decided upon, and what is ordered.

use std::time::{Duration, Instant};

use crate::supervisor::handle::WholeCache;
use crate::supervisor::prefixes::index::PrefixId;
use crate::supervisor::prefixes::marks::{Marks, Text};
use crate::supervisor::prefixes::record::{Identity, Owner, Record, VERSION};

/// What a slot holds.
#[derive(Clone, Debug)]
pub struct Held<'a> {
    /// What it was computed with, which need not be what computes the turn.
    pub of: Identity,
    pub text: Text<'a>,
    pub owner: Owner,
}

/// When something is decided, and for which worker.
#[derive(Clone, Copy, Debug)]
pub struct Now<'a> {
    pub of: &'a Identity,
    pub prefill_per_token: Option<Duration>,
    pub at: Instant,
    /// Since the epoch.
    pub hour: u64,
    /// Nothing else runs on the worker.
    pub is_alone: bool,
}

/// A request that is given a slot.
#[derive(Clone, Debug)]
pub struct Turn<'a> {
    pub prompt: Text<'a>,
    pub owner: &'a Owner,
    /// The worker counts prompts also after a load.
    pub can_load: bool,
}

/// What is to be done before a turn's run.
#[derive(Debug, Default)]
pub struct Plan {
    /// Of another file of the model, or another library.
    pub stale: Vec<PrefixId>,
    /// What the slot is about to lose.
    pub save: Option<SaveOrder>,
    pub load: Option<LoadOrder>,
    /// What is evaluated of the prompt and saved for all keys, where nothing is loaded.
    pub share: Option<SaveOrder>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveOrder {
    pub id: PrefixId,
    pub of: Identity,
    pub owner: Owner,
    pub text: String,
    pub marks: Marks,
    pub tokens: u32,
    /// A guess until a file has told.
    pub assumed_bytes: u64,
    /// It will hardly have more.
    pub most_bytes: u64,
}

/// Why what was written is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotKept {
    /// It does not fit, or its model or key has gone.
    Unwanted,
    /// Another file of the model has more for each token.
    CutShort { cell_bytes: u64 },
}

/// Whose fault it is that a save or load has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The library's.
    Own,
    /// The library's, which will never do it.
    ForGood,
    /// It or something that ran beside it has ended the worker.
    OfOneInCompany,
    /// Neither's.
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOrder {
    pub id: PrefixId,
    pub of: Identity,
    pub file_bytes: u64,
    /// Tokens that need no evaluation then.
    pub gained: u32,
    /// Those that needed none without, of bytes of the slot's text.
    pub kept_bytes: usize,
}

/// What is written beside the file.
pub fn record_of(order: &SaveOrder, written: WholeCache) -> Record {
    Record {
        version: VERSION,
        of: order.of.clone(),
        owner: order.owner.clone(),
        marks: order.marks.clone(),
        tokens: order.tokens,
        bytes: written.bytes,
        cell_bytes: written.cell_bytes,
    }
}
