//! `rkllm_load_prompt_cache` and `rkllm_release_prompt_cache`.

use std::ffi::{c_char, c_int};

use super::{FAILED, OK, with_idle_engine};
use crate::abi::*;
use crate::log::error;
use crate::marshalling::string_of;

/// Loads a prompt that a run with `save_prompt_cache` wrote; runs that begin with it need not
/// evaluate it again. One at a time, for the model that wrote it.
///
/// # Safety
/// The path is NULL or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rkllm_load_prompt_cache(
    handle: LLMHandle,
    prompt_cache_path: *const c_char,
) -> c_int {
    // SAFETY: by this function's contract.
    let path = unsafe { string_of(prompt_cache_path) };
    with_idle_engine(handle, "rkllm_load_prompt_cache", |engine| {
        let Some(path) = path else {
            error!("prompt_cache_path must not be NULL");
            return FAILED;
        };
        match engine.load_prompt_cache(&path) {
            Ok(()) => OK,
            Err(reason) => {
                error!("{reason}");
                FAILED
            }
        }
    })
}

/// Forgets the loaded prompt; without one, does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn rkllm_release_prompt_cache(handle: LLMHandle) -> c_int {
    with_idle_engine(handle, "rkllm_release_prompt_cache", |engine| {
        engine.release_prompt_cache();
        OK
    })
}
