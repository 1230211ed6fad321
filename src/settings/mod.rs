//! One validated `Settings` from TOML file, drop-ins, environment and flags, in that order.
//!
//! Nothing below this module reads a file or the environment for configuration; every public limit
//! is a field here with its documented default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The whole configuration of a daemon.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    pub http: HttpSettings,
    pub models: ModelSettings,
    pub runtime: RuntimeSettings,
    pub queue: QueueSettings,
    pub deadlines: DeadlineSettings,
    pub chat: ChatSettings,
    pub log: LogSettings,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HttpSettings {
    /// Addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Largest accepted request body, in bytes.
    pub body_limit_bytes: usize,
    /// Connections served at the same time; further ones wait in the kernel's backlog.
    pub max_connections: usize,
    /// A request's header must have arrived within this time.
    pub header_read_timeout: Duration,
    /// How long a stream's status line waits for the first token or an error.
    pub header_delay: Duration,
    /// A comment line is sent into a stream that was silent this long.
    pub keep_alive: Duration,
    /// Extra names a loopback listener accepts in `Host` and `Origin`; `*` switches the check off.
    pub allowed_hosts: Vec<String>,
    /// A client that reads nothing for this long while its buffer is full loses its run.
    pub slow_reader_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ModelSettings {
    /// The folder whose models are installed.
    pub dir: PathBuf,
    /// Models loaded at start, by id or alias.
    pub preload: Vec<String>,
    /// Models loaded at the same time.
    pub max_loaded: usize,
    /// A loaded model is not evicted for another one before this time has passed.
    pub minimum_residency: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RuntimeSettings {
    /// The vendor's library, for `.rkllm` models.
    pub npu_library: PathBuf,
    /// The CPU runtime, for `.gguf` models. `None`: searched beside the program and in its lib folder.
    pub cpu_library: Option<PathBuf>,
    /// The ABI family (such as `1.3.1`) to assume for a library whose version is not known.
    pub assume_family: Option<String>,
    /// `RKLLM_LOG_LEVEL` for workers: 0, 1 (perf table) or 2 (prints users' text).
    pub log_level: u8,
    /// Further environment variables that workers inherit.
    pub pass_environment: Vec<String>,
    /// Whether a crashing worker may write a core dump.
    pub core_dumps: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct QueueSettings {
    /// Requests that may wait for one model.
    pub capacity: usize,
    /// The longest time a request waits for its turn.
    pub deadline: Duration,
}

/// Each wait on a worker; every expiry is counted under its name.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadlineSettings {
    /// From starting the process to its hello.
    pub spawn: Duration,
    /// Reading, opening and probing the library.
    pub library_open: Duration,
    /// Loading a model: base time …
    pub load_base: Duration,
    /// … plus this for each GiB of its file.
    pub load_per_gib: Duration,
    /// From handing over a prompt to its first token: base time …
    pub prefill_base: Duration,
    /// … plus this for each prompt token (or each 3 bytes where tokens are unknown).
    pub prefill_per_token: Duration,
    /// Between two tokens.
    pub inter_token: Duration,
    /// Abort, is_running, KV cache size and other short calls.
    pub control_call: Duration,
    /// From an abort to the end of its run.
    pub abort_to_finish: Duration,
    /// Unloading a model.
    pub unload: Duration,
    /// From the first SIGTERM to the end of the process.
    pub drain: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlTokenPolicy {
    /// A control token's text inside a message is changed so that it stays text.
    Neutralise,
    /// A message that holds a control token's text is refused.
    Reject,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ChatSettings {
    pub control_tokens: ControlTokenPolicy,
    /// Whether `/v1/completions` prompts may carry control tokens, for clients that render chat
    /// templates themselves.
    pub raw_completions: bool,
    /// Refuse sampling values that the runtime cannot vary per request instead of listing them in
    /// `x-rkllmd-not-applied`.
    pub strict_parameters: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    /// `RUST_LOG`-style filter.
    pub filter: String,
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            body_limit_bytes: 8 * 1024 * 1024,
            max_connections: 1024,
            header_read_timeout: seconds(10),
            header_delay: seconds(2),
            keep_alive: seconds(15),
            allowed_hosts: Vec::new(),
            slow_reader_timeout: seconds(30),
        }
    }
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("/var/lib/rkllmd/models"),
            preload: Vec::new(),
            max_loaded: 1,
            minimum_residency: seconds(10),
        }
    }
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        Self {
            npu_library: PathBuf::from("/usr/lib/librkllmrt.so"),
            cpu_library: None,
            assume_family: None,
            log_level: 0,
            pass_environment: Vec::new(),
            core_dumps: false,
        }
    }
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            capacity: 64,
            deadline: seconds(600),
        }
    }
}

impl Default for DeadlineSettings {
    fn default() -> Self {
        Self {
            spawn: seconds(10),
            library_open: seconds(30),
            load_base: seconds(60),
            load_per_gib: seconds(45),
            prefill_base: seconds(30),
            prefill_per_token: Duration::from_millis(100),
            inter_token: seconds(30),
            control_call: seconds(5),
            abort_to_finish: seconds(30),
            unload: seconds(15),
            drain: seconds(30),
        }
    }
}

impl Default for ChatSettings {
    fn default() -> Self {
        Self {
            control_tokens: ControlTokenPolicy::Neutralise,
            raw_completions: false,
            strict_parameters: false,
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
        }
    }
}
