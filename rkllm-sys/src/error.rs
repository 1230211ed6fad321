//! Every way that opening or calling a runtime library fails. A message names the file or
//! function, what was found, and what to do; the caller never has to read a return code.

use crate::family::{Family, UPGRADE_TO};
use crate::run::RunId;
use std::path::PathBuf;

/// Why a file was not opened as a runtime library. Nothing of the file has run, except for
/// [`OpenError::Load`] and the variants after it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error(
        "cannot read the runtime library {}: {source}; check the path and its permissions, or install the \
         library there",
        path.display()
    )]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },

    #[error(
        "{} is not a shared library: {found}; install the vendor's librkllmrt.so there",
        path.display()
    )]
    NotALibrary { path: PathBuf, found: String },

    #[error(
        "{} is truncated: its {part} ends at byte {needed_bytes} but the file has {actual_bytes}; \
         copy or download the library again",
        path.display()
    )]
    Truncated {
        path: PathBuf,
        part: &'static str,
        needed_bytes: u64,
        actual_bytes: u64,
    },

    #[error(
        "{} is built for {found}, this program for {expected}; install the {expected} build of \
         the library",
        path.display()
    )]
    WrongArchitecture {
        path: PathBuf,
        found: String,
        expected: &'static str,
    },

    #[error(
        "{} has no `RKLLM SDK (version: …)` text, so it is not a librkllmrt.so; check the path",
        path.display()
    )]
    NoVersion { path: PathBuf },

    #[error(
        "{} is version {version}, whose interface is too old to be run; upgrade the library to \
         {UPGRADE_TO}",
        path.display()
    )]
    TooOld {
        path: PathBuf,
        version: String,
        /// `None` for a release before every family this crate describes.
        family: Option<Family>,
    },

    #[error(
        "{} is version {version}, which is unknown here, and a wrong guess corrupts memory; \
         install {UPGRADE_TO}, or name the family to assume (setting runtime.assume-family, for instance \"1.3.1\")",
        path.display()
    )]
    UnknownVersion { path: PathBuf, version: String },

    #[error(
        "the family to assume for {} is {family}, which is too old to be run; name {} or newer",
        path.display(),
        Family::V1_2_1
    )]
    AssumedFamilyTooOld { path: PathBuf, family: Family },

    #[error(
        "cannot load {} (version {version}): {source}; a missing dependency is named above \
         (Debian: libgomp1, libstdc++6)",
        path.display()
    )]
    Load {
        path: PathBuf,
        version: String,
        source: libloading::Error,
    },

    #[error(
        "{} (version {version}) lacks the function {symbol}, which every librkllmrt.so has; \
         install the library again",
        path.display()
    )]
    MissingSymbol {
        path: PathBuf,
        version: String,
        symbol: &'static str,
    },

    #[error(
        "{} says version {version} (family {family}) but exports none of {missing}, so it is \
         older than it says; install the library again",
        path.display()
    )]
    SymbolsContradictFamily {
        path: PathBuf,
        version: String,
        family: Family,
        missing: String,
    },

    #[error(
        "{} says version {version} (family {family}), whose parameters take {expected_bytes} \
         bytes, but it wrote byte {written_byte}; the file is not what it says, install the \
         library again or name another family to assume",
        path.display()
    )]
    ProbeOverrun {
        path: PathBuf,
        version: String,
        family: Family,
        expected_bytes: usize,
        written_byte: usize,
    },

    #[error(
        "{} says version {version} (family {family}), but its default {field} would be {value}; \
         the file is not what it says, install the library again or name another family to assume",
        path.display()
    )]
    ProbeField {
        path: PathBuf,
        version: String,
        family: Family,
        field: &'static str,
        value: String,
    },
}

/// Why a call into the library failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    #[error(
        "{function} returned {code} (librkllmrt {version}); the runtime's own log lines say why"
    )]
    Failed {
        function: &'static str,
        code: i32,
        version: String,
    },

    /// Seen when the NPU memory ran out: success is reported and there is no handle.
    #[error(
        "rkllm_init returned 0 without a handle (librkllmrt {version}), most likely out of NPU \
         memory; free memory or use a smaller model"
    )]
    NoHandle { version: String },

    #[error("librkllmrt {version} does not export {function}; a release that does is {UPGRADE_TO}")]
    SymbolMissing {
        function: &'static str,
        version: String,
    },

    #[error("librkllmrt {version} cannot {what}: it came with 1.3.0")]
    NotInFamily { what: &'static str, version: String },

    /// Something that only other releases have.
    #[error("{what} is not in librkllmrt {version}")]
    NotInLibrary { what: &'static str, version: String },

    #[error("{what} holds a NUL character at byte {position}; C strings cannot, remove it")]
    InteriorNul { what: &'static str, position: usize },

    #[error("{what} is {value}, which is out of range: {allowed}")]
    OutOfRange {
        what: &'static str,
        value: String,
        allowed: &'static str,
    },

    /// Calls on one handle are serial (docs/vendor-library.md §2).
    #[error("{function} was called while another call on the same model is in progress")]
    Busy { function: &'static str },

    #[error("{function} was called after the model was destroyed")]
    Destroyed { function: &'static str },

    #[error("run {run} is in progress already; run ids must be unique in a process")]
    RunIdInUse { run: RunId },

    #[error("the receiver of run {run} panicked and the run was aborted: {message}")]
    SinkPanicked { run: RunId, message: String },
}
