//! The calls that change what a loaded model works with: adapters, prompt caches, tools,
//! cross-attention, ranges of the KV cache. Serial like a run. A release that lacks one says so.

use crate::abi::v1_3_1;
use crate::error::CallError;
use crate::handle::{Handle, c_string};
use crate::symbols;
use std::ffi::{CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::PoisonError;

/// What an encoder computed, for models built with cross-attention.
#[derive(Debug, Clone, Copy)]
pub struct CrossAttention<'a> {
    /// `[layers][num_tokens][heads][dim]`
    pub k_cache: &'a [f32],
    /// `[layers][heads][dim][num_tokens]`
    pub v_cache: &'a [f32],
    /// `[num_tokens]`
    pub mask: &'a [f32],
    /// `[num_tokens]`
    pub positions: &'a [i32],
}

/// The same in memory that stays where it is.
pub(crate) struct OwnedCrossAttention {
    k_cache: Vec<f32>,
    v_cache: Vec<f32>,
    mask: Vec<f32>,
    positions: Vec<i32>,
    raw: Box<v1_3_1::RKLLMCrossAttnParam>,
}

// SAFETY: the pointers in `raw` go into the vectors beside it, which are not touched any more.
unsafe impl Send for OwnedCrossAttention {}

impl OwnedCrossAttention {
    fn copy_of(given: &CrossAttention<'_>) -> Result<Self, CallError> {
        let tokens = given.mask.len();
        let rows_are_whole =
            |values: &[f32]| !values.is_empty() && values.len().is_multiple_of(tokens);
        if tokens == 0
            || given.positions.len() != tokens
            || !rows_are_whole(given.k_cache)
            || given.v_cache.len() != given.k_cache.len()
        {
            return Err(CallError::OutOfRange {
                what: "the cross-attention parameters",
                value: format!(
                    "{} values of K, {} of V, {} of the mask, {} positions",
                    given.k_cache.len(),
                    given.v_cache.len(),
                    tokens,
                    given.positions.len()
                ),
                allowed: "mask and positions need one value a token, K and V as many as each other and a whole number",
            });
        }
        let num_tokens = c_int::try_from(tokens).map_err(|_| CallError::OutOfRange {
            what: "num_tokens",
            value: tokens.to_string(),
            allowed: "it must fit an int",
        })?;
        let mut owned = OwnedCrossAttention {
            k_cache: given.k_cache.to_vec(),
            v_cache: given.v_cache.to_vec(),
            mask: given.mask.to_vec(),
            positions: given.positions.to_vec(),
            raw: Box::new(v1_3_1::RKLLMCrossAttnParam {
                encoder_k_cache: ptr::null_mut(),
                encoder_v_cache: ptr::null_mut(),
                encoder_mask: ptr::null_mut(),
                encoder_pos: ptr::null_mut(),
                num_tokens,
            }),
        };
        owned.raw.encoder_k_cache = owned.k_cache.as_mut_ptr();
        owned.raw.encoder_v_cache = owned.v_cache.as_mut_ptr();
        owned.raw.encoder_mask = owned.mask.as_mut_ptr();
        owned.raw.encoder_pos = owned.positions.as_mut_ptr();
        Ok(owned)
    }
}

impl Handle {
    /// Loads an adapter file under a name that runs choose it by (`rkllm_load_lora`). Several may
    /// be loaded; there is no unloading.
    pub fn load_lora(&self, path: &Path, name: &str, scale: f32) -> Result<(), CallError> {
        let path = path_string("the adapter's path", path)?;
        let name = c_string("the adapter's name", name)?;
        let mut adapter = v1_3_1::RKLLMLoraAdapter {
            lora_adapter_path: path.as_ptr(),
            lora_adapter_name: name.as_ptr(),
            scale,
        };
        let load = self.library().symbols().load_lora;
        self.serial_call("rkllm_load_lora", load, |raw, load| {
            // SAFETY: the handle is alive because `self` is; the struct and what it points to live
            // through the call.
            unsafe { load(raw, &mut adapter) }
        })
    }

    /// Loads a prompt's KV cache from a file (`rkllm_load_prompt_cache`); runs whose prompt begins
    /// with that prompt start behind it.
    pub fn load_prompt_cache(&self, path: &Path) -> Result<(), CallError> {
        let path = path_string("the prompt cache's path", path)?;
        let load = self.library().symbols().load_prompt_cache;
        self.serial_call("rkllm_load_prompt_cache", load, |raw, load| {
            // SAFETY: the handle is alive because `self` is; the path lives through the call.
            unsafe { load(raw, path.as_ptr()) }
        })
    }

    /// Forgets the loaded prompt cache (`rkllm_release_prompt_cache`), before another is loaded.
    pub fn release_prompt_cache(&self) -> Result<(), CallError> {
        let release = self.library().symbols().release_prompt_cache;
        self.serial_call("rkllm_release_prompt_cache", release, |raw, release| {
            // SAFETY: the handle is alive because `self` is.
            unsafe { release(raw) }
        })
    }

    /// Sets the tools a model may call (`rkllm_set_function_tools`): a JSON array, and the tag that
    /// the model's template puts around results. Needs the model's own template.
    pub fn set_function_tools(
        &self,
        system: &str,
        tools: &str,
        response_tag: &str,
    ) -> Result<(), CallError> {
        let system = c_string("the system prompt of the tools", system)?;
        let tools = c_string("the tools", tools)?;
        let tag = c_string("the tag of tool responses", response_tag)?;
        let set = self.library().symbols().set_function_tools;
        self.serial_call("rkllm_set_function_tools", set, |raw, set| {
            // SAFETY: the handle is alive because `self` is; the strings live through the call.
            unsafe { set(raw, system.as_ptr(), tools.as_ptr(), tag.as_ptr()) }
        })
    }

    /// Gives a model with cross-attention what its encoder computed
    /// (`rkllm_set_cross_attn_params`).
    pub fn set_cross_attention(&self, given: &CrossAttention<'_>) -> Result<(), CallError> {
        let mut owned = OwnedCrossAttention::copy_of(given)?;
        let set = self.library().symbols().set_cross_attn_params;
        let result = self.serial_call("rkllm_set_cross_attn_params", set, |raw, set| {
            // SAFETY: the handle is alive because `self` is; the values live until the library has
            // taken others or the model is destroyed, so a library that keeps the pointers finds
            // them.
            unsafe { set(raw, &mut *owned.raw) }
        });
        let mut held = self
            .cross_attention
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A library that refused these may keep them, or those that it took before.
        held.truncate(usize::from(result.is_err()));
        held.push(owned);
        result
    }

    /// Removes a range of positions from the KV cache of each sequence (`rkllm_clear_kv_cache`);
    /// the library allows it only when history is not kept.
    pub fn clear_kv_cache_ranges(
        &self,
        keep_system: bool,
        start: &[i32],
        end: &[i32],
    ) -> Result<(), CallError> {
        let sequences = self.control.sequences();
        if start.len() != sequences || end.len() != sequences {
            return Err(CallError::OutOfRange {
                what: "the number of ranges",
                value: format!("{} starts and {} ends", start.len(), end.len()),
                allowed: "there must be one of each for every sequence (n_batch)",
            });
        }
        let (mut start, mut end) = (start.to_vec(), end.to_vec());
        let clear = self.library().symbols().clear_kv_cache;
        self.serial_call("rkllm_clear_kv_cache", clear, |raw, clear| {
            // SAFETY: the handle is alive because `self` is; both arrays have an entry for each
            // sequence and live through the call.
            unsafe {
                clear(
                    raw,
                    c_int::from(keep_system),
                    start.as_mut_ptr(),
                    end.as_mut_ptr(),
                )
            }
        })
    }

    /// Makes a call that must not overlap another, if the library has it.
    fn serial_call<T: Copy>(
        &self,
        name: &'static str,
        function: Option<T>,
        call: impl FnOnce(*mut c_void, T) -> c_int,
    ) -> Result<(), CallError> {
        let _serial = self.serial(name)?;
        let raw = self.control.raw(name)?;
        let library = self.library();
        let function = symbols::require(function, name, library.version())?;
        library.succeeded(name, call(raw.as_ptr(), function))
    }
}

fn path_string(what: &'static str, path: &Path) -> Result<CString, CallError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|error| CallError::InteriorNul {
        what,
        position: error.nul_position(),
    })
}
