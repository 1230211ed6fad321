//! ABI family 1.3.1: the multimodal input grows an audio part at its end, all else is 1.3.0. One
//! zeroed input of this family therefore serves a 1.3.0 library too, as a single struct; an array
//! of them (n_batch > 1) does not, because the stride differs.

pub use super::v1_3_0::{
    AbortFn, CBool, ClearKvCacheFn, CreateDefaultParamFn, DestroyFn, FUNCTIONS, GetKvCacheSizeFn,
    InitFn, IsRunningFn, LLMCallState, LLMGetEmbedCallback, LLMHandle, LLMResultCallback,
    LLMTokenizerCallback, LoadLoraFn, LoadPromptCacheFn, RKLLM_INFER_GENERATE,
    RKLLM_INFER_GET_LAST_HIDDEN_LAYER, RKLLM_INFER_GET_LOGITS, RKLLM_INPUT_EMBED,
    RKLLM_INPUT_MULTIMODAL, RKLLM_INPUT_PROMPT, RKLLM_INPUT_TOKEN, RKLLM_RUN_ERROR,
    RKLLM_RUN_FINISH, RKLLM_RUN_NORMAL, RKLLM_RUN_WAITING, RKLLMCallback, RKLLMCrossAttnParam,
    RKLLMEmbedInput, RKLLMExtendParam, RKLLMImageInput, RKLLMInferMode, RKLLMInferParam,
    RKLLMInputType, RKLLMLoraAdapter, RKLLMLoraParam, RKLLMParam, RKLLMPerfStat,
    RKLLMPromptCacheParam, RKLLMResult, RKLLMResultLastHiddenLayer, RKLLMResultLogits,
    RKLLMSamplingParam, RKLLMTokenInput, RKLLMVideoInput, ReleasePromptCacheFn, SetChatTemplateFn,
    SetCrossAttnParamsFn, SetFunctionToolsFn,
};
use core::ffi::{c_char, c_float, c_int, c_void};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMAudioInput {
    pub audio_embed: *mut c_float,
    pub n_audio_tokens: usize,
    pub n_audio: usize,
    pub audio_start: *const c_char,
    pub audio_end: *const c_char,
    pub audio_content: *const c_char,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMMultiModalInput {
    pub prompt: *mut c_char,
    pub image: RKLLMImageInput,
    pub video: RKLLMVideoInput,
    pub audio: RKLLMAudioInput,
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

pub type RunFn =
    unsafe extern "C" fn(LLMHandle, *mut RKLLMInput, *mut RKLLMInferParam, *mut c_void) -> c_int;
pub type RunAsyncFn = RunFn;
