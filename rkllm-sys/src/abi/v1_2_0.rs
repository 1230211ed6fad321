//! ABI family 1.2.0: `n_keep`, CPU mask, logits, history and chat templates arrive. Described so
//! that such a library is recognised by more than its name; it is never run.

pub use super::v1_1::{
    AbortFn, CBool, DestroyFn, IsRunningFn, LLMCallState, LLMHandle, LoadLoraFn, LoadPromptCacheFn,
    RKLLM_INFER_GENERATE, RKLLM_INFER_GET_LAST_HIDDEN_LAYER, RKLLM_INPUT_EMBED,
    RKLLM_INPUT_MULTIMODAL, RKLLM_INPUT_PROMPT, RKLLM_INPUT_TOKEN, RKLLM_RUN_ERROR,
    RKLLM_RUN_FINISH, RKLLM_RUN_NORMAL, RKLLM_RUN_WAITING, RKLLMEmbedInput, RKLLMInferMode,
    RKLLMInput, RKLLMInputPayload, RKLLMInputType, RKLLMLoraAdapter, RKLLMLoraParam,
    RKLLMMultiModelInput, RKLLMPromptCacheParam, RKLLMResultLastHiddenLayer, RKLLMTokenInput,
    ReleasePromptCacheFn,
};
use core::ffi::{c_char, c_float, c_int, c_void};

pub const RKLLM_INFER_GET_LOGITS: RKLLMInferMode = 2;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMExtendParam {
    pub base_domain_id: i32,
    pub embed_flash: i8,
    pub enabled_cpus_num: i8,
    pub enabled_cpus_mask: u32,
    pub reserved: [u8; 106],
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
pub struct RKLLMInferParam {
    pub mode: RKLLMInferMode,
    pub lora_params: *mut RKLLMLoraParam,
    pub prompt_cache_params: *mut RKLLMPromptCacheParam,
    pub keep_history: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMResultLogits {
    pub logits: *const c_float,
    pub vocab_size: c_int,
    pub num_tokens: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMResult {
    pub text: *const c_char,
    pub token_id: i32,
    pub last_hidden_layer: RKLLMResultLastHiddenLayer,
    pub logits: RKLLMResultLogits,
}

pub type LLMResultCallback =
    unsafe extern "C" fn(result: *mut RKLLMResult, userdata: *mut c_void, state: LLMCallState);

pub type CreateDefaultParamFn = unsafe extern "C" fn() -> RKLLMParam;
pub type InitFn = unsafe extern "C" fn(*mut LLMHandle, *mut RKLLMParam, LLMResultCallback) -> c_int;
pub type RunFn =
    unsafe extern "C" fn(LLMHandle, *mut RKLLMInput, *mut RKLLMInferParam, *mut c_void) -> c_int;
pub type RunAsyncFn = RunFn;
pub type ClearKvCacheFn = unsafe extern "C" fn(LLMHandle, c_int) -> c_int;
pub type SetChatTemplateFn =
    unsafe extern "C" fn(LLMHandle, *const c_char, *const c_char, *const c_char) -> c_int;

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
    "rkllm_set_chat_template",
];
