//! Listeners and connections, and who is let in.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::listen::addresses;
use super::optional::empty_as_none;
use super::{CorsOrigin, FileMode};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct HttpSettings {
    /// Addresses to listen on.
    #[serde(deserialize_with = "addresses")]
    pub listen: Vec<SocketAddr>,
    /// Largest accepted request body, in bytes.
    pub body_limit_bytes: usize,
    /// Largest header of a request with its first line, in bytes.
    pub header_limit_bytes: usize,
    /// Fields of it.
    pub max_header_fields: usize,
    /// Connections served at the same time over TCP, and as many over the Unix socket. Where all places
    /// are taken the one that is idle longest is closed; with none idle further ones wait.
    pub max_connections: usize,
    /// Those of one address over TCP.
    pub max_connections_per_address: usize,
    /// A request's header must have arrived within this time.
    #[serde(with = "humantime_serde")]
    pub header_read_timeout: Duration,
    /// An idle connection is kept this long, which each answer announces in `Keep-Alive`.
    #[serde(with = "humantime_serde")]
    pub keep_alive_timeout: Duration,
    /// What becomes of a generation whose client closes its sending side before it has its answer.
    pub half_closed_generations: HalfClosedGenerations,
    /// How long a stream's status line waits for the first token or an error.
    #[serde(with = "humantime_serde")]
    pub header_delay: Duration,
    /// A comment line is sent into a stream that was silent this long.
    #[serde(with = "humantime_serde")]
    pub keep_alive: Duration,
    /// Extra names a loopback listener accepts in `Host` and `Origin`; `*` switches the check off.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages a browser lets read answers; `*` stands for all.
    pub cors_origins: Vec<CorsOrigin>,
    /// A client that reads nothing for this long while its buffer is full loses its run.
    #[serde(with = "humantime_serde")]
    pub slow_reader_timeout: Duration,
    /// Bytes a second that a body must keep on the whole.
    pub slowest_bytes_per_second: u32,
    /// Whether requests that come over TCP need a key.
    pub auth: AuthPolicy,
    /// Whether beyond loopback, where no key is asked for, every client may do what is for administrators.
    pub open_admin: bool,
    /// Where `rkllmd keys` keeps the keys.
    pub keys_file: PathBuf,
    /// Path of a Unix-domain socket to listen on. `None`: no such listener.
    #[serde(deserialize_with = "empty_as_none")]
    pub unix_socket: Option<PathBuf>,
    /// Its permissions: a user who may write to it may connect.
    pub unix_socket_mode: FileMode,
    /// Its group, by name or number. `None`: the daemon's.
    #[serde(deserialize_with = "empty_as_none")]
    pub unix_socket_group: Option<String>,
    /// Whether requests that come over it need a key as well.
    pub unix_socket_auth: UnixSocketAuth,
}

/// Whether requests that come over TCP need a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthPolicy {
    /// Beyond loopback always; on loopback as soon as there is a file of keys.
    Keys,
    /// Never: a client that reaches a listener may use every model.
    None,
}

/// What becomes of a request that runs a model when its client closes its sending side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HalfClosedGenerations {
    /// The client counts as gone. TCP tells a close of one side from a close of both only by what the next
    /// bytes meet, and a run without a reader holds the NPU.
    Cancel,
    /// The client gets its answer.
    Answer,
}

/// What a client needs that comes over the Unix-domain socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnixSocketAuth {
    /// Only the right to connect. It may do everything then.
    Permissions,
    /// A key besides.
    Keys,
}
