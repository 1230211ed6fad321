//! What is decided upon, and what is ordered.

use std::time::{Duration, Instant};

use crate::supervisor::prefixes::index::PrefixId;
use crate::supervisor::prefixes::marks::Marked;
use crate::supervisor::prefixes::record::{Identity, Owner, Record, VERSION};

/// What a slot holds.
#[derive(Clone, Debug)]
pub struct Held<'a> {
    pub text: &'a str,
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
}

/// What is to be done before a turn's run.
#[derive(Debug, Default)]
pub struct Plan {
    /// Of another file of the model, or another library.
    pub stale: Vec<PrefixId>,
    /// What the slot is about to lose.
    pub save: Option<SaveOrder>,
    pub load: Option<LoadOrder>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveOrder {
    pub id: PrefixId,
    pub of: Identity,
    pub owner: Owner,
    pub text: String,
    pub tokens: u32,
    /// A guess until a file has told.
    pub assumed_bytes: u64,
    /// What goes for it.
    pub remove: Vec<PrefixId>,
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

/// What is written beside the file of so many bytes.
pub fn record_of(order: &SaveOrder, bytes: u64) -> Record {
    Record {
        version: VERSION,
        of: order.of.clone(),
        owner: order.owner.clone(),
        marks: Marked::new(&order.text).marks().clone(),
        tokens: order.tokens,
        bytes,
    }
}
