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
    /// `model.toml` names it: every key may use it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_shared: bool,
}

impl Owner {
    pub fn of(client: &ClientKey) -> Self {
        Self {
            tenant: client.tenant().to_string(),
            client: hash(client.name()),
            has_key: client.is_a_key(),
            is_shared: false,
        }
    }

    /// Of what `model.toml` names.
    pub fn all() -> Self {
        Self {
            tenant: String::new(),
            client: 0,
            has_key: false,
            is_shared: true,
        }
    }

    /// Whether those of a tenant may use it.
    pub fn lets(&self, tenant: &str) -> bool {
        self.is_shared || self.tenant == tenant
    }

    /// Whether the same may use both.
    pub fn is_like(&self, other: &Self) -> bool {
        self.is_shared == other.is_shared && self.tenant == other.tenant
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
    /// Of the keys and values of each token, where its format tells.
    #[serde(default)]
    pub cell_bytes: Option<u64>,
}
