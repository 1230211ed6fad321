//! The calls between runs that change what a model works with.

use crate::console;
use crate::fault::Call;
use crate::model::{Cache, lock};
use crate::params;
use crate::prompt_cache;
use crate::runtime::{FAILED, Runtime};
use crate::set_up::{CrossAttn, Lora, Tools};
use std::ffi::{c_char, c_int, c_void};
use std::path::Path;

impl Runtime {
    /// # Safety
    /// As `rkllm_load_lora`.
    pub unsafe fn load_lora(&self, handle: *mut c_void, adapter: *const c_void) -> c_int {
        let fields = self.layout.get("RKLLMLoraAdapter");
        let base = adapter.cast::<u8>();
        // SAFETY: of this family by the caller's promise.
        let (path, name, scale) = unsafe {
            let text = |field| fields.read::<*const c_char>(base, field);
            (
                params::text(text("lora_adapter_path").unwrap_or(std::ptr::null())),
                params::text(text("lora_adapter_name").unwrap_or(std::ptr::null())),
                fields.read::<f32>(base, "scale").unwrap_or_default(),
            )
        };
        self.simple(Call::LoadLora, handle, |model| {
            let mut set_up = lock(&model.set_up);
            if set_up.loras.iter().any(|lora| lora.name == name) {
                console::error(&format!("Lora adapter '{name}' is already initialized!"));
                return FAILED;
            }
            if std::fs::read(&path).is_err() {
                console::error("load lora adapter failed");
                return FAILED;
            }
            let file = Path::new(&path).file_name().unwrap_or_default();
            set_up.loras.push(Lora {
                name,
                file: file.to_string_lossy().into_owned(),
                scale,
            });
            0
        })
    }

    /// # Safety
    /// As `rkllm_load_prompt_cache`.
    pub unsafe fn load_prompt_cache(&self, handle: *mut c_void, path: *const c_char) -> c_int {
        // SAFETY: NULL or a C string by the caller's promise.
        let path = unsafe { params::text(path) };
        self.simple(Call::LoadPromptCache, handle, |model| {
            let saved = std::fs::read(&path).unwrap_or_default();
            let Some(prompt) = prompt_cache::prompt_of(&saved) else {
                console::error("load prompt cache failed");
                return FAILED;
            };
            lock(&model.set_up).prompt_cache = Some(prompt);
            0
        })
    }

    pub fn release_prompt_cache(&self, handle: *mut c_void) -> c_int {
        self.simple(Call::ReleasePromptCache, handle, |model| {
            lock(&model.set_up).prompt_cache = None;
            0
        })
    }

    /// # Safety
    /// As `rkllm_set_function_tools`.
    pub unsafe fn set_function_tools(
        &self,
        handle: *mut c_void,
        parts: [*const c_char; 3],
    ) -> c_int {
        // SAFETY: NULL or C strings by the caller's promise.
        let [system, tools, tool_response] = parts.map(|part| unsafe { params::text(part) });
        self.simple(Call::SetFunctionTools, handle, |model| {
            if lock(&model.template).prefix.is_empty() {
                console::error(
                    "Failed to set function tools, possibly because the chat_template is empty",
                );
                return FAILED;
            }
            lock(&model.set_up).tools = Some(Tools {
                system,
                tools,
                tool_response,
            });
            0
        })
    }

    /// # Safety
    /// As `rkllm_set_cross_attn_params`.
    pub unsafe fn set_cross_attn_params(&self, handle: *mut c_void, given: *const c_void) -> c_int {
        let fields = self.layout.get("RKLLMCrossAttnParam");
        let base = given.cast::<u8>();
        self.simple(Call::SetCrossAttnParams, handle, |model| {
            if model.params.use_cross_attn != Some(1) {
                console::error("the model has no cross-attention");
                return FAILED;
            }
            // SAFETY: of this family by the caller's promise, each array with a value at least.
            let read = unsafe {
                let real = |field| {
                    let values = fields.read::<*const f32>(base, field)?;
                    (!values.is_null()).then(|| values.read())
                };
                let pos = fields.read::<*const i32>(base, "encoder_pos");
                CrossAttn {
                    num_tokens: fields.read(base, "num_tokens").unwrap_or_default(),
                    k: real("encoder_k_cache").unwrap_or_default(),
                    v: real("encoder_v_cache").unwrap_or_default(),
                    mask: real("encoder_mask").unwrap_or_default(),
                    pos: pos.filter(|pos| !pos.is_null()).map_or(0, |pos| pos.read()),
                }
            };
            lock(&model.set_up).cross_attn = Some(read);
            0
        })
    }

    /// Without ranges all of the cache, with them so many tokens less.
    ///
    /// # Safety
    /// As `rkllm_clear_kv_cache`.
    pub unsafe fn clear_kv_cache_ranges(
        &self,
        handle: *mut c_void,
        start: *const c_int,
        end: *const c_int,
    ) -> c_int {
        self.simple(Call::ClearKvCache, handle, |model| {
            let mut cache = lock(&model.cache);
            if start.is_null() || end.is_null() {
                *cache = Cache::default();
                return 0;
            }
            // SAFETY: an entry for each sequence by the caller's promise, so one at least.
            let (start, end) = unsafe { (start.read(), end.read()) };
            if start < 0 || end < start || end > cache.tokens {
                console::error("clear_kv_cache: a range outside the cache");
                return FAILED;
            }
            cache.tokens -= end - start;
            0
        })
    }
}
