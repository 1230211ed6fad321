//! ABI family 1.2.1b1, the beta before 1.2.1: the multimodal input learns about several images.
//! Described so that such a library is recognised by more than its name; it is never run.

pub use super::v1_2_0::{
    AbortFn, CBool, ClearKvCacheFn, CreateDefaultParamFn, DestroyFn, FUNCTIONS, InitFn,
    IsRunningFn, LLMCallState, LLMHandle, LLMResultCallback, LoadLoraFn, LoadPromptCacheFn,
    RKLLM_INFER_GENERATE, RKLLM_INFER_GET_LAST_HIDDEN_LAYER, RKLLM_INFER_GET_LOGITS,
    RKLLM_INPUT_EMBED, RKLLM_INPUT_MULTIMODAL, RKLLM_INPUT_PROMPT, RKLLM_INPUT_TOKEN,
    RKLLM_RUN_ERROR, RKLLM_RUN_FINISH, RKLLM_RUN_NORMAL, RKLLM_RUN_WAITING, RKLLMEmbedInput,
    RKLLMExtendParam, RKLLMInferMode, RKLLMInferParam, RKLLMInputType, RKLLMLoraAdapter,
    RKLLMLoraParam, RKLLMParam, RKLLMPromptCacheParam, RKLLMResult, RKLLMResultLastHiddenLayer,
    RKLLMResultLogits, RKLLMTokenInput, ReleasePromptCacheFn, SetChatTemplateFn,
};
use core::ffi::{c_char, c_float, c_int, c_void};

/// Called `RKLLMMultiModelInput` by the headers before 1.2.3; the layout did not change with
/// the name.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct RKLLMMultiModelInput {
    pub prompt: *mut c_char,
    pub image_embed: *mut c_float,
    pub n_image_tokens: usize,
    pub n_image: usize,
    pub image_width: usize,
    pub image_height: usize,
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

pub type RunFn =
    unsafe extern "C" fn(LLMHandle, *mut RKLLMInput, *mut RKLLMInferParam, *mut c_void) -> c_int;
pub type RunAsyncFn = RunFn;
