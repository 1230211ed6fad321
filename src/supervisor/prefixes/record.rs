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
    /// What has computed them beside the model; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterIdentity>,
}

/// Of an adapter as it was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterIdentity {
    pub name: String,
    pub stamp: String,
}

/// A model, with one of its adapters or without.
pub type ModelAndAdapter = (ModelId, Option<String>);

impl Identity {
    pub fn key(&self) -> ModelAndAdapter {
        let adapter = self.adapter.as_ref();
        (
            self.model.clone(),
            adapter.map(|adapter| adapter.name.clone()),
        )
    }

    /// Whether cells of `other` were this model's before it became what it is, with the same adapter or
    /// with another file or library.
    pub fn has_replaced(&self, other: &Self) -> bool {
        let is_as_it_was = self.file == other.file && self.runtime == other.runtime;
        self.model == other.model && self != other && (!is_as_it_was || self.key() == other.key())
    }
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

    /// Of no client, which may use nothing but what all may: no tenant is called so.
    pub fn nobody() -> Self {
        Self {
            tenant: "\n".to_owned(),
            client: 0,
            has_key: false,
            is_shared: false,
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
