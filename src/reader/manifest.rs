//! `model.toml`: what the owner of a machine says about one model.
//!
//! An unknown key or a value out of its range is an error that names it; nothing is ignored.

use std::fs::File;
use std::ops::RangeInclusive;

use serde::Deserialize;

use super::adapters;
use super::facts::EmbeddingDefaults;
use super::judge::Rerank;
use super::model_source::ModelSource;
use super::pinned;
use super::read_text;
use super::told_replies::Replies;
use crate::generation::{KeepAlive, MOST_PARALLEL, SamplingRequest};
use crate::library_calls::Pooling;
use crate::printable::is_printable;
use crate::prompt::TemplateFamily;

const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The keys of a `model.toml`; every one may be absent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Manifest {
    /// Replaces the id that the file's or folder's name gives.
    pub id: Option<String>,
    pub aliases: Vec<String>,
    pub context_length: Option<u32>,
    /// Answers made at the same time.
    pub parallel: Option<u8>,
    /// Answers made in one batch.
    pub batch: Option<u8>,
    /// For how long it stays loaded that nothing uses.
    pub keep_alive: Option<KeepAlive>,
    pub max_new_tokens: Option<u32>,
    pub thinking_budget_tokens: Option<u32>,
    /// Whether the oldest turns of a conversation that is too long are left out.
    pub truncate: Option<bool>,
    pub sampling: SamplingRequest,
    /// A built-in chat format.
    pub template: Option<TemplateFamily>,
    /// A Jinja file in the manifest's folder or beneath it.
    pub template_file: Option<String>,
    pub bos_token: Option<String>,
    pub eos_token: Option<String>,
    pub cpu_mask: Option<u32>,
    pub base_domain_id: Option<i32>,
    /// Stop strings in addition to a request's.
    pub stop: Vec<String>,
    /// Token ids that end an answer, in addition to the model's own.
    pub eos_ids: Vec<i32>,
    /// `false`: the runtime prints special tokens. Those that end an answer are kept from it by their ids.
    pub skip_special_token: Option<bool>,
    pub embeddings: Embeddings,
    /// There for a model that judges documents.
    pub rerank: Option<Rerank>,
    pub replies: Replies,
    pub prefixes: Prefixes,
    /// LoRA adapters, each of which makes a model of its own.
    pub adapters: Vec<adapters::Entry>,
    /// Where a pulled model comes from; for people, and for the next pull.
    pub source: toml::Table,
}

/// What all keys may find in the model's cells.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Prefixes {
    /// System messages.
    pub shared: Vec<String>,
    /// Prompts that are evaluated before a client asks for them.
    pub pinned: Vec<pinned::Entry>,
}

/// Each is written to disk once.
const MOST_SHARED_PREFIXES: usize = 16;
const MOST_SHARED_BYTES: usize = 256 << 10;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct Embeddings {
    pooling: Pooling,
    normalize: bool,
    suffix: String,
}

impl Default for Embeddings {
    fn default() -> Self {
        EmbeddingDefaults::default().into()
    }
}

impl From<EmbeddingDefaults> for Embeddings {
    fn from(defaults: EmbeddingDefaults) -> Self {
        let EmbeddingDefaults {
            pooling,
            normalize,
            suffix,
        } = defaults;
        Self {
            pooling,
            normalize,
            suffix,
        }
    }
}

impl From<Embeddings> for EmbeddingDefaults {
    fn from(embeddings: Embeddings) -> Self {
        Self {
            pooling: embeddings.pooling,
            normalize: embeddings.normalize,
            suffix: embeddings.suffix,
        }
    }
}

impl Manifest {
    /// Reads the manifest of this name.
    pub fn read(file_name: &str, file: &File) -> Result<Self, String> {
        let text = read_text(file, MAX_FILE_BYTES)
            .map_err(|e| format!("{file_name} cannot be read: {e}"))?;
        let manifest: Self = toml::from_str(&text).map_err(|e| {
            let before = e.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..before]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
                + 1;
            format!("{file_name} line {line}: {}", e.message())
        })?;
        manifest
            .check()
            .map_err(|problem| format!("{file_name}: {problem}"))?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), String> {
        if self.template.is_some() && self.template_file.is_some() {
            return Err("set template or template-file, not both".into());
        }
        for name in self.id.iter().chain(&self.aliases) {
            check_name(name)?;
        }
        in_range("context-length", self.context_length, 1..=u32::MAX)?;
        in_range("parallel", self.parallel, 1..=MOST_PARALLEL)?;
        in_range("batch", self.batch, 1..=MOST_PARALLEL)?;
        if self.batch.is_some_and(|batch| batch > 1) && self.parallel.is_some_and(|it| it > 1) {
            return Err("set parallel or batch, not both: a batch is of one handle".into());
        }
        let prefixes = &self.prefixes;
        let keeps_any = !(prefixes.shared.is_empty() && prefixes.pinned.is_empty());
        if self.batch.is_some_and(|batch| batch > 1) && keeps_any {
            return Err("set batch or [prefixes], not both: a batch keeps no prefix".into());
        }
        in_range("max-new-tokens", self.max_new_tokens, 1..=u32::MAX)?;
        in_range("cpu-mask", self.cpu_mask, 1..=u32::MAX)?;
        // The NPU's IOMMU has 16 domains (docs/vendor-library.md §6).
        in_range("base-domain-id", self.base_domain_id, 0..=15)?;
        let s = &self.sampling;
        in_range("sampling.temperature", s.temperature, 0.0..=100.0)?;
        in_range("sampling.top-p", s.top_p, 0.0..=1.0)?;
        in_range("sampling.top-k", s.top_k, 0..=i32::MAX)?;
        in_range("sampling.repeat-penalty", s.repeat_penalty, 0.01..=100.0)?;
        in_range("sampling.presence-penalty", s.presence_penalty, -2.0..=2.0)?;
        in_range(
            "sampling.frequency-penalty",
            s.frequency_penalty,
            -2.0..=2.0,
        )?;
        for id in &self.eos_ids {
            in_range("eos-ids", Some(*id), 0..=i32::MAX)?;
        }
        if self.stop.iter().any(String::is_empty) {
            return Err("stop holds an empty string".into());
        }
        self.rerank.as_ref().map_or(Ok(()), Rerank::check)?;
        if self.embeddings.suffix.contains('\0') {
            return Err("embeddings.suffix holds a NUL character".into());
        }
        adapters::check(&self.adapters)?;
        let shared = &self.prefixes.shared;
        if shared.iter().any(|text| text.trim().is_empty()) {
            return Err("prefixes.shared holds an empty text".into());
        }
        in_range(
            "the number of prefixes.shared",
            Some(shared.len()),
            0..=MOST_SHARED_PREFIXES,
        )?;
        let bytes = shared.iter().map(String::len).sum();
        in_range(
            "the bytes of prefixes.shared",
            Some(bytes),
            0..=MOST_SHARED_BYTES,
        )?;
        pinned::check(&self.prefixes.pinned)?;
        ModelSource::of(&self.source)?;
        self.replies.check()
    }
}

/// Ids and aliases appear in JSON, logs and paths.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.trim().is_empty() || name.len() > 200 || !is_printable(name) {
        return Err(format!(
            "{name:?} is no name for a model: 1 to 200 bytes without characters that steer a \
             terminal or the direction of writing; set `id` in its model.toml"
        ));
    }
    Ok(())
}

fn in_range<T>(key: &str, value: Option<T>, range: RangeInclusive<T>) -> Result<(), String>
where
    T: PartialOrd + std::fmt::Display,
{
    match value {
        Some(value) if !range.contains(&value) => Err(format!(
            "{key} is {value}, allowed is {} to {}",
            range.start(),
            range.end()
        )),
        _ => Ok(()),
    }
}
