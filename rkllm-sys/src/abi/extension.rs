//! What rkllm-cpu takes of a run beyond the vendor's ABI; no library of the vendor has it.

use core::ffi::{c_char, c_float, c_int, c_void};
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

/// Says whether the hook would look at the next row.
pub type LLMRowQuestion =
    unsafe extern "C" fn(userdata: *mut c_void, ids: *const i32, n_ids: usize) -> c_int;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RKLLMLogitBias {
    pub token: i32,
    pub bias: c_float,
}

/// A token and how likely it was.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RKLLMTokenLogprob {
    pub token: i32,
    pub logprob: c_float,
    pub piece: *const c_char,
    pub piece_len: usize,
}

/// Is told how likely tokens were.
pub type LLMLogprobsCallback = unsafe extern "C" fn(
    userdata: *mut c_void,
    of_prompt: i32,
    token: *const RKLLMTokenLogprob,
    top: *const RKLLMTokenLogprob,
    n_top: usize,
);

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
    pub logprobs_callback: Option<LLMLogprobsCallback>,
    pub logprobs_userdata: *mut c_void,
    pub n_logprobs: i32,
    pub prompt_logprobs: i32,
    pub end_tokens: *const i32,
    pub n_end_tokens: usize,
    pub min_tokens: i32,
    pub deterministic: i32,
    pub row_question: Option<LLMRowQuestion>,
}

/// Where the second version of the struct ends, from which on log probabilities are told.
pub const SECOND_SIZE: usize = 104;

pub type RunExtensionSizeFn = unsafe extern "C" fn() -> usize;
/// Not 0: a sequence of a run may be given no input.
pub type TakesIdleSequencesFn = unsafe extern "C" fn() -> c_int;
pub type SetRunExtensionFn = unsafe extern "C" fn(LLMHandle, *const RKLLMRunExtension) -> c_int;

// The assertions of rkllm-cpu's header.
const _: () = {
    assert!(size_of::<RKLLMLogitBias>() == 8);
    assert!(offset_of!(RKLLMLogitBias, bias) == 4);
    assert!(size_of::<RKLLMTokenLogprob>() == 24);
    assert!(offset_of!(RKLLMTokenLogprob, logprob) == 4);
    assert!(offset_of!(RKLLMTokenLogprob, piece) == 8);
    assert!(offset_of!(RKLLMTokenLogprob, piece_len) == 16);
    assert!(size_of::<RKLLMRunExtension>() == 112);
    assert!(offset_of!(RKLLMRunExtension, logits_hook) == 8);
    assert!(offset_of!(RKLLMRunExtension, hook_userdata) == 16);
    assert!(offset_of!(RKLLMRunExtension, logit_bias) == 24);
    assert!(offset_of!(RKLLMRunExtension, n_logit_bias) == 32);
    assert!(offset_of!(RKLLMRunExtension, seed) == 40);
    assert!(offset_of!(RKLLMRunExtension, min_p) == 48);
    assert!(offset_of!(RKLLMRunExtension, logprobs_callback) == 56);
    assert!(offset_of!(RKLLMRunExtension, logprobs_userdata) == 64);
    assert!(offset_of!(RKLLMRunExtension, n_logprobs) == 72);
    assert!(offset_of!(RKLLMRunExtension, prompt_logprobs) == 76);
    assert!(offset_of!(RKLLMRunExtension, end_tokens) == 80);
    assert!(offset_of!(RKLLMRunExtension, n_end_tokens) == 88);
    assert!(offset_of!(RKLLMRunExtension, min_tokens) == 96);
    assert!(offset_of!(RKLLMRunExtension, deterministic) == 100);
    assert!(offset_of!(RKLLMRunExtension, row_question) == 104);
};
