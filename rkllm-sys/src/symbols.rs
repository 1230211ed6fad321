//! The table of a library's functions. The core ones are there or the table is not built; an
//! optional one is an `Option` that the caller must answer for. What was opened is never unloaded,
//! whether it is used or refused: the function pointers stay valid for the life of the process, and
//! none of the library's own code runs only to be rid of it.

use crate::abi::{extension, v1_2_1, v1_3_1};
use crate::error::{CallError, OpenError};
use crate::family::Family;
use libloading::os::unix::{Library as Dynamic, RTLD_LOCAL, RTLD_NOW};
use std::mem::ManuallyDrop;
use std::path::Path;

/// `rkllm_createDefaultParam`, whose result travels through a pointer that no Rust signature can
/// name on every architecture; see [`probe`](crate::probe).
pub(crate) type RawFn = unsafe extern "C" fn();

pub(crate) struct Symbols {
    pub create_default_param: RawFn,
    pub family_calls: FamilyCalls,
    pub destroy: v1_3_1::DestroyFn,
    pub abort: v1_3_1::AbortFn,
    pub is_running: v1_3_1::IsRunningFn,
    pub clear_kv_cache: Option<v1_3_1::ClearKvCacheFn>,
    pub get_kv_cache_size: Option<v1_3_1::GetKvCacheSizeFn>,
    pub set_chat_template: Option<v1_3_1::SetChatTemplateFn>,
    pub load_lora: Option<v1_3_1::LoadLoraFn>,
    pub load_prompt_cache: Option<v1_3_1::LoadPromptCacheFn>,
    pub release_prompt_cache: Option<v1_3_1::ReleasePromptCacheFn>,
    pub set_function_tools: Option<v1_3_1::SetFunctionToolsFn>,
    pub set_cross_attn_params: Option<v1_3_1::SetCrossAttnParamsFn>,
    /// rkllm-cpu's own.
    pub set_run_extension: Option<extension::SetRunExtensionFn>,
    pub run_extension_size: Option<extension::RunExtensionSizeFn>,
    pub takes_idle_sequences: Option<extension::TakesIdleSequencesFn>,
}

/// The functions whose types differ between the families that are run.
#[derive(Clone, Copy)]
pub(crate) enum FamilyCalls {
    V1_2_1 {
        init: v1_2_1::InitFn,
        run: v1_2_1::RunFn,
    },
    /// 1.3.0 and 1.3.1: a 1.3.1 input, zeroed, begins with a 1.3.0 one.
    V1_3 {
        init: v1_3_1::InitFn,
        run: v1_3_1::RunFn,
    },
}

/// What came with 1.2.1: a library with none of these is older than it says.
const CAME_WITH_1_2_1: &[&str] = &[
    "rkllm_get_kv_cache_size",
    "rkllm_set_function_tools",
    "rkllm_set_cross_attn_params",
];
/// What came with 1.2.0.
const CAME_WITH_1_2_0: &[&str] = &["rkllm_clear_kv_cache", "rkllm_set_chat_template"];

/// Loads the library and resolves its functions as those of `family`, which must be one that is
/// run.
pub(crate) fn load(path: &Path, version: &str, family: Family) -> Result<Symbols, OpenError> {
    let load_error = |source| OpenError::Load {
        path: path.to_owned(),
        version: version.to_owned(),
        source,
    };
    // dlopen searches its own folders for a name without a slash; the file that was checked is
    // the one at this path and no other.
    let absolute = std::path::absolute(path).map_err(|source| OpenError::Read {
        path: path.to_owned(),
        source,
    })?;
    // SAFETY: loading runs the library's initialisers. They belong to a shared library that
    // carries the vendor's version text and was built for this architecture; that they do no harm
    // is the trust a worker process exists to give, and why only workers open libraries.
    let library =
        unsafe { Dynamic::open(Some(&absolute), RTLD_NOW | RTLD_LOCAL) }.map_err(load_error)?;
    let library = Loaded {
        library: ManuallyDrop::new(library),
        path,
        version,
    };
    let symbols = library.resolve(family)?;
    for came in [CAME_WITH_1_2_0, CAME_WITH_1_2_1] {
        if came.iter().all(|name| !library.exports(name)) {
            return Err(OpenError::SymbolsContradictFamily {
                path: path.to_owned(),
                version: version.to_owned(),
                family,
                missing: came.join(", "),
            });
        }
    }
    Ok(symbols)
}

struct Loaded<'a> {
    /// Never dropped, which would unload it: its initialisers have run, so it may have left
    /// threads and exit handlers behind, which would run into the hole; its destructors would run
    /// first; and the function pointers taken from it must outlive every handle.
    library: ManuallyDrop<Dynamic>,
    path: &'a Path,
    version: &'a str,
}

impl Loaded<'_> {
    fn resolve(&self, family: Family) -> Result<Symbols, OpenError> {
        // SAFETY: every type asked for below is the one the family's headers declare for that
        // name (rkllm_createDefaultParam excepted, whose RawFn is only ever called as probe.rs
        // does); the types are tested against the measured facts.
        unsafe {
            let family_calls = if family >= Family::V1_3_0 {
                FamilyCalls::V1_3 {
                    init: self.core("rkllm_init")?,
                    run: self.core("rkllm_run")?,
                }
            } else {
                FamilyCalls::V1_2_1 {
                    init: self.core("rkllm_init")?,
                    run: self.core("rkllm_run")?,
                }
            };
            Ok(Symbols {
                create_default_param: self.core("rkllm_createDefaultParam")?,
                family_calls,
                destroy: self.core("rkllm_destroy")?,
                abort: self.core("rkllm_abort")?,
                is_running: self.core("rkllm_is_running")?,
                clear_kv_cache: self.optional("rkllm_clear_kv_cache"),
                get_kv_cache_size: self.optional("rkllm_get_kv_cache_size"),
                set_chat_template: self.optional("rkllm_set_chat_template"),
                load_lora: self.optional("rkllm_load_lora"),
                load_prompt_cache: self.optional("rkllm_load_prompt_cache"),
                release_prompt_cache: self.optional("rkllm_release_prompt_cache"),
                set_function_tools: self.optional("rkllm_set_function_tools"),
                set_cross_attn_params: self.optional("rkllm_set_cross_attn_params"),
                set_run_extension: self.optional("rkllm_set_run_extension"),
                run_extension_size: self.optional("rkllm_run_extension_size"),
                takes_idle_sequences: self.optional("rkllm_takes_idle_sequences"),
            })
        }
    }

    /// # Safety
    /// `T` must be a function pointer type that fits the symbol.
    unsafe fn core<T: Copy>(&self, symbol: &'static str) -> Result<T, OpenError> {
        // SAFETY: passed on from the caller.
        unsafe { self.optional(symbol) }.ok_or_else(|| OpenError::MissingSymbol {
            path: self.path.to_owned(),
            version: self.version.to_owned(),
            symbol,
        })
    }

    /// # Safety
    /// `T` must be a function pointer type that fits the symbol.
    unsafe fn optional<T: Copy>(&self, symbol: &str) -> Option<T> {
        // SAFETY: passed on from the caller. A symbol may be there with the value NULL, which is
        // no function pointer; an `Option` of one has the same size and reads it as `None`.
        unsafe { self.library.get::<Option<T>>(symbol) }
            .ok()
            .and_then(|found| *found)
    }

    fn exports(&self, symbol: &str) -> bool {
        // SAFETY: the address is only looked at for being there, never called or read.
        unsafe { self.optional::<RawFn>(symbol) }.is_some()
    }
}

/// The optional function, or the error that says which one this version lacks.
pub(crate) fn require<T: Copy>(
    found: Option<T>,
    function: &'static str,
    version: &str,
) -> Result<T, CallError> {
    found.ok_or_else(|| CallError::SymbolMissing {
        function,
        version: version.to_owned(),
    })
}
