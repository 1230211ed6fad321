//! LoRA adapters: loaded once, never unloaded, one or none in a run. Keys and values computed with
//! one adapter are wrong for every other, so a change of adapter empties the cache; the history
//! stays, and is evaluated again.

use std::ffi::CString;

use llama_cpp_sys_2 as llama;
use thiserror::Error;

use super::Engine;
use crate::fingerprint::{self, Fingerprint};
use crate::log::{error, info};
use crate::model_load::LoadedModel;
use crate::run_state::RunState;

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum AdapterError {
    #[error("Not Found Lora adapter named: {0}")]
    Unknown(String),
    #[error("Lora adapter '{0}' is already initialized!")]
    Duplicate(String),
    #[error("failed to load the Lora adapter '{name}' from {path}: {reason}")]
    NotLoadable {
        name: String,
        path: String,
        reason: String,
    },
}

/// Owned by the model, which frees it.
struct Adapter {
    name: String,
    raw: *mut llama::llama_adapter_lora,
    scale: f32,
    /// Of its file and scale.
    fingerprint: u64,
}

// SAFETY: an adapter has no ties to the thread that loaded it; it is used under the engine's lock.
unsafe impl Send for Adapter {}

#[derive(Default)]
pub(super) struct Adapters {
    loaded: Vec<Adapter>,
    active: Option<usize>,
}

impl Adapters {
    pub(super) fn find(&self, name: &str) -> Result<usize, AdapterError> {
        let found = self.loaded.iter().position(|adapter| adapter.name == name);
        found.ok_or_else(|| AdapterError::Unknown(name.to_owned()))
    }

    /// Tells what is computed now from what other adapters compute; 0 without one.
    pub(super) fn active_fingerprint(&self) -> u64 {
        self.active
            .map_or(0, |index| self.loaded[index].fingerprint)
    }
}

impl Engine {
    /// `rkllm_load_lora`. The adapter's scale is fixed here.
    pub(crate) fn load_adapter(
        &mut self,
        name: &str,
        path: &str,
        scale: f32,
    ) -> Result<(), AdapterError> {
        if self.adapters.find(name).is_ok() {
            return Err(AdapterError::Duplicate(name.to_owned()));
        }
        let refuse = |reason: String| AdapterError::NotLoadable {
            name: name.to_owned(),
            path: path.to_owned(),
            reason,
        };
        if !scale.is_finite() {
            return Err(refuse(format!("its scale is {scale}")));
        }
        let of_file = std::fs::File::open(path)
            .and_then(|file| fingerprint::of_file(&file))
            .map_err(|reason| refuse(reason.to_string()))?;
        let mut fingerprint = Fingerprint::new();
        fingerprint.add(&of_file.to_le_bytes());
        fingerprint.add(&scale.to_le_bytes());
        let raw = load(&self.model, path)
            .ok_or_else(|| refuse("it is not a GGUF adapter for this model".to_owned()))?;
        info!("loaded the Lora adapter '{name}' from {path}, scale {scale}");
        self.adapters.loaded.push(Adapter {
            name: name.to_owned(),
            raw,
            scale,
            fingerprint: fingerprint.value(),
        });
        Ok(())
    }

    /// Makes `wanted` the adapter of what is evaluated from now on.
    pub(super) fn apply_adapter(&mut self, wanted: Option<usize>, state: &RunState) {
        if self.adapters.active == wanted {
            return;
        }
        for (slot, held) in self.slots.iter_mut().enumerate() {
            held.cells.clear();
            state.set_kv_tokens(slot, 0);
        }
        let adapter = wanted.map(|index| &self.adapters.loaded[index]);
        let mut raw: Vec<_> = adapter.iter().map(|adapter| adapter.raw).collect();
        let mut scales: Vec<_> = adapter.iter().map(|adapter| adapter.scale).collect();
        // SAFETY: the context is alive, the adapters live as long as its model, and both arrays
        // have the length given and are copied.
        let code = unsafe {
            llama::llama_set_adapters_lora(
                self.model.context(),
                raw.as_mut_ptr(),
                raw.len(),
                scales.as_mut_ptr(),
            )
        };
        if code != 0 {
            error!("llama.cpp did not take the Lora adapters, code {code}");
        }
        self.adapters.active = wanted;
    }
}

fn load(model: &LoadedModel, path: &str) -> Option<*mut llama::llama_adapter_lora> {
    let path = CString::new(path).ok()?;
    // SAFETY: the model is alive and owns what is loaded; the path is a live C string.
    let raw = unsafe { llama::llama_adapter_lora_init(model.raw(), path.as_ptr()) };
    (!raw.is_null()).then_some(raw)
}
