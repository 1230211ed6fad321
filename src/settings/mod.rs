//! One validated `Settings` from TOML file, drop-ins, environment and flags, in that order.
//!
//! Nothing below this module reads a file or the environment for configuration; every public limit
//! is a field here with its documented default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod assignment;
mod cors_origin;
mod defaults;
mod error;
mod file_mode;
mod flags;
mod known_keys;
mod listen;
mod load;
mod optional;
mod reload;
mod validate;

pub use cors_origin::CorsOrigin;
pub use error::{Problem, SettingsError};
pub use file_mode::FileMode;
pub use flags::CliOverrides;
pub use known_keys::{KnownKey, known_keys};
pub use load::{DEFAULT_CONFIG, VARIABLE_PREFIX};
pub use reload::{Applies, ChangedKeys};

pub use crate::constraint::WhiteSpace;
pub use crate::prompt::ControlTokenPolicy;
use listen::addresses;
use optional::{bytes_or_empty, duration_or_empty, empty_as_none};

/// The whole configuration of a daemon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    pub http: HttpSettings,
    pub models: ModelSettings,
    pub runtime: RuntimeSettings,
    pub queue: QueueSettings,
    pub deadlines: DeadlineSettings,
    pub recovery: RecoverySettings,
    pub memory: MemorySettings,
    pub library: LibrarySettings,
    pub prefixes: PrefixSettings,
    pub chat: ChatSettings,
    pub constraints: ConstraintSettings,
    pub rpc: RpcSettings,
    pub embeddings: EmbeddingSettings,
    pub tokenizer: TokenizerSettings,
    pub reader: ReaderSettings,
    pub log: LogSettings,
}

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
    /// Whether that is also enough to load and unload models for nothing else beyond loopback, where no
    /// key is asked for.
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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelSettings {
    /// The folder whose models are installed.
    pub dir: PathBuf,
    /// Models loaded at start, by id or alias.
    pub preload: Vec<String>,
    /// Models loaded at the same time.
    pub max_loaded: usize,
    /// Answers that a model makes at the same time, unless its `model.toml` says otherwise.
    pub parallel: u8,
    /// Contexts that the slots of a model have room for together, on the CPU.
    pub pool_contexts: u8,
    /// A loaded model is not evicted for another one before this time has passed.
    #[serde(with = "humantime_serde")]
    pub minimum_residency: Duration,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RuntimeSettings {
    /// The vendor's library, for `.rkllm` models.
    pub npu_library: PathBuf,
    /// The CPU runtime, for `.gguf` models. `None`: searched beside the program and in its lib folder.
    #[serde(deserialize_with = "empty_as_none")]
    pub cpu_library: Option<PathBuf>,
    /// The ABI family (such as `1.3.1`) to assume for a library whose version is not known.
    #[serde(deserialize_with = "empty_as_none")]
    pub assume_family: Option<String>,
    /// `RKLLM_LOG_LEVEL` for workers: 0, 1 (perf table) or 2 (prints users' text).
    pub log_level: u8,
    /// Further environment variables that workers inherit.
    pub pass_environment: Vec<String>,
    /// Whether a crashing worker may write a core dump.
    pub core_dumps: bool,
}

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
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ChatSettings {
    pub control_tokens: ControlTokenPolicy,
    /// Whether `/v1/completions` prompts may carry control tokens, for clients that render chat
    /// templates themselves.
    pub raw_completions: bool,
    /// Refuse sampling values that the runtime cannot vary per request instead of listing them in
    /// `x-rkllmd-not-applied`.
    pub strict_parameters: bool,
    /// Largest number of stop strings in one request.
    pub max_stops: usize,
    /// Largest one of them, in bytes.
    pub stop_limit_bytes: usize,
    /// Largest number of functions in one request.
    pub max_tools: usize,
    /// Most bytes of their names, descriptions and schemas together.
    pub tools_limit_bytes: usize,
    /// Most values of their schemas together, and of `chat_template_kwargs`, those inside others included.
    pub max_values: usize,
    /// Largest number of tokens in `logit_bias`.
    pub max_logit_biases: usize,
    /// Whether thoughts are answered as `reasoning` as well, beside `reasoning_content`.
    pub also_reasoning: bool,
}

/// Answers that are kept to a format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConstraintSettings {
    /// White space between the tokens of JSON.
    pub white_space: WhiteSpace,
    /// Whether the model is told of the format.
    pub show_format: bool,
    /// Largest schema, in bytes.
    pub schema_limit_bytes: usize,
    /// Deepest one, in schemas inside each other.
    pub max_schema_depth: usize,
    /// Symbols of its grammar.
    pub max_grammar_symbols: usize,
    /// States of its lexer.
    pub max_lexer_states: usize,
    /// Steps of its lexer for one token.
    pub max_lexer_steps: u64,
}

impl ConstraintSettings {
    /// What one format may cost.
    pub fn limits(&self) -> crate::constraint::Limits {
        crate::constraint::Limits {
            white_space: self.white_space,
            schema_bytes: self.schema_limit_bytes,
            schema_depth: self.max_schema_depth,
            grammar_symbols: self.max_grammar_symbols,
            lexer_states: self.max_lexer_states,
            lexer_steps: self.max_lexer_steps,
        }
    }
}

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

/// What one request to `/v1/embeddings` may ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct EmbeddingSettings {
    /// Largest number of inputs.
    pub max_inputs: usize,
    /// Largest size of all inputs together, in bytes; a token counts as four.
    pub limit_bytes: usize,
}

/// Tokens for clients that ask for no run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TokenizerSettings {
    /// Largest text that is made into tokens, in bytes; a token that is made into text counts as
    /// four.
    pub limit_bytes: usize,
}

/// The processes that read models' files, render their templates and make tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ReaderSettings {
    /// How many may run at the same time.
    pub max_processes: usize,
    /// One that was asked nothing for this long ends.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// Address space of one, in bytes: what its model's files need beyond it ends it.
    pub memory_limit_bytes: u64,
    /// CPU time of one in its life, at least twice `deadlines.reader-call`; it is replaced once it has
    /// used half of it.
    #[serde(with = "humantime_serde")]
    pub cpu_limit: Duration,
    /// Texts of a model's control tokens, all together; a model with more is not used.
    pub control_tokens_limit_bytes: usize,
    /// Instructions that a template may take for one prompt.
    pub template_steps: u64,
    /// Bytes that a template may write for one prompt, beside four times the conversation.
    pub template_output_bytes: usize,
    pub sandbox: ReaderSandbox,
}

/// Whether the processes that read models' files must be locked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReaderSandbox {
    /// Where the kernel cannot do it, nothing is read.
    Required,
    /// For emulators, whose kernels have no seccomp: the models' files are trusted.
    Off,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LogSettings {
    /// `RUST_LOG`-style filter.
    pub filter: String,
}
