//! `rkllm_set_run_extension` and what tells hosts of what this library takes: the vendor's has none of it.

use std::ffi::c_int;

use super::{FAILED, OK, with_idle_engine};
use crate::abi::*;
use crate::log::error;
use crate::vendor_only;

/// Gives the next run that the handle begins more than its parameters say; that run takes it, also if it
/// is refused. NULL takes back what was given. A paused run that goes on keeps its own.
///
/// # Safety
/// The extension is NULL or points to what the header says; what it points to is copied, but for the
/// userdata.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rkllm_set_run_extension(
    handle: LLMHandle,
    extension: *const RKLLMRunExtension,
) -> c_int {
    with_idle_engine(handle, "rkllm_set_run_extension", |engine| {
        // SAFETY: by this function's contract.
        let set = unsafe { engine.extend_next_run(extension) };
        match set {
            Ok(()) => OK,
            Err(reason) => {
                error!("{reason}");
                FAILED
            }
        }
    })
}

/// The size of the struct that this library knows, for hosts to ask first; 0: it takes none.
#[unsafe(no_mangle)]
pub extern "C" fn rkllm_run_extension_size() -> usize {
    match vendor_only::is_asked_for() {
        true => 0,
        false => size_of::<RKLLMRunExtension>(),
    }
}

/// Whether a sequence of several may be given no input; 0: each needs one.
#[unsafe(no_mangle)]
pub extern "C" fn rkllm_takes_idle_sequences() -> c_int {
    c_int::from(!vendor_only::is_asked_for())
}
