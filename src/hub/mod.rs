//! Brings models from a hub that speaks Hugging Face's protocol over HTTP.
//!
//! A model is there whole and verified, or not at all: its files are written to a folder that no scan looks
//! into, hashed while they come, and renamed into place when all of them are what the hub says they are. The
//! transfer is one blocking function; the command line calls it in its own process, the daemon has a child
//! process do it, so that the daemon neither speaks TLS nor reads what strangers send.

mod address;
mod answer;
mod board;
mod choice;
mod client;
mod error;
mod fetch;
mod integrity;
mod job;
mod known;
mod leftovers;
mod listing;
mod manifest;
mod messages;
mod names;
mod pace;
mod part;
mod plan;
mod process;
mod pull;
mod pulls;
mod reference;
mod removal;
mod staging;
mod tries;
mod trust;
mod url;
mod variant;

pub use board::Board;
pub use choice::{choose, unsuited_by_name};
pub use error::PullError;
pub use integrity::Hash;
pub use job::{HubAccess, Job};
pub use known::{KNOWN, Known, KnownFor};
pub use leftovers::{Leftover, LeftoverKind, leftovers};
pub use listing::{Listing, RemoteFile};
pub use messages::{FileProgress, Pulled, Told};
pub use process::{pull_confined, run};
pub use pull::pull;
pub use pulls::{CatalogReload, News, Problems, PullNews, PullState, Pulls, Step};
pub use reference::{Reference, Selection};
pub use removal::{Removal, RemovalError};

use crate::children::ChildKind;
use messages::{TransferCommand, TransferEvent};

/// The children that transfer models.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TransferKind {}

impl ChildKind for TransferKind {
    const COMMAND: &'static str = "transfer";
    const NAME: &'static str = "transfer";
    type Command = TransferCommand;
    type Event = TransferEvent;
    const EVENT_LIMIT_BYTES: usize = 256 * 1024;

    fn protocol(event: &TransferEvent) -> Option<u32> {
        match event {
            TransferEvent::Hello { protocol } => Some(*protocol),
            TransferEvent::Told(_) | TransferEvent::Ended(_) => None,
        }
    }
}
