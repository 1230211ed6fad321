//! Loading a model. Whatever the caller does not set is the library's own default as it wrote it,
//! never a number of ours; the few fields this crate relies on (the number of sequences, no async run)
//! are set here and nowhere else.

use crate::abi::{v1_2_1, v1_3_1};
use crate::default_params::DefaultParams;
use crate::error::CallError;
use crate::library::Library;
use crate::runs_in_progress;
use crate::symbols::FamilyCalls;
use std::cell::UnsafeCell;
use std::ffi::{CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr::{self, NonNull};

/// CPU cores the library may use for its own work, bit N for core N. RK3588 and RK3576 use 0xF0
/// (their fast cores); a mask of slow cores cuts prefill about five times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuMask(pub u32);

impl CpuMask {
    /// Number of cores in the mask.
    pub fn count(self) -> u32 {
        self.0.count_ones()
    }
}

/// Sampling settings. `None` is the library's default at init, the value from init in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sampling {
    /// 1 is greedy.
    pub top_k: Option<i32>,
    pub top_p: Option<f32>,
    pub temperature: Option<f32>,
    pub repeat_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    /// 0 off, 1 or 2 the version.
    pub mirostat: Option<i32>,
    pub mirostat_tau: Option<f32>,
    pub mirostat_eta: Option<f32>,
}

/// A value for every setting, because the struct that a run takes has no "unset".
#[derive(Clone, Copy)]
pub(crate) struct EffectiveSampling(pub(crate) v1_3_1::RKLLMSamplingParam);

impl EffectiveSampling {
    pub(crate) fn at_init(defaults: &DefaultParams, sampling: &Sampling) -> Self {
        let library = v1_3_1::RKLLMSamplingParam {
            top_k: defaults.top_k,
            top_p: defaults.top_p,
            temperature: defaults.temperature,
            repeat_penalty: defaults.repeat_penalty,
            frequency_penalty: defaults.frequency_penalty,
            presence_penalty: defaults.presence_penalty,
            mirostat: defaults.mirostat,
            mirostat_tau: defaults.mirostat_tau,
            mirostat_eta: defaults.mirostat_eta,
        };
        EffectiveSampling(library).with(sampling)
    }

    /// These values with those that `sampling` sets in their place.
    pub(crate) fn with(self, sampling: &Sampling) -> Self {
        let base = self.0;
        EffectiveSampling(v1_3_1::RKLLMSamplingParam {
            top_k: sampling.top_k.unwrap_or(base.top_k),
            top_p: sampling.top_p.unwrap_or(base.top_p),
            temperature: sampling.temperature.unwrap_or(base.temperature),
            repeat_penalty: sampling.repeat_penalty.unwrap_or(base.repeat_penalty),
            frequency_penalty: sampling.frequency_penalty.unwrap_or(base.frequency_penalty),
            presence_penalty: sampling.presence_penalty.unwrap_or(base.presence_penalty),
            mirostat: sampling.mirostat.unwrap_or(base.mirostat),
            mirostat_tau: sampling.mirostat_tau.unwrap_or(base.mirostat_tau),
            mirostat_eta: sampling.mirostat_eta.unwrap_or(base.mirostat_eta),
        })
    }

    /// With a value for every setting.
    pub(crate) fn all(self) -> Sampling {
        let Self(values) = self;
        Sampling {
            top_k: Some(values.top_k),
            top_p: Some(values.top_p),
            temperature: Some(values.temperature),
            repeat_penalty: Some(values.repeat_penalty),
            frequency_penalty: Some(values.frequency_penalty),
            presence_penalty: Some(values.presence_penalty),
            mirostat: Some(values.mirostat),
            mirostat_tau: Some(values.mirostat_tau),
            mirostat_eta: Some(values.mirostat_eta),
        }
    }
}

/// How to load a model.
#[derive(Debug, Clone, PartialEq)]
pub struct InitParams {
    pub model_path: PathBuf,
    /// Tokens in the context window; at most the model's own limit, which the library checks.
    pub max_context_len: Option<i32>,
    /// Tokens a run generates at most; -1 is no limit. Before 1.3.0 this cannot be changed by a
    /// run.
    pub max_new_tokens: Option<i32>,
    /// Before 1.3.0 this cannot be changed by a run.
    pub sampling: Sampling,
    /// Tokens kept at the start when the window shifts; less than `max_context_len`.
    pub n_keep: Option<i32>,
    /// Whether special tokens come with empty text instead of their own.
    pub skip_special_token: Option<bool>,
    /// First of the NPU's 16 IOMMU domains of 4 GiB for this model, 0 or more. Two models that
    /// do not fit one domain together need different ids (docs/vendor-library.md §6).
    pub base_domain_id: Option<i32>,
    pub enabled_cpus: Option<CpuMask>,
    /// Cores in `enabled_cpus`, where the caller counts them; the library refuses another number.
    pub enabled_cpus_num: Option<i8>,
    /// Whether generation goes on after the end-of-sequence token. 1.3.0 and later.
    pub ignore_eos_token: Option<bool>,
    /// Before 1.3.0; later releases take the tags with each input.
    pub image_tags: Option<ImageTags>,
    pub embed_flash: Option<i8>,
    /// Sequences a run works on at the same time, 1 to 100; `None` is 1.
    pub n_batch: Option<u8>,
    pub use_cross_attn: Option<i8>,
}

/// The texts around the tokens of an image; `None`: the library's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageTags {
    pub start: Option<String>,
    pub end: Option<String>,
    pub content: Option<String>,
}

/// Most sequences a library accepts.
pub(crate) const MOST_SEQUENCES: u8 = 100;

impl InitParams {
    /// A model with the library's defaults for everything.
    pub fn new(model_path: impl Into<PathBuf>) -> Self {
        InitParams {
            model_path: model_path.into(),
            max_context_len: None,
            max_new_tokens: None,
            sampling: Sampling::default(),
            n_keep: None,
            skip_special_token: None,
            base_domain_id: None,
            enabled_cpus: None,
            enabled_cpus_num: None,
            ignore_eos_token: None,
            image_tags: None,
            embed_flash: None,
            n_batch: None,
            use_cross_attn: None,
        }
    }

    /// Sequences a run works on.
    pub(crate) fn sequences(&self) -> u8 {
        self.n_batch.unwrap_or(1)
    }

    fn check(&self) -> Result<(), CallError> {
        let refused = |what, value: &dyn ToString, allowed| CallError::OutOfRange {
            what,
            value: value.to_string(),
            allowed,
        };
        if let Some(length) = self.max_context_len.filter(|length| *length <= 0) {
            return Err(refused("max_context_len", &length, "it must be at least 1"));
        }
        if let Some(id) = self.base_domain_id.filter(|id| *id < 0) {
            return Err(refused("base_domain_id", &id, "it must be at least 0"));
        }
        let sequences = self.sequences();
        if !(1..=MOST_SEQUENCES).contains(&sequences) {
            return Err(refused("n_batch", &sequences, "it must be 1 to 100"));
        }
        if self.enabled_cpus == Some(CpuMask(0)) {
            return Err(refused("enabled_cpus", &0, "it must name a core"));
        }
        Ok(())
    }
}

macro_rules! set_fields {
    ($param:ident, $params:ident, $path:ident) => {{
        let sampling = &$params.sampling;
        set_fields!(@each $param, $params, [max_context_len, max_new_tokens, n_keep]);
        set_fields!(@each $param, sampling, [
            top_k, top_p, temperature, repeat_penalty, frequency_penalty, presence_penalty,
            mirostat, mirostat_tau, mirostat_eta
        ]);
        $param.model_path = $path.as_ptr();
        if let Some(skip) = $params.skip_special_token {
            $param.skip_special_token = u8::from(skip);
        }
        if let Some(id) = $params.base_domain_id {
            $param.extend_param.base_domain_id = id;
        }
        if let Some(mask) = $params.enabled_cpus {
            $param.extend_param.enabled_cpus_mask = mask.0;
            // The library compares the two and refuses a mask of another size.
            $param.extend_param.enabled_cpus_num = mask.count() as i8;
        }
        if let Some(count) = $params.enabled_cpus_num {
            $param.extend_param.enabled_cpus_num = count;
        }
        if let Some(flash) = $params.embed_flash {
            $param.extend_param.embed_flash = flash;
        }
        if let Some(cross) = $params.use_cross_attn {
            $param.extend_param.use_cross_attn = cross;
        }
        // rkllm_run is the only way runs are started here: rkllm_run_async hangs in 1.2.1
        // (docs/vendor-library.md §3).
        $param.is_async = 0;
        // "The n_batch must be between 1 and 100, but got 0", says a library that left it out
        // of its defaults.
        $param.extend_param.n_batch = $params.sequences();
    }};
    (@each $param:ident, $from:ident, [$($field:ident),*]) => {
        $(if let Some(value) = $from.$field {
            $param.$field = value;
        })*
    };
}

/// The callbacks of every model. The vendor does not say whether it keeps the pointer to them or
/// copies them, and a callback may come after its model is destroyed, so they are never freed.
struct Callbacks(UnsafeCell<v1_3_1::RKLLMCallback>);

static CALLBACKS: Callbacks = Callbacks(UnsafeCell::new(v1_3_1::RKLLMCallback {
    result_callback: Some(runs_in_progress::on_result),
    result_userdata: ptr::null_mut(),
    tokenizer_callback: None,
    tokenizer_userdata: ptr::null_mut(),
    embed_callback: None,
    embed_userdata: ptr::null_mut(),
}));

// SAFETY: no Rust code reads or writes it; only its address is handed to the library, which is
// the only one to look inside.
unsafe impl Sync for Callbacks {}

/// Calls `rkllm_init` in the library's own family.
pub(crate) fn init(library: &Library, params: &InitParams) -> Result<NonNull<c_void>, CallError> {
    params.check()?;
    let path = CString::new(params.model_path.as_os_str().as_bytes()).map_err(|error| {
        CallError::InteriorNul {
            what: "the model's path",
            position: error.nul_position(),
        }
    })?;
    let version = || library.version().to_owned();
    let tag = |text: &Option<String>| {
        let text = text.as_deref().map(CString::new).transpose();
        text.map_err(|error| CallError::InteriorNul {
            what: "an image tag",
            position: error.nul_position(),
        })
    };
    let mut handle = ptr::null_mut();
    let code = match library.symbols().family_calls {
        FamilyCalls::V1_2_1 { init, .. } => {
            if params.ignore_eos_token.is_some() {
                return Err(CallError::NotInLibrary {
                    what: "ignore_eos_token",
                    version: version(),
                });
            }
            let mut param: v1_2_1::RKLLMParam = library.defaults().v1_2_1();
            set_fields!(param, params, path);
            let tags = params.image_tags.clone().unwrap_or_default();
            let (start, end, content) = (tag(&tags.start)?, tag(&tags.end)?, tag(&tags.content)?);
            for (field, text) in [
                (&mut param.img_start, &start),
                (&mut param.img_end, &end),
                (&mut param.img_content, &content),
            ] {
                if let Some(text) = text {
                    *field = text.as_ptr();
                }
            }
            // SAFETY: the types are those of the library's family, which the probe did not
            // contradict. `path`, the tags and `param` live through the call; the library copies
            // what it keeps. The callback finds its run by number and so may be called at any time.
            unsafe { init(&mut handle, &mut param, runs_in_progress::on_result) }
        }
        FamilyCalls::V1_3 { init, .. } => {
            if params.image_tags.is_some() {
                return Err(CallError::NotInLibrary {
                    what: "an image tag at init (it belongs to the input)",
                    version: version(),
                });
            }
            let mut param: v1_3_1::RKLLMParam = library.defaults().v1_3();
            set_fields!(param, params, path);
            if let Some(ignore) = params.ignore_eos_token {
                param.ignore_eos_token = u8::from(ignore);
            }
            // SAFETY: as above; the callback struct lives as long as the process, in memory that
            // the library may write to.
            unsafe { init(&mut handle, &mut param, CALLBACKS.0.get()) }
        }
    };
    library.succeeded("rkllm_init", code)?;
    NonNull::new(handle).ok_or_else(|| CallError::NoHandle {
        version: library.version().to_owned(),
    })
}
