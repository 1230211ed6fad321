//! Calls that may be made while a model runs, from any thread, and its end.

use super::ControlHandle;
use crate::error::CallError;
use crate::symbols;
use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::sync::PoisonError;

/// More than the 100 sequences a library accepts (`n_batch`), so that it cannot write past the
/// end even if it disagrees about their number.
const KV_CACHE_SIZES: usize = 128;

impl ControlHandle {
    /// Asks the run in progress to end (`rkllm_abort`). Returns at once; the run ends with one
    /// FINISH, after prefill if it was in it (docs/vendor-library.md §3: 1.3 s later).
    pub fn abort(&self) -> Result<(), CallError> {
        const NAME: &str = "rkllm_abort";
        let abort = self.0.library.symbols().abort;
        // SAFETY: the handle is alive while `with_raw` holds it, and the library allows this
        // call from other threads and from the callback.
        let code = self.with_raw(NAME, |raw| unsafe { abort(raw) })?;
        self.0.library.succeeded(NAME, code)
    }

    /// Whether a run is in progress (`rkllm_is_running`): the library returns 1 while running in
    /// every release, whatever its older headers say (docs/vendor-library.md §3).
    pub fn is_running(&self) -> Result<bool, CallError> {
        const NAME: &str = "rkllm_is_running";
        let is_running = self.0.library.symbols().is_running;
        // SAFETY: as in `abort`.
        match self.with_raw(NAME, |raw| unsafe { is_running(raw) })? {
            0 => Ok(false),
            1 => Ok(true),
            code => Err(CallError::Failed {
                function: NAME,
                code,
                version: self.0.library.version().to_owned(),
            }),
        }
    }

    /// Tokens in the KV cache (`rkllm_get_kv_cache_size`).
    pub fn kv_cache_size(&self) -> Result<i32, CallError> {
        let sizes = self.kv_cache_sizes()?;
        match sizes.first().copied().unwrap_or(-1) {
            size @ 0.. => Ok(size),
            size => Err(CallError::OutOfRange {
                what: "the KV cache size the library gave",
                value: size.to_string(),
                allowed: "it must be at least 0",
            }),
        }
    }

    /// Tokens in the KV cache of each sequence, as the library gives them.
    pub fn kv_cache_sizes(&self) -> Result<Vec<i32>, CallError> {
        const NAME: &str = "rkllm_get_kv_cache_size";
        let library = &self.0.library;
        let size = symbols::require(library.symbols().get_kv_cache_size, NAME, library.version())?;
        let mut sizes: [c_int; KV_CACHE_SIZES] = [-1; KV_CACHE_SIZES];
        // SAFETY: as in `abort`; the array has room for every sequence a library can have.
        let code = self.with_raw(NAME, |raw| unsafe { size(raw, sizes.as_mut_ptr()) })?;
        library.succeeded(NAME, code)?;
        Ok(sizes[..self.0.sequences].to_vec())
    }

    /// Sequences a run works on (`n_batch` of init).
    pub fn sequences(&self) -> usize {
        self.0.sequences
    }

    pub(crate) fn understands_release(&self) -> bool {
        self.0.library.family().has_release_buffer()
    }

    /// The pointer, for calls that borrow the `Handle` and so cannot overlap its end.
    pub(crate) fn raw(&self, function: &'static str) -> Result<NonNull<c_void>, CallError> {
        let raw = self.0.raw.read().unwrap_or_else(PoisonError::into_inner);
        raw.map(|raw| raw.0)
            .ok_or(CallError::Destroyed { function })
    }

    /// Makes a call that destroying waits for.
    fn with_raw(
        &self,
        function: &'static str,
        call: impl FnOnce(*mut c_void) -> c_int,
    ) -> Result<c_int, CallError> {
        let raw = self.0.raw.read().unwrap_or_else(PoisonError::into_inner);
        raw.map(|raw| call(raw.0.as_ptr()))
            .ok_or(CallError::Destroyed { function })
    }

    pub(super) fn destroy(&self) -> Result<(), CallError> {
        const NAME: &str = "rkllm_destroy";
        let mut guard = self.0.raw.write().unwrap_or_else(PoisonError::into_inner);
        let raw = guard
            .take()
            .ok_or(CallError::Destroyed { function: NAME })?;
        // Not held through the call: should it hang, control calls still say "destroyed".
        drop(guard);
        // SAFETY: taken out under the lock, so this is the only call that still has the pointer;
        // runs and other serial calls borrow the `Handle`, which is being consumed.
        let code = unsafe { (self.0.library.symbols().destroy)(raw.0.as_ptr()) };
        self.0.library.succeeded(NAME, code)
    }
}
