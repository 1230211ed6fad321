//! ABI family 1.2.1 (releases 1.2.1, 1.2.2 and 1.2.3): the oldest one that is run. The callback
//! returns an `int` from here on, perf figures arrive with FINISH, and the input carries a role.

pub use super::v1_2_1b1::{
    AbortFn, CBool, DestroyFn, IsRunningFn, LLMCallState, LLMHandle, LoadLoraFn, LoadPromptCacheFn,
    RKLLM_INFER_GENERATE, RKLLM_INFER_GET_LAST_HIDDEN_LAYER, RKLLM_INFER_GET_LOGITS,
    RKLLM_INPUT_EMBED, RKLLM_INPUT_MULTIMODAL, RKLLM_INPUT_PROMPT, RKLLM_INPUT_TOKEN,
    RKLLM_RUN_ERROR, RKLLM_RUN_FINISH, RKLLM_RUN_NORMAL, RKLLM_RUN_WAITING, RKLLMEmbedInput,
    RKLLMInferMode, RKLLMInferParam, RKLLMInputPayload, RKLLMInputType, RKLLMLoraAdapter,
    RKLLMLoraParam, RKLLMMultiModelInput as RKLLMMultiModalInput, RKLLMPromptCacheParam,
    RKLLMResultLastHiddenLayer, RKLLMResultLogits, RKLLMTokenInput, ReleasePromptCacheFn,
    SetChatTemplateFn,
};
use core::ffi::{c_char, c_float, c_int, c_void};

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
    pub top_p: c_float,
    pub temperature: c_float,
    pub repeat_penalty: c_float,
    pub frequency_penalty: c_float,
    pub presence_penalty: c_float,
    pub mirostat: i32,
    pub mirostat_tau: c_float,
    pub mirostat_eta: c_float,
    pub skip_special_token: CBool,
    pub is_async: CBool,
    pub img_start: *const c_char,
    pub img_end: *const c_char,
    pub img_content: *const c_char,
    pub extend_param: RKLLMExtendParam,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMInput {
    pub role: *const c_char,
    pub enable_thinking: CBool,
    pub input_type: RKLLMInputType,
    pub payload: RKLLMInputPayload,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMCrossAttnParam {
    pub encoder_k_cache: *mut c_float,
    pub encoder_v_cache: *mut c_float,
    pub encoder_mask: *mut c_float,
    pub encoder_pos: *mut i32,
    pub num_tokens: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMPerfStat {
    pub prefill_time_ms: c_float,
    pub prefill_tokens: c_int,
    pub generate_time_ms: c_float,
    pub generate_tokens: c_int,
    pub memory_usage_mb: c_float,
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

/// Returns 0 to go on, 1 to pause. A callback without a return value, as before this family,
/// leaves garbage in the return register.
pub type LLMResultCallback = unsafe extern "C" fn(
    result: *mut RKLLMResult,
    userdata: *mut c_void,
    state: LLMCallState,
) -> c_int;

pub type CreateDefaultParamFn = unsafe extern "C" fn() -> RKLLMParam;
pub type InitFn = unsafe extern "C" fn(*mut LLMHandle, *mut RKLLMParam, LLMResultCallback) -> c_int;
pub type RunFn =
    unsafe extern "C" fn(LLMHandle, *mut RKLLMInput, *mut RKLLMInferParam, *mut c_void) -> c_int;
pub type RunAsyncFn = RunFn;
pub type ClearKvCacheFn = unsafe extern "C" fn(LLMHandle, c_int, *mut c_int, *mut c_int) -> c_int;
pub type GetKvCacheSizeFn = unsafe extern "C" fn(LLMHandle, *mut c_int) -> c_int;
pub type SetFunctionToolsFn =
    unsafe extern "C" fn(LLMHandle, *const c_char, *const c_char, *const c_char) -> c_int;
pub type SetCrossAttnParamsFn = unsafe extern "C" fn(LLMHandle, *mut RKLLMCrossAttnParam) -> c_int;

/// Every function the headers of this family declare.
pub const FUNCTIONS: &[&str] = &[
    "rkllm_createDefaultParam",
    "rkllm_init",
    "rkllm_load_lora",
    "rkllm_load_prompt_cache",
    "rkllm_release_prompt_cache",
    "rkllm_destroy",
    "rkllm_run",
    "rkllm_run_async",
    "rkllm_abort",
    "rkllm_is_running",
    "rkllm_clear_kv_cache",
    "rkllm_get_kv_cache_size",
    "rkllm_set_chat_template",
    "rkllm_set_function_tools",
    "rkllm_set_cross_attn_params",
];
