//! `rkllm_load_lora`.

use std::ffi::c_int;

use super::{FAILED, OK, with_idle_engine};
use crate::abi::*;
use crate::log::error;
use crate::marshalling::string_of;

/// Loads a GGUF adapter under a name that runs choose it by. Its scale is fixed here, and it stays
/// until the handle is destroyed.
///
/// # Safety
/// The adapter is NULL or points to what the ABI says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rkllm_load_lora(
    handle: LLMHandle,
    lora_adapter: *mut RKLLMLoraAdapter,
) -> c_int {
    // SAFETY: by this function's contract.
    let adapter = unsafe { lora_adapter.as_ref() };
    with_idle_engine(handle, "rkllm_load_lora", |engine| {
        let Some(adapter) = adapter else {
            error!("rkllm_load_lora needs an adapter, but got NULL");
            return FAILED;
        };
        // SAFETY: by this function's contract.
        let [name, path] = unsafe {
            [adapter.lora_adapter_name, adapter.lora_adapter_path].map(|text| string_of(text))
        };
        let (Some(name), Some(path)) = (name, path) else {
            error!("lora_adapter_name and lora_adapter_path must not be NULL");
            return FAILED;
        };
        match engine.load_adapter(&name, &path, adapter.scale) {
            Ok(()) => OK,
            Err(reason) => {
                error!("{reason}");
                FAILED
            }
        }
    })
}
