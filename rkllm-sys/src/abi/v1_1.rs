//! ABI family 1.1 (releases 1.1.0 to 1.1.4, byte-identical headers). Described so that such a
//! library is recognised by more than its name; it is never run.

pub use super::{CBool, LLMHandle};
use core::ffi::{c_char, c_float, c_int, c_void};

pub type LLMCallState = u32;
pub const RKLLM_RUN_NORMAL: LLMCallState = 0;
pub const RKLLM_RUN_WAITING: LLMCallState = 1;
pub const RKLLM_RUN_FINISH: LLMCallState = 2;
pub const RKLLM_RUN_ERROR: LLMCallState = 3;
/// Gone from 1.2.0 on.
pub const RKLLM_RUN_GET_LAST_HIDDEN_LAYER: LLMCallState = 4;

pub type RKLLMInputType = u32;
pub const RKLLM_INPUT_PROMPT: RKLLMInputType = 0;
pub const RKLLM_INPUT_TOKEN: RKLLMInputType = 1;
pub const RKLLM_INPUT_EMBED: RKLLMInputType = 2;
pub const RKLLM_INPUT_MULTIMODAL: RKLLMInputType = 3;

pub type RKLLMInferMode = u32;
pub const RKLLM_INFER_GENERATE: RKLLMInferMode = 0;
pub const RKLLM_INFER_GET_LAST_HIDDEN_LAYER: RKLLMInferMode = 1;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMExtendParam {
    pub base_domain_id: i32,
    pub reserved: [u8; 112],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMParam {
    pub model_path: *const c_char,
    pub max_context_len: i32,
    pub max_new_tokens: i32,
    pub top_k: i32,
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
pub struct RKLLMLoraAdapter {
    pub lora_adapter_path: *const c_char,
    pub lora_adapter_name: *const c_char,
    pub scale: c_float,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMEmbedInput {
    pub embed: *mut c_float,
    pub n_tokens: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMTokenInput {
    pub input_ids: *mut i32,
    pub n_tokens: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMMultiModelInput {
    pub prompt: *mut c_char,
    pub image_embed: *mut c_float,
    pub n_image_tokens: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub union RKLLMInputPayload {
    pub prompt_input: *const c_char,
    pub embed_input: RKLLMEmbedInput,
    pub token_input: RKLLMTokenInput,
    pub multimodal_input: RKLLMMultiModelInput,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMInput {
    pub input_type: RKLLMInputType,
    pub payload: RKLLMInputPayload,
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
    pub mode: RKLLMInferMode,
    pub lora_params: *mut RKLLMLoraParam,
    pub prompt_cache_params: *mut RKLLMPromptCacheParam,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMResultLastHiddenLayer {
    pub hidden_states: *const c_float,
    pub embd_size: c_int,
    pub num_tokens: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMResult {
    pub text: *const c_char,
    pub token_id: i32,
    pub last_hidden_layer: RKLLMResultLastHiddenLayer,
}

pub type LLMResultCallback =
    unsafe extern "C" fn(result: *mut RKLLMResult, userdata: *mut c_void, state: LLMCallState);

pub type CreateDefaultParamFn = unsafe extern "C" fn() -> RKLLMParam;
pub type InitFn = unsafe extern "C" fn(*mut LLMHandle, *mut RKLLMParam, LLMResultCallback) -> c_int;
pub type LoadLoraFn = unsafe extern "C" fn(LLMHandle, *mut RKLLMLoraAdapter) -> c_int;
pub type LoadPromptCacheFn = unsafe extern "C" fn(LLMHandle, *const c_char) -> c_int;
pub type ReleasePromptCacheFn = unsafe extern "C" fn(LLMHandle) -> c_int;
pub type DestroyFn = unsafe extern "C" fn(LLMHandle) -> c_int;
pub type RunFn =
    unsafe extern "C" fn(LLMHandle, *mut RKLLMInput, *mut RKLLMInferParam, *mut c_void) -> c_int;
pub type RunAsyncFn = RunFn;
pub type AbortFn = unsafe extern "C" fn(LLMHandle) -> c_int;
pub type IsRunningFn = unsafe extern "C" fn(LLMHandle) -> c_int;

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
];
