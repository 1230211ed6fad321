//! A handle's LoRA adapters by the names that it gave them: loaded once, never unloaded, one or none
//! in a run. A run with another adapter than the last one's evaluates its history again.

use super::Engine;
use crate::computing::AdapterError;
use crate::log::info;

#[derive(Default)]
pub(super) struct Adapters(Vec<Named>);

struct Named {
    name: String,
    fingerprint: u64,
}

impl Adapters {
    /// The adapter's fingerprint.
    pub(super) fn find(&self, name: &str) -> Result<u64, AdapterError> {
        let found = self.0.iter().find(|adapter| adapter.name == name);
        found
            .map(|adapter| adapter.fingerprint)
            .ok_or_else(|| AdapterError::Unknown(name.to_owned()))
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
        let loaded = self.seat.computing().load_adapter(path, scale);
        let fingerprint = loaded.map_err(|reason| AdapterError::NotLoadable {
            name: name.to_owned(),
            path: path.to_owned(),
            reason,
        })?;
        info!("loaded the Lora adapter '{name}' from {path}, scale {scale}");
        self.adapters.0.push(Named {
            name: name.to_owned(),
            fingerprint,
        });
        Ok(())
    }
}
