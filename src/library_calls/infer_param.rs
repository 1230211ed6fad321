use super::header_enum::header_enum;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Input;
use crate::generation::SamplingRequest;

/// `RKLLMInferParam`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InferParam {
    pub mode: InferMode,
    /// The adapter of this run; `None`: none, however many are loaded.
    pub lora_params: Option<LoraParam>,
    pub prompt_cache_params: Option<PromptCacheParam>,
    /// 1.3.0 and later.
    pub sampling_params: Option<SamplingParam>,
    /// 0: the run is forgotten; else it is context of the next one.
    pub keep_history: i32,
    /// 1.3.0 and later; 0 or less is the value from init.
    pub max_new_tokens: Option<i32>,
}

header_enum! {
    /// `RKLLMInferMode`.
    #[derive(Default)]
    InferMode {
        #[default]
        Generate = 0 "RKLLM_INFER_GENERATE",
        GetLastHiddenLayer = 1 "RKLLM_INFER_GET_LAST_HIDDEN_LAYER",
        GetLogits = 2 "RKLLM_INFER_GET_LOGITS",
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraParam {
    /// As it was given to `rkllm_load_lora`.
    pub lora_adapter_name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptCacheParam {
    /// Not 0: the prompt's KV cache is saved.
    pub save_prompt_cache: i32,
    /// A name inside the daemon's folder of prompt caches.
    pub prompt_cache_path: String,
}

/// `RKLLMSamplingParam`; `None`: the value from init.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingParam {
    pub top_k: Option<i32>,
    pub top_p: Option<f32>,
    pub temperature: Option<f32>,
    pub repeat_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub mirostat: Option<i32>,
    pub mirostat_tau: Option<f32>,
    pub mirostat_eta: Option<f32>,
}

/// A request of another dialect has no mirostat, and its keys have other names; from here on both are one.
impl From<SamplingRequest> for SamplingParam {
    fn from(request: SamplingRequest) -> Self {
        Self {
            top_k: request.top_k,
            top_p: request.top_p,
            temperature: request.temperature,
            repeat_penalty: request.repeat_penalty,
            frequency_penalty: request.frequency_penalty,
            presence_penalty: request.presence_penalty,
            ..Self::default()
        }
    }
}

/// Which rows of hidden states and logits are handed over; a row is a token of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RowSelection {
    #[default]
    Last,
    All,
    /// One row: the mean of all rows, computed in the worker.
    Mean,
}

/// One run on a handle.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunRequest {
    /// As many as the handle's `n_batch`.
    pub inputs: Vec<Input>,
    pub infer: InferParam,
    pub rows: RowSelection,
    /// The library generates on after the first logits, up to `max_new_tokens`. Here it is aborted
    /// after them, unless this is set.
    pub generate_after_logits: bool,
}
