//! The vendor's functions: their transport, and what their handles may use.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::FileMode;
use super::optional::empty_as_none;

/// The vendor's functions over JSON-RPC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RpcSettings {
    /// Whether `/rpc` and `/rpc/ws` answer.
    pub http: bool,
    /// Path of the Unix socket. `None`: there is none.
    #[serde(deserialize_with = "empty_as_none")]
    pub unix_socket: Option<PathBuf>,
    /// Its permissions: a user who may write to it may connect.
    pub unix_socket_mode: FileMode,
    /// Its group, by name or number. `None`: the daemon's.
    #[serde(deserialize_with = "empty_as_none")]
    pub unix_socket_group: Option<String>,
    /// Connections to the Unix socket at the same time; further ones wait in the kernel's backlog.
    pub max_connections: usize,
    /// Largest message (line, frame or body) of a client, in bytes.
    pub message_limit_bytes: usize,
    /// Calls in one batch.
    pub batch_limit: usize,
    /// Bytes of a batch's answers, after which its further calls are not made.
    pub batch_answer_limit_bytes: usize,
    /// Texts and ids of a run whose result is answered as a whole, in bytes.
    pub result_limit_bytes: usize,
    /// Messages of one connection that are being answered at the same time.
    pub max_calls: usize,
    /// Bytes that wait for one connection's reader before its runs wait too.
    pub outgoing_limit_bytes: usize,
    /// Bytes a second that a client must take of a message with tensors, on the whole.
    pub slowest_bytes_per_second: u32,
    /// Handles of one connection or, over plain HTTP, of one client.
    pub max_handles: usize,
    /// A handle that no call used for this long is destroyed.
    #[serde(with = "humantime_serde")]
    pub handle_idle_timeout: Duration,
}

/// What handles of the vendor's API may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LibrarySettings {
    /// Holds `adapters/` and `prompt-caches/`; clients name files in them and reach no other.
    pub state_dir: PathBuf,
    /// Most bytes of tensors (hidden states, logits) that one callback hands over, of all sequences
    /// together.
    pub tensor_limit_bytes: u64,
    /// Most bytes of tensors that wait for their readers, of all clients; one client's are half of it.
    pub tensors_held_limit_bytes: u64,
    /// Once `prompt-caches/` holds so many bytes, runs save no other prompt.
    pub prompt_caches_limit_bytes: u64,
}
