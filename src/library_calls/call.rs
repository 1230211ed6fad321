use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A call that is no run. Serialised as `{"function_name": {parameters}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub enum Call {
    #[serde(rename = "rkllm_load_lora")]
    LoadLora(LoraAdapter),
    #[serde(rename = "rkllm_load_prompt_cache")]
    LoadPromptCache {
        /// A name inside the daemon's folder of prompt caches.
        prompt_cache_path: String,
    },
    #[serde(rename = "rkllm_release_prompt_cache")]
    ReleasePromptCache,
    /// Ranges work only after runs without history, the header says.
    #[serde(rename = "rkllm_clear_kv_cache")]
    ClearKvCache {
        keep_system_prompt: i32,
        /// One for each sequence; both or none.
        start_pos: Option<Vec<i32>>,
        end_pos: Option<Vec<i32>>,
    },
    #[serde(rename = "rkllm_get_kv_cache_size")]
    GetKvCacheSize,
    #[serde(rename = "rkllm_set_chat_template")]
    SetChatTemplate {
        system_prompt: String,
        prompt_prefix: String,
        prompt_postfix: String,
    },
    #[serde(rename = "rkllm_set_function_tools")]
    SetFunctionTools {
        system_prompt: String,
        /// A JSON array of tools, as text.
        tools: String,
        tool_response_str: String,
    },
    #[serde(rename = "rkllm_set_cross_attn_params")]
    SetCrossAttnParams(CrossAttnParam),
}

/// `RKLLMLoraAdapter`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraAdapter {
    /// A name inside the daemon's folder of adapters.
    pub lora_adapter_path: String,
    /// What runs choose it by.
    pub lora_adapter_name: String,
    pub scale: f32,
}

/// `RKLLMCrossAttnParam`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CrossAttnParam {
    /// `[layers][num_tokens][heads][dim]`
    pub encoder_k_cache: Vec<f32>,
    /// `[layers][heads][dim][num_tokens]`
    pub encoder_v_cache: Vec<f32>,
    /// `[num_tokens]`
    pub encoder_mask: Vec<f32>,
    /// `[num_tokens]`
    pub encoder_pos: Vec<i32>,
    pub num_tokens: i32,
}

/// What a call that succeeded returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Outcome {
    /// The return code 0 and nothing else.
    Done,
    /// Tokens in the KV cache of each sequence.
    KvCacheSizes(Vec<i32>),
}

impl Call {
    /// Bytes that it takes beside its own size.
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::LoadLora(adapter) => {
                adapter.lora_adapter_path.len() + adapter.lora_adapter_name.len()
            }
            Self::LoadPromptCache { prompt_cache_path } => prompt_cache_path.len(),
            Self::ReleasePromptCache | Self::GetKvCacheSize => 0,
            Self::ClearKvCache {
                start_pos, end_pos, ..
            } => [start_pos, end_pos]
                .into_iter()
                .flatten()
                .map(|positions| size_of_val(&**positions))
                .sum(),
            Self::SetChatTemplate {
                system_prompt,
                prompt_prefix,
                prompt_postfix,
            } => system_prompt.len() + prompt_prefix.len() + prompt_postfix.len(),
            Self::SetFunctionTools {
                system_prompt,
                tools,
                tool_response_str,
            } => system_prompt.len() + tools.len() + tool_response_str.len(),
            Self::SetCrossAttnParams(params) => {
                size_of_val(&*params.encoder_k_cache)
                    + size_of_val(&*params.encoder_v_cache)
                    + size_of_val(&*params.encoder_mask)
                    + size_of_val(&*params.encoder_pos)
            }
        }
    }

    /// The C function.
    pub fn function(&self) -> &'static str {
        match self {
            Self::LoadLora(_) => "rkllm_load_lora",
            Self::LoadPromptCache { .. } => "rkllm_load_prompt_cache",
            Self::ReleasePromptCache => "rkllm_release_prompt_cache",
            Self::ClearKvCache { .. } => "rkllm_clear_kv_cache",
            Self::GetKvCacheSize => "rkllm_get_kv_cache_size",
            Self::SetChatTemplate { .. } => "rkllm_set_chat_template",
            Self::SetFunctionTools { .. } => "rkllm_set_function_tools",
            Self::SetCrossAttnParams(_) => "rkllm_set_cross_attn_params",
        }
    }
}
