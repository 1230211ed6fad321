//! What `rkllm_createDefaultParam` of the loaded library returns, without its family. These are
//! the library's figures, read at run time; a field the library left unwritten reads as zero,
//! which is what `rkllm_init` is then given too.

use crate::abi::{v1_2_1, v1_3_1};
use crate::family::Family;
use crate::init::CpuMask;
use crate::probe::DefaultBytes;

/// The library's default parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct DefaultParams {
    /// Tokens in the context window.
    pub max_context_len: i32,
    /// Tokens a run generates at most; -1 is no limit.
    pub max_new_tokens: i32,
    pub top_k: i32,
    /// Tokens kept at the start when the window shifts; -1 leaves it to the library.
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
    /// First IOMMU domain of the NPU, see [`InitParams`](crate::InitParams).
    pub base_domain_id: i32,
    pub embed_flash: bool,
    pub enabled_cpus_num: i8,
    pub enabled_cpus_mask: CpuMask,
    pub n_batch: u8,
    pub use_cross_attn: i8,
    /// `None` before 1.3.0.
    pub ignore_eos_token: Option<bool>,
}

macro_rules! neutral {
    ($param:expr) => {{
        let param = $param;
        DefaultParams {
            max_context_len: param.max_context_len,
            max_new_tokens: param.max_new_tokens,
            top_k: param.top_k,
            n_keep: param.n_keep,
            top_p: param.top_p,
            temperature: param.temperature,
            repeat_penalty: param.repeat_penalty,
            frequency_penalty: param.frequency_penalty,
            presence_penalty: param.presence_penalty,
            mirostat: param.mirostat,
            mirostat_tau: param.mirostat_tau,
            mirostat_eta: param.mirostat_eta,
            skip_special_token: param.skip_special_token != 0,
            base_domain_id: param.extend_param.base_domain_id,
            embed_flash: param.extend_param.embed_flash != 0,
            enabled_cpus_num: param.extend_param.enabled_cpus_num,
            enabled_cpus_mask: CpuMask(param.extend_param.enabled_cpus_mask),
            n_batch: param.extend_param.n_batch,
            use_cross_attn: param.extend_param.use_cross_attn,
            ignore_eos_token: None,
        }
    }};
}

impl DefaultParams {
    pub(crate) fn of(bytes: &DefaultBytes, family: Family) -> Self {
        if family >= Family::V1_3_0 {
            let param = bytes.v1_3();
            DefaultParams {
                ignore_eos_token: Some(param.ignore_eos_token != 0),
                ..neutral!(param)
            }
        } else {
            neutral!(bytes.v1_2_1())
        }
    }
}

impl DefaultBytes {
    pub(crate) fn v1_2_1(&self) -> v1_2_1::RKLLMParam {
        // SAFETY: the buffer holds at least the struct (asserted beside PARAM_BYTES_MAX), is
        // aligned to 16, and every field of the struct takes any bits: integers, floats, arrays
        // of bytes and raw pointers.
        unsafe { self.0.as_ptr().cast::<v1_2_1::RKLLMParam>().read() }
    }

    pub(crate) fn v1_3(&self) -> v1_3_1::RKLLMParam {
        // SAFETY: as above.
        unsafe { self.0.as_ptr().cast::<v1_3_1::RKLLMParam>().read() }
    }
}
