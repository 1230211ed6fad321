//! How long what is waited for may take, and what happens after a worker's death.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::optional::duration_or_empty;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct QueueSettings {
    /// Requests that may wait for one model.
    pub capacity: usize,
    /// The longest time a request waits for its turn.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
}

/// Each wait on a worker; every expiry is counted under its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DeadlineSettings {
    /// From starting the process to its hello.
    #[serde(with = "humantime_serde")]
    pub spawn: Duration,
    /// Reading, opening and probing the library.
    #[serde(with = "humantime_serde")]
    pub library_open: Duration,
    /// Reading what a model's files say, from starting the process that does.
    #[serde(with = "humantime_serde")]
    pub reader_open: Duration,
    /// The same at start, for one model, before the daemon serves without it and reads on.
    #[serde(with = "humantime_serde")]
    pub reader_at_start: Duration,
    /// Making a prompt or tokens for one request, and the wait for a process that can.
    #[serde(with = "humantime_serde")]
    pub reader_call: Duration,
    /// The whole models folder: models that were not read by then are left out.
    #[serde(with = "humantime_serde")]
    pub models_read: Duration,
    /// Loading a model: base time …
    #[serde(with = "humantime_serde")]
    pub load_base: Duration,
    /// … plus this for each GiB of its file.
    #[serde(with = "humantime_serde")]
    pub load_per_gib: Duration,
    /// A load past its deadline goes on while it read or allocated something within this time …
    #[serde(with = "humantime_serde")]
    pub load_stall: Duration,
    /// … but never longer than this.
    #[serde(with = "humantime_serde")]
    pub load_longest: Duration,
    /// Saving or loading a conversation's prefix: base time …
    #[serde(with = "humantime_serde")]
    pub prefix_file_base: Duration,
    /// … plus this for each GiB of its file.
    #[serde(with = "humantime_serde")]
    pub prefix_file_per_gib: Duration,
    /// From handing over a prompt to its first token: base time …
    #[serde(with = "humantime_serde")]
    pub prefill_base: Duration,
    /// … plus this for each prompt token (or each 3 bytes where tokens are unknown).
    #[serde(with = "humantime_serde")]
    pub prefill_per_token: Duration,
    /// Between two tokens.
    #[serde(with = "humantime_serde")]
    pub inter_token: Duration,
    /// Abort, is_running, KV cache size and other short calls.
    #[serde(with = "humantime_serde")]
    pub control_call: Duration,
    /// From an abort to the end of its run.
    #[serde(with = "humantime_serde")]
    pub abort_to_finish: Duration,
    /// From a request's entering the queue to the end of its answer. `None`: no such limit.
    #[serde(
        serialize_with = "humantime_serde::option::serialize",
        deserialize_with = "duration_or_empty"
    )]
    pub total: Option<Duration>,
    /// A response in the background, from its request to its end.
    #[serde(with = "humantime_serde")]
    pub background: Duration,
    /// A worker that is not even scheduled for this long while a call is in progress is killed.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Unloading a model.
    #[serde(with = "humantime_serde")]
    pub unload: Duration,
    /// From SIGKILL to the end of the process; one that is still there counts as unkillable.
    #[serde(with = "humantime_serde")]
    pub kill: Duration,
    /// From the first SIGTERM to the end of the process.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
}

/// What happens after a worker's death. The first restart is immediate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RecoverySettings {
    /// Whether an answer goes on with another worker when its own dies.
    pub resume: bool,
    /// The wait before the second restart; doubled for each further one …
    #[serde(with = "humantime_serde")]
    pub backoff_first: Duration,
    /// … up to this; each is varied by up to a fifth at random.
    #[serde(with = "humantime_serde")]
    pub backoff_longest: Duration,
    /// Deaths are forgotten once a worker has lived this long or answered a request whole.
    #[serde(with = "humantime_serde")]
    pub healthy_after: Duration,
}
