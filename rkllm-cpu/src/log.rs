//! Every line this library prints. Lines go to stdout through C stdio, never through Rust's own
//! buffer, because that is where the vendor's go: a host that line-buffers, redirects or flushes C
//! `stdout` sees them in order with its own. One call prints one whole line.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_void};
use std::fmt;

use llama_cpp_sys_2 as llama;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Info,
    Warning,
    Error,
}

/// `RKLLM_LOG_LEVEL`, read when a model is initialised: 1 adds the performance table, 2 also the
/// parameters, the prompt's tokens and the cache decisions (and so leaks users' text).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Verbosity(u8);

impl Verbosity {
    pub(crate) const PERFORMANCE: Verbosity = Verbosity(1);
    pub(crate) const DETAILS: Verbosity = Verbosity(2);

    pub(crate) fn from_environment() -> Verbosity {
        let level = std::env::var("RKLLM_LOG_LEVEL").ok();
        Verbosity(level.and_then(|l| l.trim().parse().ok()).unwrap_or(0))
    }
}

pub(crate) fn line(level: Level, message: fmt::Arguments<'_>) {
    let letter = match level {
        Level::Info => 'I',
        Level::Warning => 'W',
        Level::Error => 'E',
    };
    // A NUL would end the line early; text that holds one is shown without it.
    let mut bytes = format!("{letter} rkllm: {message}").into_bytes();
    bytes.retain(|&byte| byte != 0);
    if let Ok(text) = CString::new(bytes) {
        // SAFETY: the format has exactly one conversion and `text` is a live C string.
        unsafe { libc::printf(c"%s\n".as_ptr(), text.as_ptr()) };
    }
}

macro_rules! info {
    ($($arg:tt)*) => { $crate::log::line($crate::log::Level::Info, format_args!($($arg)*)) };
}
macro_rules! warning {
    ($($arg:tt)*) => { $crate::log::line($crate::log::Level::Warning, format_args!($($arg)*)) };
}
macro_rules! error {
    ($($arg:tt)*) => { $crate::log::line($crate::log::Level::Error, format_args!($($arg)*)) };
}
pub(crate) use {error, info, warning};

thread_local! {
    /// The part of llama.cpp's current line that has arrived; it logs in pieces.
    static PARTIAL: RefCell<(Option<Level>, String)> = const { RefCell::new((None, String::new())) };
    static MUTED: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, llama.cpp's complaints on this thread are dropped: an abort we asked for is
/// reported by it as a failed computation.
pub(crate) struct MutedEngineLog(());

impl MutedEngineLog {
    pub(crate) fn mute() {
        MUTED.set(true);
    }

    /// Ends any muting when it is dropped.
    pub(crate) fn scope() -> MutedEngineLog {
        MutedEngineLog(())
    }
}

impl Drop for MutedEngineLog {
    fn drop(&mut self) {
        MUTED.set(false);
    }
}

/// llama.cpp's log: only its warnings and errors become lines.
pub(crate) unsafe extern "C" fn engine_log(
    level: llama::ggml_log_level,
    text: *const c_char,
    _user_data: *mut c_void,
) {
    if text.is_null() || MUTED.get() {
        return;
    }
    // SAFETY: llama.cpp passes a NUL-terminated string that lives for the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    PARTIAL.with_borrow_mut(|(pending_level, pending)| {
        if level != llama::GGML_LOG_LEVEL_CONT {
            *pending_level = match level {
                llama::GGML_LOG_LEVEL_WARN => Some(Level::Warning),
                llama::GGML_LOG_LEVEL_ERROR => Some(Level::Error),
                _ => None,
            };
            pending.clear();
        }
        let Some(level) = *pending_level else { return };
        pending.push_str(&text);
        while let Some(end) = pending.find('\n') {
            let rest = pending.split_off(end + 1);
            line(level, format_args!("{}", pending.trim_end()));
            *pending = rest;
        }
    });
}
