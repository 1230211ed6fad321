//! The adapters of a model's worker: what it is to load, and whether it has what a request is made with.

use std::collections::BTreeMap;

use super::runtime_lines::first_error;
use super::worker::Worker;
use crate::generation::{Adapter, GenerationError};
use crate::library_calls::LoraAdapter;
use crate::models::{AdapterFacts, InstalledModel};

/// Those of its adapters that a worker of `model` is to load: not those that are known to be of no use.
pub(super) fn to_load(
    model: &InstalledModel,
    unusable: &BTreeMap<String, String>,
) -> Vec<LoraAdapter> {
    let is_usable = |adapter: &&AdapterFacts| {
        adapter.problem.is_none() && !unusable.contains_key(&adapter.name)
    };
    let usable = model.facts.adapters.iter().filter(is_usable);
    let loaded = usable.map(|adapter| LoraAdapter {
        lora_adapter_path: model.adapter_path(adapter).display().to_string(),
        lora_adapter_name: adapter.name.clone(),
        scale: adapter.scale,
    });
    loaded.collect()
}

/// Whether a worker of `model` that is not to load those would load the one of this name.
pub(super) fn is_to_load(
    model: &InstalledModel,
    unusable: &BTreeMap<String, String>,
    name: &str,
) -> bool {
    let mut loaded = to_load(model, unusable).into_iter();
    loaded.any(|adapter| adapter.lora_adapter_name == name)
}

/// Adds what the runtime has printed to why one was not loaded; of several no line says which it is of.
pub(super) fn explain(unusable: &mut BTreeMap<String, String>, lines: &[String]) {
    if unusable.len() > 1 {
        return;
    }
    if let Some((reason, line)) = unusable.values_mut().next().zip(first_error(lines)) {
        *reason += &format!("; the runtime said: {line}");
    }
}

/// What a worker's adapter of this name is now; `None`: its model has none.
pub(super) fn stamp(worker: &Worker, name: &str) -> Option<String> {
    facts(worker, name).map(AdapterFacts::stamp)
}

fn facts<'a>(worker: &'a Worker, name: &str) -> Option<&'a AdapterFacts> {
    let mut adapters = worker.model.facts.adapters.iter();
    adapters.find(|adapter| adapter.name == name)
}

/// Refuses what this worker has not loaded.
///
/// # Errors
///
/// The model cannot be had with that adapter.
pub fn check(worker: &Worker, adapter: Option<&Adapter>) -> Result<(), GenerationError> {
    let Some(adapter) = adapter else {
        return Ok(());
    };
    let reason = match facts(worker, &adapter.name) {
        None => Some("the model has no such adapter any more"),
        Some(facts) => facts.problem.as_deref(),
    };
    let told = worker.facts.unusable_adapters.get(&*adapter.name);
    match reason.or(told.map(String::as_str)) {
        None => Ok(()),
        Some(reason) => Err(unusable(&worker.model.id, &adapter.name, reason)),
    }
}

fn unusable(model: &str, adapter: &str, reason: &str) -> GenerationError {
    GenerationError::ModelUnavailable {
        model: format!("{model}:{adapter}"),
        reason: format!("its adapter cannot be used: {reason}"),
        retry_after: None,
    }
}
