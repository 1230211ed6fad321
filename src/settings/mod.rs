//! One validated `Settings` from TOML file, drop-ins, environment and flags, in that order.
//!
//! Nothing below this module reads a file or the environment for configuration; every public limit
//! is a field here with its documented default.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod admin;
mod answers;
mod as_text;
mod assignment;
mod confinement;
mod cors_origin;
mod defaults;
mod error;
mod file_mode;
mod flags;
mod http;
mod hub;
mod known_keys;
mod listen;
mod load;
mod model_alias;
mod models;
mod optional;
mod reload;
mod validate;
mod vendor_api;
mod violation;
mod waits;

pub use admin::AdminSettings;
pub use answers::{
    ChatSettings, ConstraintSettings, EmbeddingSettings, ResponseSettings, TokenizerSettings,
};
pub use confinement::ConfinementSettings;
pub use cors_origin::CorsOrigin;
pub use error::{Problem, SettingsError};
pub use file_mode::FileMode;
pub use flags::CliOverrides;
pub use http::{AuthPolicy, HalfClosedGenerations, HttpSettings, UnixSocketAuth};
pub use hub::{HubProxy, HubSettings};
pub use known_keys::{KnownKey, known_keys};
pub use load::{DEFAULT_CONFIG, VARIABLE_PREFIX};
pub use model_alias::ModelAlias;
pub use models::{ModelSettings, ReaderSandbox, ReaderSettings, RuntimeSettings};
pub use reload::{Applies, ChangedKeys};
pub use vendor_api::{LibrarySettings, RpcSettings};
pub use waits::{DeadlineSettings, QueueSettings, RecoverySettings};

pub use crate::constraint::WhiteSpace;
pub use crate::generation::{KeepAlive, RedrawRuns};
pub use crate::prompt::ControlTokenPolicy;
use optional::{bytes_or_empty, empty_as_none};

/// The whole configuration of a daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    pub http: HttpSettings,
    pub models: ModelSettings,
    pub hub: HubSettings,
    pub runtime: RuntimeSettings,
    pub queue: QueueSettings,
    pub deadlines: DeadlineSettings,
    pub recovery: RecoverySettings,
    pub memory: MemorySettings,
    pub library: LibrarySettings,
    pub prefixes: PrefixSettings,
    pub chat: ChatSettings,
    pub constraints: ConstraintSettings,
    pub responses: ResponseSettings,
    pub rpc: RpcSettings,
    pub embeddings: EmbeddingSettings,
    pub tokenizer: TokenizerSettings,
    pub reader: ReaderSettings,
    pub confinement: ConfinementSettings,
    pub board: BoardSettings,
    pub admin: AdminSettings,
    pub log: LogSettings,
}

/// How much memory clients may make the daemon use, and how much a worker may have: anonymous, shared
/// and NPU memory, without file mappings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MemorySettings {
    /// What requests and answers may take in the daemon, of all clients together. `None`: 256 MiB, or
    /// 6 % of the machine's memory where that is less.
    #[serde(deserialize_with = "bytes_or_empty")]
    pub requests_limit_bytes: Option<u64>,
    /// A worker with more is replaced when it is idle. `None`: 80 % of the machine's memory but for what
    /// readers hold; 0: no limit.
    #[serde(deserialize_with = "bytes_or_empty")]
    pub worker_soft_limit_bytes: Option<u64>,
    /// A worker with more is killed at once. `None`: 90 % of the same; 0: no limit.
    #[serde(deserialize_with = "bytes_or_empty")]
    pub worker_hard_limit_bytes: Option<u64>,
    /// Bytes a second that what a client sends must keep while much of `requests_limit_bytes` is used.
    pub slowest_bytes_per_second: u32,
    /// Time between two looks at a worker's memory.
    #[serde(with = "humantime_serde")]
    pub check_interval: Duration,
}

/// What is kept on disk of conversations that their slots have lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PrefixSettings {
    /// `None`: `prefixes` in `library.state_dir`, unless that lies in memory.
    #[serde(deserialize_with = "empty_as_none")]
    pub folder: Option<PathBuf>,
    /// Most bytes of all of them. `None`: 2 GiB, or 10 % of what is free there at start where that is
    /// less; 0: none is kept.
    #[serde(deserialize_with = "bytes_or_empty")]
    pub limit_bytes: Option<u64>,
    /// Most bytes that are written in 24 hours.
    pub written_per_day_bytes: u64,
    /// Shorter ones are not kept.
    pub least_tokens: u32,
    /// How long requests that wait for a model wait, once it is loaded, for the prompts that it pins; 0: not at all.
    #[serde(with = "humantime_serde")]
    pub pinned_first: Duration,
}

/// The board's sensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct BoardSettings {
    /// Time between two looks at them; 0: the daemon looks at none.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// The folder with the board's /proc and /sys.
    pub root: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LogSettings {
    /// `RUST_LOG`-style filter.
    pub filter: String,
}
