//! What one run asks for. A setting that a family cannot vary per run has no place in
//! [`RunOptions`] without a [`PerRun`], and only a handle whose family can gives one out.

use crate::abi::{v1_2_1, v1_3_1};
use crate::error::CallError;
use crate::init::{EffectiveSampling, Sampling};
use std::ffi::{CString, c_int};
use std::fmt;
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// Names a run to the library, which gives it back with every result. It is a number and never a
/// pointer, so a result that comes late finds nothing instead of freed memory. Not zero, because
/// zero is a callback that was given no userdata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(NonZeroU64);

impl RunId {
    /// `None` for zero.
    pub fn new(id: u64) -> Option<RunId> {
        NonZeroU64::new(id).map(RunId)
    }

    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What the run is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RunMode {
    #[default]
    Generate,
    /// The last layer's hidden states of the input, for embeddings.
    LastHiddenLayer,
    /// Logits of the input; the library generates on afterwards, so abort after the first.
    Logits,
}

/// What the library remembers after the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum History {
    /// Nothing; the cells stay in memory so that a prompt with the same beginning is evaluated
    /// from where it differs.
    #[default]
    Forget,
    /// This turn, as context of the next run.
    Keep,
}

/// How to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    pub history: History,
    pub mode: RunMode,
    /// Settings of this run only, made by [`PerRun::values`]; `None` is what init was given.
    pub per_run: Option<PerRunValues>,
}

/// Proof that the library takes sampling and max-new-tokens per run (1.3.0 and later). Obtained
/// from [`Handle::per_run`](crate::Handle::per_run).
#[derive(Debug, Clone, Copy)]
pub struct PerRun(pub(crate) ());

/// Settings of one run.
#[derive(Debug, Clone, Copy)]
pub struct PerRunValues {
    pub(crate) sampling: Sampling,
    pub(crate) max_new_tokens: i32,
}

impl PerRun {
    /// `max_new_tokens` of `None` is the value from init; as is one that is 0 or less, to the
    /// library.
    pub fn values(self, sampling: Sampling, max_new_tokens: Option<i32>) -> PerRunValues {
        PerRunValues {
            sampling,
            max_new_tokens: max_new_tokens.unwrap_or(0),
        }
    }
}

/// What else a run is given: names and paths, which [`RunOptions`] does not own.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunExtras<'a> {
    /// The adapter of this run, by the name it was loaded with; `None` is none.
    pub lora: Option<&'a str>,
    pub prompt_cache: Option<PromptCache<'a>>,
}

/// A file for the KV cache of this run's prompt.
#[derive(Debug, Clone, Copy)]
pub struct PromptCache<'a> {
    pub path: &'a Path,
    pub save: bool,
}

/// The extras as C structs with what they point to. Must not move while a pointer is in use.
pub(crate) struct OwnedExtras {
    _lora_name: Option<CString>,
    _cache_path: Option<CString>,
    lora: Option<v1_3_1::RKLLMLoraParam>,
    prompt_cache: Option<v1_3_1::RKLLMPromptCacheParam>,
}

impl OwnedExtras {
    pub(crate) fn copy_of(extras: &RunExtras<'_>) -> Result<Self, CallError> {
        let c_string = |what, bytes: &[u8]| {
            CString::new(bytes).map_err(|error| CallError::InteriorNul {
                what,
                position: error.nul_position(),
            })
        };
        let lora_name = extras
            .lora
            .map(|name| c_string("the adapter's name", name.as_bytes()))
            .transpose()?;
        let cache_path = extras
            .prompt_cache
            .map(|cache| c_string("the prompt cache's path", cache.path.as_os_str().as_bytes()))
            .transpose()?;
        Ok(OwnedExtras {
            lora: lora_name.as_ref().map(|name| v1_3_1::RKLLMLoraParam {
                lora_adapter_name: name.as_ptr(),
            }),
            prompt_cache: cache_path
                .as_ref()
                .zip(extras.prompt_cache)
                .map(|(path, cache)| v1_3_1::RKLLMPromptCacheParam {
                    save_prompt_cache: c_int::from(cache.save),
                    prompt_cache_path: path.as_ptr(),
                }),
            // A CString's text stays where it is when the CString moves.
            _lora_name: lora_name,
            _cache_path: cache_path,
        })
    }

    fn lora(&mut self) -> *mut v1_3_1::RKLLMLoraParam {
        self.lora.as_mut().map_or(ptr::null_mut(), ptr::from_mut)
    }

    fn prompt_cache(&mut self) -> *mut v1_3_1::RKLLMPromptCacheParam {
        let cache = self.prompt_cache.as_mut();
        cache.map_or(ptr::null_mut(), ptr::from_mut)
    }
}

impl RunOptions {
    fn keep_history(&self) -> i32 {
        i32::from(self.history == History::Keep)
    }

    fn infer_mode(&self) -> v1_3_1::RKLLMInferMode {
        match self.mode {
            RunMode::Generate => v1_3_1::RKLLM_INFER_GENERATE,
            RunMode::LastHiddenLayer => v1_3_1::RKLLM_INFER_GET_LAST_HIDDEN_LAYER,
            RunMode::Logits => v1_3_1::RKLLM_INFER_GET_LOGITS,
        }
    }

    /// `extras` must outlive the result's use.
    pub(crate) fn v1_2_1(&self, extras: &mut OwnedExtras) -> v1_2_1::RKLLMInferParam {
        v1_2_1::RKLLMInferParam {
            mode: self.infer_mode(),
            lora_params: extras.lora(),
            prompt_cache_params: extras.prompt_cache(),
            keep_history: self.keep_history(),
        }
    }

    /// The run's sampling, if it differs from what init was given.
    pub(crate) fn sampling(&self, at_init: EffectiveSampling) -> Option<EffectiveSampling> {
        self.per_run
            .map(|values| values.sampling)
            .filter(|sampling| *sampling != Sampling::default())
            .map(|sampling| at_init.with(&sampling))
    }

    /// `sampling` and `extras` must outlive the result's use.
    pub(crate) fn v1_3(
        &self,
        sampling: Option<&mut EffectiveSampling>,
        extras: &mut OwnedExtras,
    ) -> v1_3_1::RKLLMInferParam {
        v1_3_1::RKLLMInferParam {
            mode: self.infer_mode(),
            lora_params: extras.lora(),
            prompt_cache_params: extras.prompt_cache(),
            sampling_params: sampling.map_or(ptr::null_mut(), |values| &raw mut values.0),
            keep_history: self.keep_history(),
            max_new_tokens: self.per_run.map_or(0, |values| values.max_new_tokens),
        }
    }
}
