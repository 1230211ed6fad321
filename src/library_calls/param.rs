use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::SamplingParam;

/// `RKLLMParam` without `model_path` (a handle is opened for an installed model) and `is_async`
/// (the vendor's asynchronous path is never entered). `None`: what the library's own
/// `rkllm_createDefaultParam` says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Param {
    /// Tokens in the context window.
    pub max_context_len: Option<i32>,
    /// Tokens a run generates at most; -1: no limit.
    pub max_new_tokens: Option<i32>,
    pub top_k: Option<i32>,
    /// Tokens kept at the start when the window shifts.
    pub n_keep: Option<i32>,
    pub top_p: Option<f32>,
    pub temperature: Option<f32>,
    pub repeat_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    /// 0 off, 1 or 2 the version.
    pub mirostat: Option<i32>,
    pub mirostat_tau: Option<f32>,
    pub mirostat_eta: Option<f32>,
    pub skip_special_token: Option<bool>,
    /// 1.3.0 and later.
    pub ignore_eos_token: Option<bool>,
    /// Before 1.3.0; later releases take the image tags with each input.
    pub img_start: Option<String>,
    /// Before 1.3.0.
    pub img_end: Option<String>,
    /// Before 1.3.0.
    pub img_content: Option<String>,
    pub extend_param: ExtendParam,
}

impl Param {
    /// The part of it that a run may vary. `RKLLMParam` has these fields itself, and so has its JSON.
    pub fn sampling(&self) -> SamplingParam {
        SamplingParam {
            top_k: self.top_k,
            top_p: self.top_p,
            temperature: self.temperature,
            repeat_penalty: self.repeat_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            mirostat: self.mirostat,
            mirostat_tau: self.mirostat_tau,
            mirostat_eta: self.mirostat_eta,
        }
    }

    /// Bytes that it takes beside its own size.
    pub fn held_bytes(&self) -> usize {
        let texts = [&self.img_start, &self.img_end, &self.img_content];
        texts.into_iter().flatten().map(String::len).sum()
    }
}

/// `RKLLMExtendParam`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExtendParam {
    /// First of the NPU's IOMMU domains for this model, 0 or more.
    pub base_domain_id: Option<i32>,
    pub embed_flash: Option<i8>,
    /// Must be the number of bits in `enabled_cpus_mask`; computed where that alone is given.
    pub enabled_cpus_num: Option<i8>,
    pub enabled_cpus_mask: Option<u32>,
    /// Sequences a run works on at the same time, 1 to 100. 1 where absent.
    pub n_batch: Option<u8>,
    pub use_cross_attn: Option<i8>,
}

/// What `rkllm_createDefaultParam` of an installed library returned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DefaultParam {
    /// Every field that the library's family has is there.
    pub param: Param,
    /// Version of the library that was asked, for instance `1.2.3`.
    pub library_version: String,
    pub abi_family: String,
}
