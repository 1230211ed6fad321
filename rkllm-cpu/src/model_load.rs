//! From `RKLLMParam` to a model that can run. Everything the caller asked for is checked before the
//! weights are read, and every refusal names what was asked and what is allowed; what has been
//! acquired is owned from that moment, so a later failure frees it.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Once};

use llama_cpp_sys_2 as llama;
use thiserror::Error;

use crate::abi::{RKLLMExtendParam, RKLLMParam};
use crate::compute_threads::ComputeThreads;
use crate::computing::{Computing, Shape};
use crate::enabled_cpus::{self, CpuError, EnabledCpus};
use crate::fingerprint;
use crate::host_embeddings::StandIn;
use crate::log::{self, info, warning};
use crate::sampler::{self, SamplingError};
use crate::weights::Weights;

/// Context lengths are multiples of this, as the vendor's are.
const CONTEXT_STEP: u32 = 32;

#[derive(Debug, Error)]
pub(crate) enum LoadError {
    #[error("model_path must not be NULL")]
    NoPath,
    #[error("load model file error! {path}: {reason}")]
    Unreadable {
        path: String,
        reason: std::io::Error,
    },
    #[error("load model file error! {0} is not a GGUF model that llama.cpp can load")]
    NotLoadable(String),
    #[error("{0} has no decoder, or reads what comes later, too; this runtime generates text only")]
    NoDecoder(String),
    #[error("max_context[{asked}] must be less than the model's max_context_limit[{limit}]")]
    ContextTooLong { asked: i32, limit: u32 },
    #[error("max_context[{0}] must be at least 32")]
    ContextTooShort(i32),
    #[error("n_keep[{n_keep}] must be less than max_context[{max_context}]")]
    NKeep { n_keep: i32, max_context: u32 },
    // The vendor's words, which say nothing of what is nearly always behind them: other layouts of
    // `RKLLMParam` have something else in its place, most of them a zero.
    #[error(
        "The n_batch must be between 1 and 100, but got {0}; was this program built for 1.2.x, whose \
         RKLLMParam is laid out differently? This is 1.3.1: build it with its rkllm.h, and start \
         from rkllm_createDefaultParam()"
    )]
    Batch(u8),
    #[error("base_domain_id must >= 0")]
    Domain,
    #[error("use_cross_attn is set, but the model has no cross attention")]
    CrossAttention,
    #[error(transparent)]
    Cpus(#[from] CpuError),
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    #[error("failed to allocate a context of {0} tokens, or the model keeps none")]
    Context(u32),
    #[error("RKLLM_CPU_SLOTS must be a number up to 256, but is `{0}`")]
    Slots(String),
    #[error(
        "RKLLM_CPU_POOL_TOKENS must be a number of at least the {context} tokens of one context, \
         but is `{asked}`"
    )]
    Pool { asked: String, context: u32 },
    #[error("all {0} slots that RKLLM_CPU_SLOTS names are taken by other handles of this model")]
    NoSlot(u32),
    #[error("failed to start the scheduler's thread: {0}")]
    Scheduler(std::io::Error),
}

/// What `rkllm_init` was asked for, checked as far as it can be without the weights.
pub(crate) struct Loading {
    path: CString,
    name: String,
    pub(crate) context_length: u32,
    asked_length: i32,
    cpus: EnabledCpus,
    may_change_threads: bool,
    fingerprint: u64,
    file: (u64, u64),
    /// The embedding layer that the model's file lacks.
    stand_in: Option<StandIn>,
}

/// Which handles can compute in one context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Likeness {
    file: (u64, u64),
    fingerprint: u64,
    context_length: u32,
    cpus: EnabledCpus,
}

impl Loading {
    /// `host_embeds`: a model without an embedding layer is loaded, too.
    ///
    /// # Safety
    /// `param.model_path` is NULL or a C string.
    pub(crate) unsafe fn of(param: &RKLLMParam, host_embeds: bool) -> Result<Loading, LoadError> {
        initialise_backend();
        // SAFETY: the caller vouches for the path.
        let path = unsafe { path_of(param.model_path) }?;
        let name = path.to_string_lossy().into_owned();
        check_extended(&param.extend_param)?;
        let context_length = context_length(param)?;
        sampler::check(&sampler::at_init(param))?;
        let threads = std::env::var("RKLLM_CPU_THREADS").ok();
        let cpus = EnabledCpus::choose(
            param.extend_param.enabled_cpus_num,
            param.extend_param.enabled_cpus_mask,
            &enabled_cpus::available(),
            threads.as_deref(),
        )?;
        info!("rkllm-runtime version: 1.3.1, rknpu driver version: none, platform: CPU");
        info!("loading rkllm model from {name}");
        let (fingerprint, file) = File::open(OsStr::from_bytes(path.to_bytes()))
            .and_then(|file| {
                let metadata = file.metadata()?;
                let identity = (metadata.dev(), metadata.ino());
                Ok((fingerprint::of_file(&file)?, identity))
            })
            .map_err(|reason| LoadError::Unreadable {
                path: name.clone(),
                reason,
            })?;
        Ok(Loading {
            stand_in: host_embeds.then(|| StandIn::for_model(&path)).flatten(),
            path,
            name,
            context_length,
            asked_length: param.max_context_len,
            cpus,
            may_change_threads: threads.is_none() && std::env::var_os(sampler::SEED).is_none(),
            fingerprint,
            file,
        })
    }

    /// None: the host embeds, and only for its own handle.
    pub(crate) fn likeness(&self) -> Option<Likeness> {
        self.stand_in.is_none().then(|| Likeness {
            file: self.file,
            fingerprint: self.fingerprint,
            context_length: self.context_length,
            cpus: self.cpus.clone(),
        })
    }

    pub(crate) fn weights(&self) -> Result<Arc<Weights>, LoadError> {
        let weights = Weights::open(&self.path, self.stand_in.as_ref(), self.fingerprint)
            .ok_or_else(|| LoadError::NotLoadable(self.name.clone()))?;
        self.check_against(&weights)?;
        Ok(Arc::new(weights))
    }

    /// What only the model can say: whether it does what was asked. Prints the lines that a load has.
    pub(crate) fn check_against(&self, weights: &Weights) -> Result<(), LoadError> {
        let limit = weights.trained_context() / CONTEXT_STEP * CONTEXT_STEP;
        info!(
            "rkllm-toolkit version: unknown, max_context_limit: {limit}, npu_core_num: 0, \
             target_platform: CPU, model_dtype: {}",
            weights.dtype()
        );
        if !weights.only_decodes() {
            return Err(LoadError::NoDecoder(self.name.clone()));
        }
        if self.context_length > limit {
            return Err(LoadError::ContextTooLong {
                asked: self.asked_length,
                limit,
            });
        }
        info!("Enabled cpus: {:?}", self.cpus.cpus);
        info!("Enabled cpus num: {}", self.cpus.cpus.len());
        if weights.uses_mrope() {
            info!("Using mrope");
        }
        Ok(())
    }

    /// A context for `sequences` conversations, which share `pool_tokens` cells if that is given.
    pub(crate) fn context(
        &self,
        weights: Arc<Weights>,
        sequences: u32,
        pool_tokens: Option<u32>,
    ) -> Result<Computing, LoadError> {
        let shape = Shape {
            context_length: self.context_length,
            sequences,
            pool_tokens,
        };
        ComputeThreads::start(self.cpus.clone(), self.may_change_threads)
            .and_then(|threads| Computing::create(weights, threads, shape))
            .ok_or(LoadError::Context(
                pool_tokens.unwrap_or(self.context_length),
            ))
    }
}

/// ggml's registry lives as long as the process: it is shared by every handle and has no end that
/// would be safe while another handle lives.
fn initialise_backend() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: called once, before any other llama.cpp function; the log callback is a static
        // function that keeps no pointer it is given.
        unsafe {
            llama::llama_log_set(Some(log::engine_log), std::ptr::null_mut());
            llama::llama_backend_init();
        }
    });
}

unsafe fn path_of(path: *const c_char) -> Result<CString, LoadError> {
    if path.is_null() {
        return Err(LoadError::NoPath);
    }
    // SAFETY: the caller vouches that a path that is not NULL is a C string.
    Ok(unsafe { CStr::from_ptr(path) }.to_owned())
}

fn check_extended(extended: &RKLLMExtendParam) -> Result<(), LoadError> {
    if extended.base_domain_id < 0 {
        return Err(LoadError::Domain);
    }
    match extended.n_batch {
        1..=100 => {}
        other => return Err(LoadError::Batch(other)),
    }
    if extended.use_cross_attn != 0 {
        return Err(LoadError::CrossAttention);
    }
    Ok(())
}

/// `max_context_len` in whole steps, as programs are seen to pass 10000.
fn context_length(param: &RKLLMParam) -> Result<u32, LoadError> {
    let asked = param.max_context_len;
    let length = u32::try_from(asked).unwrap_or(0) / CONTEXT_STEP * CONTEXT_STEP;
    if length == 0 {
        return Err(LoadError::ContextTooShort(asked));
    }
    if length.cast_signed() != asked {
        warning!("max_context[{asked}] is no multiple of {CONTEXT_STEP}; {length} is used");
    }
    if param.n_keep >= length.cast_signed() {
        return Err(LoadError::NKeep {
            n_keep: param.n_keep,
            max_context: length,
        });
    }
    if param.is_async {
        warning!("is_async is ignored: rkllm_run blocks");
    }
    Ok(length)
}
