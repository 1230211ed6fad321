//! One model that is there, and what follows from what is known about it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ADAPTERS, Adapted, AdapterFacts, ModelKind, Variant};
use crate::generation::{Adapter, ModelId, SamplingRequest};
use crate::ipc::{ModelLocation, PinnedPrompt, TemplateState};
use crate::reader::ModelFacts;
use crate::reply::ModelReply;

/// The longest tokens of vocabularies, runs of white space, have about as many bytes; no text is made of
/// them alone.
const MOST_TOKEN_BYTES: usize = 128;

/// One installed model and everything known about it without loading it.
#[derive(Clone, Debug, Default)]
pub struct InstalledModel {
    pub id: ModelId,
    /// The id comes from the manifest and not from the location's name.
    pub named_by_manifest: bool,
    /// The model file; of a split GGUF the first part.
    pub path: PathBuf,
    pub facts: ModelFacts,
    /// Where readers find it. `None`: no reader found it.
    pub location: Option<ModelLocation>,
    /// Chats need one that can be used.
    pub template: TemplateState,
    /// How it writes thoughts and calls; `None`: it has no template.
    pub reply: Option<Arc<ModelReply>>,
    /// tokenizer.json beside the model, with which readers make tokens.
    pub tokenizer_json: Option<PathBuf>,
    /// It is the model of this id with one of its adapters.
    pub adapted: Option<Arc<Adapted>>,
    /// It was made of the model of this id by a request, and is that model but for what this says.
    pub variant: Option<Arc<Variant>>,
    /// Remarks that do not keep the model from being used, in words for `rkllmd models`.
    pub notes: Vec<String>,
}

impl InstalledModel {
    /// What it is listed as. `id` is that of its worker.
    pub fn name(&self) -> &ModelId {
        match (&self.variant, &self.adapted) {
            (Some(variant), _) => &variant.name,
            (None, Some(adapted)) => &adapted.name,
            (None, None) => &self.id,
        }
    }

    /// Whether the bytes of its tokens can be known, so that answers can be kept to a format: a GGUF file's own
    /// have the last word.
    pub fn tells_its_tokens(&self) -> bool {
        match self.facts.kind {
            ModelKind::Gguf => self.facts.spells_tokens,
            ModelKind::Rkllm => self.tokenizer_json.is_some(),
        }
    }

    /// Whether its answers can be kept to a format.
    pub fn keeps_formats(&self) -> bool {
        self.tells_its_tokens() && self.facts.batch.is_none()
    }

    /// Whether functions have a place in its prompts, and it is known how it writes calls of them.
    pub fn takes_functions(&self) -> bool {
        let reply = self.reply.as_ref();
        let variant = self.variant.as_ref();
        reply.is_some_and(|reply| reply.found.knows_calls())
            && variant.is_none_or(|variant| variant.takes_functions())
    }

    /// What its runs are made with.
    pub fn adapter(&self) -> Option<&Arc<Adapter>> {
        self.adapted.as_ref().map(|adapted| &adapted.adapter)
    }

    /// Why nothing can be made with its adapter, as far as its file tells.
    pub fn adapter_problem(&self) -> Option<&str> {
        self.adapted.as_ref()?.facts.problem.as_deref()
    }

    /// Where the file of one of its adapters lies.
    pub fn adapter_path(&self, adapter: &AdapterFacts) -> PathBuf {
        let folder = self.path.parent().unwrap_or(&self.path);
        folder.join(ADAPTERS).join(&adapter.file)
    }

    /// Bytes of the adapters that are loaded with it.
    pub fn adapters_bytes(&self) -> u64 {
        let usable = self.facts.adapters.iter().filter(|it| it.problem.is_none());
        usable.fold(0, |sum, adapter| sum.saturating_add(adapter.size_bytes))
    }

    /// Whether a file is among those that belong to it alone.
    pub fn has_file(&self, path: &Path) -> bool {
        let Some(location) = &self.location else {
            return self.path == path;
        };
        let folder = location.folder.to_path();
        match &location.file {
            None => path.starts_with(folder),
            Some(flat) => {
                let beside = [
                    format!("{}.toml", flat.name),
                    format!("{}.jinja", flat.name),
                ];
                let mut names = flat.files.iter().chain(&beside);
                names.any(|name| folder.join(name) == path)
            }
        }
    }

    /// When it became what it is, in seconds since the epoch: its file's time, or a request's that made it.
    pub fn created(&self) -> u64 {
        let variant = self.variant.as_ref();
        variant.map_or(self.facts.created, |variant| variant.created)
    }

    /// All that it answers to, its listed name first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let aliases = self.facts.aliases.iter().map(String::as_str);
        std::iter::once(&**self.name()).chain(aliases)
    }

    /// Tokens that an answer has at most where its request says nothing of it; -1: as many as the context
    /// leaves.
    pub fn usual_budget(&self) -> Option<i64> {
        let tokens = self.facts.max_new_tokens?;
        Some(if tokens == u32::MAX {
            -1
        } else {
            tokens.into()
        })
    }

    /// What its answers are drawn by where their requests say nothing of it.
    pub fn usual_sampling(&self) -> SamplingRequest {
        match &self.variant {
            Some(variant) => variant.values.as_given(self.facts.sampling),
            None => self.facts.sampling,
        }
    }

    /// Texts that end its answers besides those of their requests.
    pub fn usual_stops(&self) -> impl Iterator<Item = &String> {
        let of_variant = self.variant.iter().flat_map(|it| &it.values.stop);
        self.facts.extra_stop.iter().chain(of_variant)
    }

    /// A longer prompt does not fit the context, however few tokens it has.
    pub fn longest_prompt_bytes(&self) -> usize {
        longest_text_bytes(self.facts.context_tokens())
    }

    /// What its prompts may begin with that is every key's, as its template writes it.
    pub fn shared_prefixes(&self) -> &[String] {
        match &self.template {
            TemplateState::Usable { shared, .. } => &shared.texts,
            TemplateState::None | TemplateState::Broken { .. } => &[],
        }
    }

    /// Likewise, those that are evaluated before a client asks for them.
    pub fn pinned_prompts(&self) -> &[PinnedPrompt] {
        match &self.template {
            TemplateState::Usable { shared, .. } => &shared.pinned,
            TemplateState::None | TemplateState::Broken { .. } => &[],
        }
    }

    /// How an administrator gives it a chat template.
    pub fn template_advice(&self) -> String {
        match self
            .location
            .as_ref()
            .and_then(|location| location.file.as_ref())
        {
            Some(file) => format!(
                "put one beside its file as `{0}.jinja`, or name a template family in `{0}.toml` \
                 (`template = \"chatml\"`), then reload",
                file.name
            ),
            None => {
                "put `chat_template.jinja` or `tokenizer_config.json` beside its file, or name \
                     a template family in its `model.toml`, then reload"
                    .to_owned()
            }
        }
    }

    /// Whether a worker that has loaded this model would serve `new` as well. What only the daemon
    /// uses, such as the template, does not count.
    pub fn is_loaded_like(&self, new: &Self) -> bool {
        let (old, facts) = (&self.facts, &new.facts);
        let file = |facts: &ModelFacts| (facts.size_bytes, facts.created);
        let limits = |facts: &ModelFacts| (facts.context_length, facts.max_new_tokens);
        let placement = |facts: &ModelFacts| {
            (
                facts.kind,
                facts.cpu_mask,
                facts.base_domain_id,
                facts.parallel,
                facts.batch,
            )
        };
        self.path == new.path
            && self.tokenizer_json == new.tokenizer_json
            && file(old) == file(facts)
            && limits(old) == limits(facts)
            && placement(old) == placement(facts)
            && old.sampling == facts.sampling
            && old.extra_stop == facts.extra_stop
            && old.extra_eos_ids == facts.extra_eos_ids
            && old.prints_special_tokens == facts.prints_special_tokens
            && old.adapters == facts.adapters
    }
}

/// A longer text has more than so many tokens, whatever they are.
pub fn longest_text_bytes(tokens: u32) -> usize {
    let tokens = usize::try_from(tokens).unwrap_or(usize::MAX);
    tokens.saturating_mul(MOST_TOKEN_BYTES)
}
