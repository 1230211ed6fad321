//! Why a model was not brought, in words for who asked for it. No message holds a token, or an address with
//! its query: what a hub leads to may carry a signature there.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum PullError {
    #[error("`{name}` {reason}")]
    BadName { name: String, reason: String },
    #[error("`offline` in the [hub] settings keeps models from being pulled")]
    Offline,
    #[error("the hub has no {what}")]
    NotFound { what: String },
    #[error(
        "the hub does not let {repository} be read{said}: accept its terms on its page where it has any, and \
         put a token that may read it into the file that `token-file` in the [hub] settings names"
    )]
    Refused { repository: String, said: String },
    #[error("the hub has too much to do{}", after(*retry_after))]
    Busy { retry_after: Option<Duration> },
    /// None of what a repository offers fits; `offers` lists it with reasons.
    #[error("{reason}{offers}")]
    NoChoice { reason: String, offers: String },
    #[error(
        "{folder} has no room: {needed} bytes are needed, {free} are free{}",
        kept(*kept_free)
    )]
    NoSpace {
        folder: String,
        needed: u64,
        free: u64,
        kept_free: u64,
    },
    #[error(
        "the models folder would hold {would_hold} bytes; `quota-bytes` in the [hub] settings allows {quota}"
    )]
    Quota { would_hold: u64, quota: u64 },
    #[error(
        "{path} is there already and is another model: remove it, or choose another name (`rkllmd pull --name`)"
    )]
    Exists { path: String },
    #[error("another process is pulling {name}")]
    InUse { name: String },
    #[error(
        "{limit} downloads go on without a client already, as many as `max-pulls` in the [hub] settings allows"
    )]
    TooMany { limit: usize },
    #[error("the download was led to {host}, {reason}")]
    Led { host: String, reason: String },
    #[error("what came of {file} is not what the hub says it is: {reason}")]
    Corrupt { file: String, reason: String },
    #[error("the hub tells no checksum of {file}, so it cannot be verified")]
    NoHash { file: String },
    #[error("the hub's answer cannot be used: {reason}")]
    BadAnswer { reason: String },
    /// It may pass.
    #[error("{doing} failed after {tries} tries: {reason}")]
    Network {
        doing: String,
        tries: u32,
        reason: String,
    },
    #[error("{what}: {reason}")]
    Settings { what: String, reason: String },
    #[error("{path}: {reason}")]
    Folder { path: String, reason: String },
    #[error("the process that transfers it has ended: {reason}")]
    Ended { reason: String },
    #[error("the daemon is shutting down; what has come is kept")]
    ShuttingDown,
}

impl PullError {
    /// Whether the same may be possible a little later.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Busy { .. }
                | Self::InUse { .. }
                | Self::TooMany { .. }
                | Self::Network { .. }
                | Self::Ended { .. }
                | Self::ShuttingDown
        )
    }

    pub(super) fn folder(path: &std::path::Path, error: impl Into<std::io::Error>) -> Self {
        Self::Folder {
            path: path.display().to_string(),
            reason: error.into().to_string(),
        }
    }

    pub(super) fn bad_answer(reason: impl Into<String>) -> Self {
        Self::BadAnswer {
            reason: reason.into(),
        }
    }
}

fn after(wait: Option<Duration>) -> String {
    match wait {
        Some(wait) => format!("; try again in {} s", wait.as_secs().max(1)),
        None => "; try again later".to_owned(),
    }
}

fn kept(bytes: u64) -> String {
    match bytes {
        0 => String::new(),
        bytes => format!(", of which `keep-free-bytes` in the [hub] settings keeps {bytes}"),
    }
}
