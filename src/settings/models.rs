//! What is installed and loaded, by which library, and the processes that read its files.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ModelAlias;
use super::optional::empty_as_none;
use crate::generation::KeepAlive;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelSettings {
    /// The folder whose models are installed.
    pub dir: PathBuf,
    /// Models loaded at start, by id or alias.
    pub preload: Vec<String>,
    /// Names that mean a model although it does not have them, the first one that fits.
    pub aliases: Vec<ModelAlias>,
    /// Models loaded at the same time.
    pub max_loaded: usize,
    /// Answers that a model makes at the same time, unless its `model.toml` says otherwise.
    pub parallel: u8,
    /// Contexts that the slots of a model have room for together, on the CPU.
    pub pool_contexts: u8,
    /// A loaded model is not evicted for another one before this time has passed.
    #[serde(with = "humantime_serde")]
    pub minimum_residency: Duration,
    /// For how long a model stays loaded that nothing uses, unless its `model.toml` or a request says
    /// otherwise.
    pub keep_alive: KeepAlive,
    /// Models that requests may make of installed ones.
    pub max_variants: usize,
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
