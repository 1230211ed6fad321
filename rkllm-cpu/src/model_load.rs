//! From `RKLLMParam` to a model that can run. Everything the caller asked for is checked before the
//! weights are read, and every refusal names what was asked and what is allowed; what has been
//! acquired is owned from that moment, so a later failure frees it.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::ptr::NonNull;
use std::sync::Once;

use llama_cpp_sys_2 as llama;
use thiserror::Error;

use crate::abi::{RKLLMExtendParam, RKLLMParam};
use crate::enabled_cpus::{self, CpuError, EnabledCpus};
use crate::fingerprint;
use crate::log::{self, info, warning};
use crate::model_dtype;
use crate::sampler::{self, SamplingError};
use crate::vocabulary::Vocabulary;

/// Context lengths are multiples of this, as the vendor's are.
const CONTEXT_STEP: i32 = 32;
/// Tokens evaluated at once in prefill.
const PREFILL_BATCH: u32 = 512;
/// How long idle compute threads spin before they sleep, in ggml's units (0 to 100). None: between
/// two tokens the processors belong to whoever consumes them.
const IDLE_POLLING: u32 = 0;

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
    #[error("{0} has no decoder; this runtime generates text only")]
    NoDecoder(String),
    #[error("max_context[{asked}] must be less than the model's max_context_limit[{limit}]")]
    ContextTooLong { asked: i32, limit: i32 },
    #[error("max_context[{0}] must be a positive multiple of 32")]
    ContextStep(i32),
    #[error("n_keep[{n_keep}] must be less than max_context[{max_context}]")]
    NKeep { n_keep: i32, max_context: i32 },
    #[error("The n_batch must be between 1 and 100, but got {0}")]
    Batch(u8),
    #[error("base_domain_id must >= 0")]
    Domain,
    #[error("use_cross_attn is set, but the model has no cross attention")]
    CrossAttention,
    #[error(transparent)]
    Cpus(#[from] CpuError),
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    #[error("failed to allocate a context of {0} tokens")]
    Context(i32),
}

/// A model, its context and its compute threads. Fields are freed in this order: the context uses
/// the threads and the model.
pub(crate) struct LoadedModel {
    context: Context,
    _threads: ThreadPool,
    model: Model,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) cpus: EnabledCpus,
    pub(crate) max_context: usize,
    /// Of the model's file.
    pub(crate) fingerprint: u64,
}

struct Model(NonNull<llama::llama_model>);
struct Context(NonNull<llama::llama_context>);
struct ThreadPool(NonNull<llama::ggml_threadpool>);

// SAFETY: none of the three is tied to the thread that made it; `LoadedModel` is used by one thread
// at a time, under the engine's lock.
unsafe impl Send for Model {}
// SAFETY: as for `Model`.
unsafe impl Send for Context {}
// SAFETY: as for `Model`.
unsafe impl Send for ThreadPool {}

impl LoadedModel {
    /// # Safety
    /// `param.model_path` is NULL or a C string.
    pub(crate) unsafe fn load(param: &RKLLMParam) -> Result<LoadedModel, LoadError> {
        initialise_backend();
        // SAFETY: the caller vouches for the path.
        let path = unsafe { path_of(param.model_path) }?;
        let name = path.to_string_lossy().into_owned();
        check_extended(&param.extend_param)?;
        check_context(param)?;
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
        let fingerprint = std::fs::File::open(OsStr::from_bytes(path.to_bytes()))
            .and_then(|file| fingerprint::of_file(&file))
            .map_err(|reason| LoadError::Unreadable {
                path: name.clone(),
                reason,
            })?;
        let model = Model::open(&path).ok_or_else(|| LoadError::NotLoadable(name.clone()))?;
        let raw = model.0.as_ptr();
        // SAFETY: the model is alive.
        let (trained, decodes) = unsafe {
            let encodes = llama::llama_model_has_encoder(raw);
            (
                llama::llama_model_n_ctx_train(raw),
                llama::llama_model_has_decoder(raw) && !encodes,
            )
        };
        let limit = trained / CONTEXT_STEP * CONTEXT_STEP;
        info!(
            "rkllm-toolkit version: unknown, max_context_limit: {limit}, npu_core_num: 0, \
             target_platform: CPU, model_dtype: {}",
            model.dtype()
        );
        if !decodes {
            return Err(LoadError::NoDecoder(name));
        }
        if param.max_context_len > limit {
            return Err(LoadError::ContextTooLong {
                asked: param.max_context_len,
                limit,
            });
        }
        info!("Enabled cpus: {:?}", cpus.cpus);
        info!("Enabled cpus num: {}", cpus.cpus.len());
        if model.uses_mrope() {
            info!("Using mrope");
        }
        let held = cpus.hold();
        let pool = ThreadPool::start(&cpus).ok_or(LoadError::Context(param.max_context_len))?;
        let context = Context::create(&model, &pool, param, cpus.threads)
            .ok_or(LoadError::Context(param.max_context_len))?;
        drop(held);
        Ok(LoadedModel {
            context,
            _threads: pool,
            // SAFETY: the vocabulary view is kept beside the model it looks into.
            vocabulary: unsafe { Vocabulary::of(raw) },
            model,
            cpus,
            max_context: param.max_context_len as usize,
            fingerprint,
        })
    }

    pub(crate) fn raw(&self) -> *mut llama::llama_model {
        self.model.0.as_ptr()
    }

    pub(crate) fn context(&self) -> *mut llama::llama_context {
        self.context.0.as_ptr()
    }

    /// The model's state is one summary of all it has read and cannot be cut anywhere.
    pub(crate) fn has_recurrent_state(&self) -> bool {
        // SAFETY: the model is alive.
        unsafe {
            llama::llama_model_is_recurrent(self.model.0.as_ptr())
                || llama::llama_model_is_hybrid(self.model.0.as_ptr())
        }
    }

    /// Floats in a row of an embedding input.
    pub(crate) fn embedding_width(&self) -> usize {
        // SAFETY: the model is alive.
        unsafe { llama::llama_model_n_embd_inp(self.model.0.as_ptr()) as usize }
    }

    /// Floats in a hidden state.
    pub(crate) fn hidden_width(&self) -> usize {
        // SAFETY: the model is alive.
        unsafe { llama::llama_model_n_embd_out(self.model.0.as_ptr()) as usize }
    }

    /// Numbers that a position has for an embedding row.
    pub(crate) fn position_parts(&self) -> usize {
        if self.model.uses_mrope() { 4 } else { 1 }
    }

    /// Architecture, size and quantisation in llama.cpp's words.
    pub(crate) fn description(&self) -> String {
        let mut text = [0_u8; 128];
        // SAFETY: the model is alive and the buffer has the length given; llama.cpp ends it.
        unsafe { llama::llama_model_desc(self.raw(), text.as_mut_ptr().cast(), text.len()) };
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    pub(crate) fn chat_template(&self) -> Option<CString> {
        // SAFETY: the model is alive; the returned string lives as long as it does and is copied.
        unsafe {
            let template =
                llama::llama_model_chat_template(self.model.0.as_ptr(), std::ptr::null());
            (!template.is_null()).then(|| CStr::from_ptr(template).to_owned())
        }
    }
}

impl Model {
    fn open(path: &CStr) -> Option<Model> {
        // SAFETY: the parameters are llama.cpp's defaults with two fields changed, and `path` is a
        // live C string.
        let raw = unsafe {
            let mut params = llama::llama_model_default_params();
            params.n_gpu_layers = 0;
            params.load_mode = llama::LLAMA_LOAD_MODE_MMAP;
            llama::llama_model_load_from_file(path.as_ptr(), params)
        };
        NonNull::new(raw).map(Model)
    }

    fn dtype(&self) -> String {
        // SAFETY: the model is alive.
        let ftype = unsafe { llama::llama_model_ftype(self.0.as_ptr()) };
        model_dtype::name(ftype & !llama::LLAMA_FTYPE_GUESSED).to_owned()
    }

    fn uses_mrope(&self) -> bool {
        // SAFETY: the model is alive.
        let rope = unsafe { llama::llama_model_rope_type(self.0.as_ptr()) };
        rope == llama::LLAMA_ROPE_TYPE_MROPE || rope == llama::LLAMA_ROPE_TYPE_IMROPE
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: owned by this value, and the context on it is already freed.
        unsafe { llama::llama_model_free(self.0.as_ptr()) };
    }
}

impl ThreadPool {
    /// Called while the thread is held (`EnabledCpus::hold`): threads without a CPU of their own
    /// inherit its affinity, and ggml's change to it is undone afterwards.
    fn start(cpus: &EnabledCpus) -> Option<ThreadPool> {
        // SAFETY: the parameters are ggml's defaults with polling and placement changed; CPUs in
        // `one_each` are below 32, the mask has room for 512.
        let raw = unsafe {
            let mut params = llama::ggml_threadpool_params_default(cpus.threads);
            params.poll = IDLE_POLLING;
            if let Some(one_each) = cpus.one_each() {
                params.strict_cpu = true;
                for &cpu in one_each {
                    params.cpumask[cpu as usize] = true;
                }
            }
            llama::ggml_threadpool_new(&mut params)
        };
        NonNull::new(raw).map(ThreadPool)
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        // SAFETY: owned by this value, and the context that used it is already freed.
        unsafe { llama::ggml_threadpool_free(self.0.as_ptr()) };
    }
}

impl Context {
    fn create(
        model: &Model,
        pool: &ThreadPool,
        param: &RKLLMParam,
        threads: i32,
    ) -> Option<Context> {
        let sequences = u32::from(param.extend_param.n_batch);
        let length = u32::try_from(param.max_context_len).ok()?;
        let own = Context::with_pooling(
            model,
            [length, sequences],
            threads,
            llama::LLAMA_POOLING_TYPE_UNSPECIFIED,
        )?;
        // SAFETY: the context is alive.
        let pooling = unsafe { llama::llama_pooling_type(own.0.as_ptr()) };
        let context = if pooling == llama::LLAMA_POOLING_TYPE_NONE {
            own
        } else {
            // A hidden state for each token, whatever the model's file asks an embedder to pool.
            drop(own);
            Context::with_pooling(
                model,
                [length, sequences],
                threads,
                llama::LLAMA_POOLING_TYPE_NONE,
            )?
        };
        // SAFETY: context and pool are alive, and `LoadedModel` frees the pool after the context.
        unsafe {
            llama::llama_attach_threadpool(context.0.as_ptr(), pool.0.as_ptr(), pool.0.as_ptr());
        }
        Some(context)
    }

    fn with_pooling(
        model: &Model,
        [length, sequences]: [u32; 2],
        threads: i32,
        pooling: llama::llama_pooling_type,
    ) -> Option<Context> {
        // SAFETY: the parameters are llama.cpp's defaults with a few changed; the model is alive,
        // and `LoadedModel` frees it after the context.
        unsafe {
            let mut params = llama::llama_context_default_params();
            // Each sequence has the whole length to itself.
            params.n_ctx = length.checked_mul(sequences)?;
            params.n_batch = PREFILL_BATCH;
            params.n_ubatch = PREFILL_BATCH;
            params.n_seq_max = sequences;
            params.kv_unified = false;
            params.n_threads = threads;
            params.n_threads_batch = threads;
            params.no_perf = true;
            params.pooling_type = pooling;
            NonNull::new(llama::llama_init_from_model(model.0.as_ptr(), params)).map(Context)
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: owned by this value.
        unsafe { llama::llama_free(self.0.as_ptr()) };
    }
}

/// The batch size prefill is cut into.
pub(crate) const fn prefill_batch() -> usize {
    PREFILL_BATCH as usize
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

fn check_context(param: &RKLLMParam) -> Result<(), LoadError> {
    if param.max_context_len <= 0 || param.max_context_len % CONTEXT_STEP != 0 {
        return Err(LoadError::ContextStep(param.max_context_len));
    }
    if param.n_keep >= param.max_context_len {
        return Err(LoadError::NKeep {
            n_keep: param.n_keep,
            max_context: param.max_context_len,
        });
    }
    if param.is_async {
        warning!("is_async is ignored: rkllm_run blocks");
    }
    Ok(())
}
