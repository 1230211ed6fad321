//! LoRA adapters: loaded once, freed with the model. llama.cpp computes with one set of them at a
//! time, so a step is of one adapter. An adapter is known by the fingerprint of its file and scale:
//! handles that load the same one can share a step.

use std::ffi::CString;

use llama_cpp_sys_2 as llama;
use thiserror::Error;

use super::Computing;
use crate::fingerprint::{self, Fingerprint};
use crate::log::error;

/// What the model computes as it is.
pub(crate) const NO_ADAPTER: u64 = 0;

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
    fingerprint: u64,
    raw: *mut llama::llama_adapter_lora,
    scale: f32,
}

// SAFETY: an adapter has no ties to the thread that loaded it; it is used under the lock of its
// context.
unsafe impl Send for Adapter {}

#[derive(Default)]
pub(super) struct Adapters {
    loaded: Vec<Adapter>,
    active: u64,
}

impl Computing {
    /// Returns the adapter's fingerprint, or why there is none.
    pub(crate) fn load_adapter(&mut self, path: &str, scale: f32) -> Result<u64, String> {
        if !scale.is_finite() {
            return Err(format!("its scale is {scale}"));
        }
        let of_file = std::fs::File::open(path)
            .and_then(|file| fingerprint::of_file(&file))
            .map_err(|reason| reason.to_string())?;
        let mut fingerprint = Fingerprint::new();
        fingerprint.add(&of_file.to_le_bytes());
        fingerprint.add(&scale.to_le_bytes());
        let fingerprint = fingerprint.value();
        if self.adapters.find(fingerprint).is_none() {
            let raw = self.read_adapter(path);
            let raw = raw.ok_or("it is not a GGUF adapter for this model")?;
            self.adapters.loaded.push(Adapter {
                fingerprint,
                raw,
                scale,
            });
        }
        Ok(fingerprint)
    }

    fn read_adapter(&self, path: &str) -> Option<*mut llama::llama_adapter_lora> {
        let path = CString::new(path).ok()?;
        // SAFETY: the model is alive and owns what is loaded; the path is a live C string.
        let raw = unsafe { llama::llama_adapter_lora_init(self.weights.raw(), path.as_ptr()) };
        (!raw.is_null()).then_some(raw)
    }

    /// Makes `wanted` the adapter of what is evaluated from now on.
    pub(super) fn use_adapter(&mut self, wanted: u64) {
        if self.adapters.active == wanted {
            return;
        }
        let adapter = self.adapters.find(wanted);
        let mut raw: Vec<_> = adapter.iter().map(|adapter| adapter.raw).collect();
        let mut scales: Vec<_> = adapter.iter().map(|adapter| adapter.scale).collect();
        // SAFETY: the context is alive, the adapters live as long as its model, and both arrays
        // have the length given and are copied.
        let code = unsafe {
            llama::llama_set_adapters_lora(
                self.raw(),
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

impl Adapters {
    fn find(&self, fingerprint: u64) -> Option<&Adapter> {
        let mut loaded = self.loaded.iter();
        loaded.find(|adapter| adapter.fingerprint == fingerprint)
    }
}
