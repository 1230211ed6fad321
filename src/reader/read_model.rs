//! What the open files of a model say.

use std::collections::HashMap;
use std::path::Path;

use super::adapters::{self, ADAPTERS};
use super::facts::{ModelFacts, ModelKind, ModelReport, Problem};
use super::files::OpenFile;
use super::gguf::{self, GgufFacts};
use super::manifest::{Manifest, Prefixes};
use super::model_source::ModelSource;
use super::open_model::{OpenModel, SPECIAL_TOKENS_MAP, TOKENIZER, TOKENIZER_CONFIG, Unusable};
use super::rkllm_file::RkllmFile;
use super::some_of;
use super::template_source::{Candidates, Opened};
use super::tokenizer_files::{self, TokenizerConfig};
use super::told_replies::ToldReplies;
use crate::prompt::{FillIn, SpecialTokens, TemplateFamily, well_known_control_tokens};

/// What the files say.
pub struct ReadModel {
    pub report: ModelReport,
    /// The template's text, or why it cannot be had; `None`: there is none.
    pub template: Option<Result<String, String>>,
    pub special: SpecialTokens,
    pub control_tokens: Vec<String>,
    /// Those that the tokenizer looks for in normalised text.
    pub normalized_tokens: Vec<String>,
    /// Ids of tokens that are not made of text, and of those that were added.
    pub token_ids: HashMap<String, i32>,
    pub tokenizer: Option<OpenFile>,
    /// The model's file, where it tells of its tokens.
    pub gguf: Option<OpenFile>,
    pub told: ToldReplies,
    /// What all keys may find in its cells.
    pub prefixes: Prefixes,
}

impl ReadModel {
    /// Bytes of the texts of its control tokens.
    pub fn control_token_bytes(&self) -> usize {
        let lists = [&self.control_tokens, &self.normalized_tokens];
        lists.into_iter().flatten().map(String::len).sum()
    }
}

/// What reading found instead of a model.
pub enum Unread {
    Unusable(Unusable),
    /// The manifest names a template file that was not opened.
    NeedsFile(String),
}

impl OpenModel {
    /// Reads all that is known about the model, and what is wrong with parts of it that it can be
    /// used without.
    pub fn read(self) -> Result<ReadModel, Unread> {
        let fail = |text: String| Unread::Unusable(Unusable::of(&self.file_name, text));
        let manifest = match &self.manifest {
            None => Manifest::default(),
            Some(Err(problem)) => return Err(fail(format!("{}: {problem}", self.manifest_name))),
            Some(Ok(file)) => Manifest::read(&self.manifest_name, &file.file).map_err(fail)?,
        };
        if let Some(name) = &manifest.template_file
            && self.template_file.as_ref() != Some(name)
        {
            return Err(match self.template_file {
                None => Unread::NeedsFile(name.clone()),
                Some(_) => fail(format!("{} changed while it was read", self.manifest_name)),
            });
        }
        let gguf = match self.kind {
            ModelKind::Gguf => Some(read_gguf(&self.file).map_err(fail)?),
            ModelKind::Rkllm => None,
        };
        let has_tokenizer = matches!(self.tokenizer, Some(Ok(_)));
        let prints_special_tokens = manifest.skip_special_token == Some(false);
        // Else what ends an answer would be its last word, and a marker nothing but its text.
        if prints_special_tokens && (manifest.eos_ids.is_empty() || !has_tokenizer) {
            let name = &self.manifest_name;
            return Err(fail(format!(
                "{name}: skip-special-token = false needs `eos-ids` and the model's {TOKENIZER}"
            )));
        }
        let facts = ModelFacts {
            aliases: manifest.aliases.clone(),
            kind: self.kind,
            size_bytes: self.size_bytes,
            created: self.file.modified,
            context_length: manifest.context_length,
            context_limit: gguf.as_ref().and_then(|facts| facts.context_length),
            architecture: gguf.as_ref().and_then(|facts| facts.architecture.clone()),
            rkllm: (self.kind == ModelKind::Rkllm)
                .then(|| RkllmFile::read(&self.file.file, self.file.len)),
            source: ModelSource::of(&manifest.source).map_err(fail)?,
            spells_tokens: gguf.as_ref().is_some_and(|facts| facts.spells_tokens),
            shape: gguf.as_ref().map(|facts| facts.shape).unwrap_or_default(),
            sampling: manifest.sampling,
            embeddings: manifest.embeddings.clone().into(),
            judge: manifest.rerank.clone().map(Into::into),
            max_new_tokens: manifest.max_new_tokens,
            thinking_budget_tokens: manifest.thinking_budget_tokens,
            truncate: manifest.truncate,
            parallel: manifest.parallel,
            batch: manifest.batch.filter(|batch| *batch > 1),
            keep_alive: manifest.keep_alive,
            cpu_mask: manifest.cpu_mask,
            base_domain_id: manifest.base_domain_id,
            extra_stop: manifest.stop.clone(),
            extra_eos_ids: manifest.eos_ids.clone(),
            prints_special_tokens,
            // Known with its tokens.
            gap_markers: None,
            template_source: None,
            adapters: adapters::read(
                &manifest.adapters,
                &self.adapters,
                (
                    self.kind,
                    gguf.as_ref()
                        .and_then(|facts| facts.architecture.as_deref()),
                ),
            ),
        };
        let mut report = ModelReport {
            id: manifest.id.clone(),
            file: self.file_name.clone(),
            has_tokenizer,
            facts,
            ..ModelReport::default()
        };
        let rkllm = report.facts.rkllm.as_ref();
        if rkllm.is_some_and(|file| !file.starts_right) {
            report.note("it does not start as .rkllm files usually do");
        }
        if self.parts > 1 {
            report.note(format!("split into {} files", self.parts));
        }
        if !self.inner_folders.is_empty() {
            let names = some_of(&self.inner_folders);
            report.note(format!(
                "folders beside its file are not looked at: {names}"
            ));
        }
        Ok(self.read_template(&manifest, gguf.unwrap_or_default(), report))
    }

    fn read_template(
        self,
        manifest: &Manifest,
        gguf: GgufFacts,
        mut report: ModelReport,
    ) -> ReadModel {
        let adapters = report.facts.adapters.iter();
        let mut problems: Vec<Problem> = adapters
            .filter_map(|adapter| {
                Some(Problem {
                    file: format!("{ADAPTERS}/{}", adapter.file),
                    problem: format!(
                        "the adapter {:?} cannot be used: {}",
                        adapter.name,
                        adapter.problem.as_ref()?
                    ),
                })
            })
            .collect();
        let mut keep = |file: &str, problem: String| {
            problems.push(Problem {
                file: file.to_owned(),
                problem,
            });
        };
        let config = readable(&self.tokenizer_config)
            .and_then(|file| TokenizerConfig::read(&file.file).map_err(Some))
            .map_err(|problem| problem.map(|text| keep(TOKENIZER_CONFIG, text)))
            .ok();
        let tokenizer_tokens = readable(&self.tokenizer)
            .and_then(|file| tokenizer_files::added_tokens(&file.file).map_err(Some))
            .map_err(|problem| problem.map(|text| keep(TOKENIZER, text)))
            .unwrap_or_default();
        let map = readable(&self.special_tokens_map)
            .and_then(|file| TokenizerConfig::read(&file.file).map_err(Some))
            .map_err(|problem| problem.map(|text| keep(SPECIAL_TOKENS_MAP, text)))
            .ok();
        let checkpoint = config.as_ref().map(TokenizerConfig::response_template);
        let checkpoint = checkpoint
            .and_then(|said| {
                said.map_err(|text| {
                    keep(TOKENIZER_CONFIG, format!("its response_template: {text}"))
                })
                .ok()
            })
            .unwrap_or_default();
        if !checkpoint.unread.is_empty() {
            report.note(format!(
                "{TOKENIZER_CONFIG}: what its response_template says of {} is not read, the chat \
                 template tells instead",
                checkpoint.unread.join(" and ")
            ));
        }
        let stem = Path::new(&self.file_name).file_stem();
        let chosen = Candidates {
            manifest,
            files: &self.templates,
            tokenizer_config: config.as_ref(),
            gguf: gguf.chat_template.as_deref(),
            names: [
                stem.and_then(|stem| stem.to_str()).unwrap_or_default(),
                &self.name,
            ],
        }
        .choose();
        let special = special_tokens(
            manifest,
            config.as_ref(),
            &gguf,
            chosen.as_ref().and_then(|(source, _)| source.family()),
        );
        let text = match &chosen {
            Some((_, Ok(text))) => text.as_str(),
            _ => "",
        };
        let told = config.iter().flat_map(TokenizerConfig::added_tokens);
        let mut token_ids: HashMap<String, i32> =
            told.map(|(text, id)| (text.to_owned(), id)).collect();
        let beside = tokenizer_tokens.iter();
        token_ids.extend(beside.filter_map(|token| Some((token.text.clone(), token.id?))));
        // The file that is loaded has the last word.
        token_ids.extend(gguf.listed_tokens);
        let fill_in = FillIn::find(|text| token_ids.contains_key(text));
        report.facts.gap_markers = fill_in.map(|it| it.markers().map(str::to_owned));
        let mut listed = gguf.control_tokens;
        let mut normalized = Vec::new();
        for token in tokenizer_tokens.into_iter().filter(|token| token.special) {
            if token.normalized {
                normalized.push(token.text.clone());
            }
            listed.push(token.text);
        }
        listed.extend(
            config
                .iter()
                .chain(&map)
                .flat_map(|c| c.special_tokens().map(str::to_owned)),
        );
        let list_is_known = !listed.is_empty();
        listed.extend(
            well_known_control_tokens()
                .filter(|token| !list_is_known || text.contains(token))
                .map(str::to_owned),
        );
        listed.extend([special.bos.clone(), special.eos.clone()]);
        report.problems = problems;
        let (source, template) = chosen.unzip();
        report.facts.template_source = source;
        ReadModel {
            prefixes: manifest.prefixes.clone(),
            report,
            template,
            special,
            control_tokens: listed,
            normalized_tokens: normalized,
            token_ids,
            tokenizer: self.tokenizer.and_then(Result::ok),
            gguf: (self.kind == ModelKind::Gguf).then_some(self.file),
            told: ToldReplies {
                manifest: manifest.replies.clone(),
                checkpoint,
            },
        }
    }
}

/// A file that is there and open; `Err(None)`: there is none.
fn readable(opened: &Opened) -> Result<&OpenFile, Option<String>> {
    match opened {
        None => Err(None),
        Some(Ok(file)) => Ok(file),
        Some(Err(problem)) => Err(Some(problem.clone())),
    }
}

/// The manifest's word goes before the files', a family's habit comes last.
fn special_tokens(
    manifest: &Manifest,
    config: Option<&TokenizerConfig>,
    gguf: &GgufFacts,
    family: Option<TemplateFamily>,
) -> SpecialTokens {
    let usual = family
        .map(TemplateFamily::special_tokens)
        .unwrap_or_default();
    let first = |sources: [Option<&str>; 3], last: String| {
        let known = sources.into_iter().flatten().next();
        known.map_or(last, str::to_owned)
    };
    SpecialTokens {
        bos: first(
            [
                manifest.bos_token.as_deref(),
                config.and_then(TokenizerConfig::bos_token),
                gguf.bos_token.as_deref(),
            ],
            usual.bos,
        ),
        eos: first(
            [
                manifest.eos_token.as_deref(),
                config.and_then(TokenizerConfig::eos_token),
                gguf.eos_token.as_deref(),
            ],
            usual.eos,
        ),
    }
}

fn read_gguf(file: &OpenFile) -> Result<GgufFacts, String> {
    let read = gguf::read(&file.file, file.len);
    let facts = read.map_err(|e| format!("its GGUF header is unusable: {e}"))?;
    match (facts.kind.as_deref(), facts.architecture.as_deref()) {
        (Some("adapter"), _) => Err("it is a LoRA adapter, not a model".into()),
        (_, Some("clip")) | (Some("mmproj"), _) => {
            Err("it is a multimodal projector, not a language model".into())
        }
        _ => Ok(facts),
    }
}
