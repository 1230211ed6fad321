//! What is known of a prefix that lies on disk, in a file beside it.

use serde::{Deserialize, Serialize};

use super::marks::{Marks, hash};
use crate::generation::{ClientKey, ModelId};

/// The format.
pub const VERSION: u32 = 1;

/// Which cells a file is of: those of another model, library or context are not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub model: ModelId,
    /// Of the model's file, and what its cells depend on.
    pub file: String,
    pub runtime: String,
}

/// Whose a prefix is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Who may use it.
    pub tenant: String,
    /// The client that it came from, as a hash of its name.
    pub client: u64,
    /// Whether that is a key: what came from it goes with it.
    pub has_key: bool,
}

impl Owner {
    pub fn of(client: &ClientKey) -> Self {
        Self {
            tenant: client.tenant().to_string(),
            client: hash(client.name()),
            has_key: client.is_a_key(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    pub of: Identity,
    pub owner: Owner,
    pub marks: Marks,
    pub tokens: u32,
    /// Of the file that the library wrote.
    pub bytes: u64,
}
