//! What rkllm-cpu takes of a run beyond the vendor's ABI; no library of the vendor has it.

use core::ffi::{c_float, c_int, c_void};
use core::mem::offset_of;

use super::v1_3_1::LLMHandle;

/// Sees each row of logits before a token is drawn from it.
pub type LLMLogitsHook = unsafe extern "C" fn(
    userdata: *mut c_void,
    ids: *const i32,
    n_ids: usize,
    logits: *mut c_float,
    n_vocab: usize,
) -> c_int;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RKLLMLogitBias {
    pub token: i32,
    pub bias: c_float,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMRunExtension {
    pub size: usize,
    pub logits_hook: Option<LLMLogitsHook>,
    pub hook_userdata: *mut c_void,
    pub logit_bias: *const RKLLMLogitBias,
    pub n_logit_bias: usize,
    pub seed: i64,
    pub min_p: c_float,
}

pub type SetRunExtensionFn = unsafe extern "C" fn(LLMHandle, *const RKLLMRunExtension) -> c_int;

// The assertions of rkllm-cpu's header.
const _: () = {
    assert!(size_of::<RKLLMLogitBias>() == 8);
    assert!(offset_of!(RKLLMLogitBias, bias) == 4);
    assert!(size_of::<RKLLMRunExtension>() == 56);
    assert!(offset_of!(RKLLMRunExtension, logits_hook) == 8);
    assert!(offset_of!(RKLLMRunExtension, hook_userdata) == 16);
    assert!(offset_of!(RKLLMRunExtension, logit_bias) == 24);
    assert!(offset_of!(RKLLMRunExtension, n_logit_bias) == 32);
    assert!(offset_of!(RKLLMRunExtension, seed) == 40);
    assert!(offset_of!(RKLLMRunExtension, min_p) == 48);
};
