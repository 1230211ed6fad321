//! The C layouts of ABI 1.3.1, as this library offers them. Every size and offset is asserted at
//! compile time against the measured facts. They are written down here a second time on purpose:
//! `rkllm-sys` describes the same ABI from the caller's side, and the two sides of an ABI only
//! check each other while neither is derived from the other.

use std::ffi::{c_char, c_int, c_void};
use std::mem::{offset_of, size_of};

/// What a caller holds; here a number (`exports::live_handles`).
pub(crate) type LLMHandle = *mut c_void;

pub(crate) const RKLLM_RUN_NORMAL: u32 = 0;
/// The token ends inside a UTF-8 character: no text, the whole character comes with the next NORMAL.
pub(crate) const RKLLM_RUN_WAITING: u32 = 1;
pub(crate) const RKLLM_RUN_FINISH: u32 = 2;
pub(crate) const RKLLM_RUN_ERROR: u32 = 3;

pub(crate) const RKLLM_INPUT_PROMPT: u32 = 0;
pub(crate) const RKLLM_INPUT_TOKEN: u32 = 1;
pub(crate) const RKLLM_INPUT_EMBED: u32 = 2;
pub(crate) const RKLLM_INPUT_MULTIMODAL: u32 = 3;

pub(crate) const RKLLM_INFER_GENERATE: u32 = 0;
pub(crate) const RKLLM_INFER_GET_LAST_HIDDEN_LAYER: u32 = 1;
pub(crate) const RKLLM_INFER_GET_LOGITS: u32 = 2;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMExtendParam {
    pub base_domain_id: i32,
    pub embed_flash: i8,
    pub enabled_cpus_num: i8,
    pub enabled_cpus_mask: u32,
    pub n_batch: u8,
    pub use_cross_attn: i8,
    pub reserved: [u8; 104],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMParam {
    pub model_path: *const c_char,
    pub max_context_len: i32,
    pub max_new_tokens: i32,
    pub top_k: i32,
    pub n_keep: i32,
    pub top_p: f32,
    pub temperature: f32,
    pub repeat_penalty: f32,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    pub mirostat: i32,
    pub mirostat_tau: f32,
    pub mirostat_eta: f32,
    pub skip_special_token: bool,
    pub ignore_eos_token: bool,
    pub is_async: bool,
    pub extend_param: RKLLMExtendParam,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMTokenInput {
    pub input_ids: *mut i32,
    pub n_tokens: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMEmbedInput {
    pub embed: *mut f32,
    pub n_tokens: usize,
}

/// The union of `RKLLMInput`. The multimodal member is not read by this runtime, so only the
/// union's extent (192 bytes, that member's) is described.
#[repr(C)]
#[derive(Clone, Copy)]
pub union RKLLMInputPayload {
    pub prompt_input: *const c_char,
    pub token_input: RKLLMTokenInput,
    pub embed_input: RKLLMEmbedInput,
    pub extent: [u64; 24],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMInput {
    pub role: *const c_char,
    pub enable_thinking: bool,
    pub input_type: u32,
    pub payload: RKLLMInputPayload,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RKLLMSamplingParam {
    pub top_k: i32,
    pub top_p: f32,
    pub temperature: f32,
    pub repeat_penalty: f32,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    pub mirostat: i32,
    pub mirostat_tau: f32,
    pub mirostat_eta: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMLoraAdapter {
    pub lora_adapter_path: *const c_char,
    pub lora_adapter_name: *const c_char,
    pub scale: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMLoraParam {
    pub lora_adapter_name: *const c_char,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMPromptCacheParam {
    pub save_prompt_cache: c_int,
    pub prompt_cache_path: *const c_char,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMInferParam {
    pub mode: u32,
    pub lora_params: *mut RKLLMLoraParam,
    pub prompt_cache_params: *mut RKLLMPromptCacheParam,
    pub sampling_params: *mut RKLLMSamplingParam,
    pub keep_history: c_int,
    pub max_new_tokens: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMResultLastHiddenLayer {
    pub hidden_states: *const f32,
    pub embd_size: c_int,
    pub num_tokens: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMResultLogits {
    pub logits: *const f32,
    pub vocab_size: c_int,
    pub num_tokens: c_int,
}

/// Filled in FINISH only. `prefill_tokens` are the tokens evaluated (cache hits excluded),
/// `generate_tokens` the tokens after the first, `memory_usage_mb` the process's VmHWM.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RKLLMPerfStat {
    pub prefill_time_ms: f32,
    pub prefill_tokens: c_int,
    pub generate_time_ms: f32,
    pub generate_tokens: c_int,
    pub memory_usage_mb: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMResult {
    pub text: *const c_char,
    pub token_id: i32,
    pub last_hidden_layer: RKLLMResultLastHiddenLayer,
    pub logits: RKLLMResultLogits,
    pub perf: RKLLMPerfStat,
}

/// Returns 0 to go on, 1 to pause, 2 to let the runtime release its output buffers.
pub type LLMResultCallback =
    unsafe extern "C" fn(result: *mut RKLLMResult, userdata: *mut c_void, state: u32) -> c_int;

/// Writes at most `n_tokens_max` tokens of the text and returns how many.
pub type LLMTokenizerCallback = unsafe extern "C" fn(
    userdata: *mut c_void,
    text: *const c_char,
    text_len: i32,
    tokens: *mut i32,
    n_tokens_max: i32,
) -> c_int;

/// Fills `len` bytes with a row of f32 for each token and returns 0.
pub type LLMGetEmbedCallback = unsafe extern "C" fn(
    userdata: *mut c_void,
    tokens: *mut i32,
    num_tokens: u64,
    embed: *mut c_void,
    len: u64,
) -> c_int;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMCallback {
    pub result_callback: Option<LLMResultCallback>,
    pub result_userdata: *mut c_void,
    pub tokenizer_callback: Option<LLMTokenizerCallback>,
    pub tokenizer_userdata: *mut c_void,
    pub embed_callback: Option<LLMGetEmbedCallback>,
    pub embed_userdata: *mut c_void,
}

/// Sees each row before a token is drawn from it; see the header.
pub type LLMLogitsHook = unsafe extern "C" fn(
    userdata: *mut c_void,
    ids: *const i32,
    n_ids: usize,
    logits: *mut f32,
    n_vocab: usize,
) -> c_int;

/// Says whether the hook would look at the next row; see the header.
pub type LLMRowQuestion =
    unsafe extern "C" fn(userdata: *mut c_void, ids: *const i32, n_ids: usize) -> c_int;

/// Is told how likely the tokens of a run were; see the header.
pub type LLMLogprobsCallback = unsafe extern "C" fn(
    userdata: *mut c_void,
    of_prompt: i32,
    token: *const RKLLMTokenLogprob,
    top: *const RKLLMTokenLogprob,
    n_top: usize,
);

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMLogitBias {
    pub token: i32,
    pub bias: f32,
}

/// Beyond the vendor's ABI: what the next run has beside its parameters.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMRunExtension {
    pub size: usize,
    pub logits_hook: Option<LLMLogitsHook>,
    pub hook_userdata: *mut c_void,
    pub logit_bias: *const RKLLMLogitBias,
    pub n_logit_bias: usize,
    pub seed: i64,
    pub min_p: f32,
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

impl RKLLMRunExtension {
    /// The size of the first version of it.
    pub const FIRST_SIZE: usize = 56;
    /// The size of the second version, and where its last field ends: a host need not have set what is
    /// behind that.
    pub const SECOND_SIZE: usize = 104;
    pub const SECOND_END: usize = 100;
}

/// A token and how likely it was; see the header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMTokenLogprob {
    pub token: i32,
    pub logprob: f32,
    pub piece: *const c_char,
    pub piece_len: usize,
}

macro_rules! layout {
    ($($name:ident: $size:literal { $($field:ident @ $offset:literal),* $(,)? })*) => {
        $(const _: () = {
            assert!(size_of::<$name>() == $size);
            $(assert!(offset_of!($name, $field) == $offset);)*
        };)*
    };
}

layout! {
    RKLLMExtendParam: 120 {
        base_domain_id @ 0, embed_flash @ 4, enabled_cpus_num @ 5, enabled_cpus_mask @ 8,
        n_batch @ 12, use_cross_attn @ 13, reserved @ 14,
    }
    RKLLMParam: 184 {
        model_path @ 0, max_context_len @ 8, max_new_tokens @ 12, top_k @ 16, n_keep @ 20,
        top_p @ 24, temperature @ 28, repeat_penalty @ 32, frequency_penalty @ 36,
        presence_penalty @ 40, mirostat @ 44, mirostat_tau @ 48, mirostat_eta @ 52,
        skip_special_token @ 56, ignore_eos_token @ 57, is_async @ 58, extend_param @ 60,
    }
    RKLLMEmbedInput: 16 { embed @ 0, n_tokens @ 8 }
    RKLLMTokenInput: 16 { input_ids @ 0, n_tokens @ 8 }
    RKLLMInputPayload: 192 {}
    RKLLMInput: 208 { role @ 0, enable_thinking @ 8, input_type @ 12, payload @ 16 }
    RKLLMSamplingParam: 36 {
        top_k @ 0, top_p @ 4, temperature @ 8, repeat_penalty @ 12, frequency_penalty @ 16,
        presence_penalty @ 20, mirostat @ 24, mirostat_tau @ 28, mirostat_eta @ 32,
    }
    RKLLMLoraAdapter: 24 { lora_adapter_path @ 0, lora_adapter_name @ 8, scale @ 16 }
    RKLLMLoraParam: 8 { lora_adapter_name @ 0 }
    RKLLMPromptCacheParam: 16 { save_prompt_cache @ 0, prompt_cache_path @ 8 }
    RKLLMInferParam: 40 {
        mode @ 0, lora_params @ 8, prompt_cache_params @ 16, sampling_params @ 24,
        keep_history @ 32, max_new_tokens @ 36,
    }
    RKLLMResultLastHiddenLayer: 16 { hidden_states @ 0, embd_size @ 8, num_tokens @ 12 }
    RKLLMResultLogits: 16 { logits @ 0, vocab_size @ 8, num_tokens @ 12 }
    RKLLMPerfStat: 20 {
        prefill_time_ms @ 0, prefill_tokens @ 4, generate_time_ms @ 8, generate_tokens @ 12,
        memory_usage_mb @ 16,
    }
    RKLLMResult: 72 { text @ 0, token_id @ 8, last_hidden_layer @ 16, logits @ 32, perf @ 48 }
    RKLLMCallback: 48 {
        result_callback @ 0, result_userdata @ 8, tokenizer_callback @ 16, tokenizer_userdata @ 24,
        embed_callback @ 32, embed_userdata @ 40,
    }
    RKLLMLogitBias: 8 { token @ 0, bias @ 4 }
    RKLLMRunExtension: 112 {
        size @ 0, logits_hook @ 8, hook_userdata @ 16, logit_bias @ 24, n_logit_bias @ 32, seed @ 40,
        min_p @ 48, logprobs_callback @ 56, logprobs_userdata @ 64, n_logprobs @ 72,
        prompt_logprobs @ 76, end_tokens @ 80, n_end_tokens @ 88, min_tokens @ 96,
        deterministic @ 100, row_question @ 104,
    }
    RKLLMTokenLogprob: 24 { token @ 0, logprob @ 4, piece @ 8, piece_len @ 16 }
}
