//! ABI family 1.3.0: sampling and max-new-tokens per run, three callbacks at init, image tags in
//! the input. The image strings leave `RKLLMParam`, so it shrinks while every symbol keeps its
//! name; a 1.2.x callback given to it crashes in `rkllm_run` (docs/vendor-library.md §1).

pub use super::v1_2_1::{
    AbortFn, CBool, ClearKvCacheFn, DestroyFn, FUNCTIONS, GetKvCacheSizeFn, IsRunningFn,
    LLMCallState, LLMHandle, LLMResultCallback, LoadLoraFn, LoadPromptCacheFn,
    RKLLM_INFER_GENERATE, RKLLM_INFER_GET_LAST_HIDDEN_LAYER, RKLLM_INFER_GET_LOGITS,
    RKLLM_INPUT_EMBED, RKLLM_INPUT_MULTIMODAL, RKLLM_INPUT_PROMPT, RKLLM_INPUT_TOKEN,
    RKLLM_RUN_ERROR, RKLLM_RUN_FINISH, RKLLM_RUN_NORMAL, RKLLM_RUN_WAITING, RKLLMCrossAttnParam,
    RKLLMEmbedInput, RKLLMExtendParam, RKLLMInferMode, RKLLMInputType, RKLLMLoraAdapter,
    RKLLMLoraParam, RKLLMPerfStat, RKLLMPromptCacheParam, RKLLMResult, RKLLMResultLastHiddenLayer,
    RKLLMResultLogits, RKLLMTokenInput, ReleasePromptCacheFn, SetChatTemplateFn,
    SetCrossAttnParamsFn, SetFunctionToolsFn,
};
use core::ffi::{c_char, c_float, c_int, c_void};

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
    pub ignore_eos_token: CBool,
    pub is_async: CBool,
    pub extend_param: RKLLMExtendParam,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMImageInput {
    pub image_embed: *mut c_float,
    pub n_image_tokens: usize,
    pub n_image: usize,
    pub image_start: *const c_char,
    pub image_end: *const c_char,
    pub image_content: *const c_char,
    pub image_width: usize,
    pub image_height: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMVideoInput {
    pub video_embed: *mut c_float,
    pub n_frame_tokens: usize,
    pub n_frame_per_video: usize,
    pub n_video: usize,
    pub video_start: *const c_char,
    pub video_end: *const c_char,
    pub video_content: *const c_char,
    pub frame_width: usize,
    pub frame_height: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMMultiModalInput {
    pub prompt: *mut c_char,
    pub image: RKLLMImageInput,
    pub video: RKLLMVideoInput,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub union RKLLMInputPayload {
    pub prompt_input: *const c_char,
    pub embed_input: RKLLMEmbedInput,
    pub token_input: RKLLMTokenInput,
    pub multimodal_input: RKLLMMultiModalInput,
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
pub struct RKLLMSamplingParam {
    pub top_k: i32,
    pub top_p: c_float,
    pub temperature: c_float,
    pub repeat_penalty: c_float,
    pub frequency_penalty: c_float,
    pub presence_penalty: c_float,
    pub mirostat: i32,
    pub mirostat_tau: c_float,
    pub mirostat_eta: c_float,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMInferParam {
    pub mode: RKLLMInferMode,
    pub lora_params: *mut RKLLMLoraParam,
    pub prompt_cache_params: *mut RKLLMPromptCacheParam,
    pub sampling_params: *mut RKLLMSamplingParam,
    pub keep_history: c_int,
    pub max_new_tokens: i32,
}

pub type LLMTokenizerCallback = unsafe extern "C" fn(
    userdata: *mut c_void,
    text: *const c_char,
    text_len: i32,
    tokens: *mut i32,
    n_tokens_max: i32,
) -> c_int;

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

pub type CreateDefaultParamFn = unsafe extern "C" fn() -> RKLLMParam;
pub type InitFn =
    unsafe extern "C" fn(*mut LLMHandle, *mut RKLLMParam, *mut RKLLMCallback) -> c_int;
pub type RunFn =
    unsafe extern "C" fn(LLMHandle, *mut RKLLMInput, *mut RKLLMInferParam, *mut c_void) -> c_int;
pub type RunAsyncFn = RunFn;
