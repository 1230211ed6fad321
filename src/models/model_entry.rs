//! One entry of the models folder and the reading of everything that belongs to it.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::family::well_known_control_tokens;
use super::gguf::{self, GgufFacts};
use super::manifest::{self, Manifest};
use super::model_files::{ModelFile, file_name, problem, visible_paths};
use super::template_source::Candidates;
use super::tokenizer_files::{self, TokenizerConfig};
use super::{ChatTemplate, ControlTokens, InstalledModel, ModelKind, ModelProblem, SpecialTokens};

/// A model file with the name and the places its folder gives it.
#[derive(Debug)]
pub(super) struct ModelEntry {
    name: String,
    kind: ModelKind,
    file: PathBuf,
    /// Further parts of a split GGUF.
    parts: Vec<PathBuf>,
    manifest: PathBuf,
    /// The model's own folder, if it has one.
    folder: Option<PathBuf>,
}

type Found = (Vec<Result<ModelEntry, ModelProblem>>, Vec<ModelProblem>);

/// The entries of the models folder in the order of their names, and what stands there without
/// belonging to a model.
pub(super) fn entries(dir: &Path) -> io::Result<Found> {
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = visible_paths(dir)?
        .into_iter()
        .partition(|path| path.is_dir());
    let mut found: Vec<_> = ModelFile::group(&files)
        .into_iter()
        .map(|file| {
            file.map(|file| ModelEntry {
                manifest: dir.join(format!("{}.toml", file.name)),
                name: file.name,
                kind: file.kind,
                file: file.path,
                parts: file.parts,
                folder: None,
            })
        })
        .collect();
    let is_orphan = |path: &&PathBuf| {
        path.extension() == Some(OsStr::new("toml"))
            && !found
                .iter()
                .any(|entry| matches!(entry, Ok(entry) if entry.manifest == **path))
    };
    let problems = files
        .iter()
        .filter(is_orphan)
        .map(|path| {
            problem(
                path,
                "no .gguf or .rkllm file of this name stands beside it",
            )
        })
        .collect();
    for folder in folders {
        found.extend(entry_of_folder(&folder).transpose());
    }
    found.sort_by(|a, b| place(a).cmp(place(b)));
    Ok((found, problems))
}

fn place(entry: &Result<ModelEntry, ModelProblem>) -> &Path {
    match entry {
        Ok(entry) => &entry.file,
        Err(problem) => &problem.path,
    }
}

/// A folder without any model file is no entry, unless its model.toml says it should be one.
fn entry_of_folder(folder: &Path) -> Result<Option<ModelEntry>, ModelProblem> {
    let paths =
        visible_paths(folder).map_err(|e| problem(folder, &format!("not readable: {e}")))?;
    let manifest = folder.join("model.toml");
    let mut files = ModelFile::group(&paths)
        .into_iter()
        .filter(|file| !matches!(file, Ok(file) if file.name.starts_with("mmproj")))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(file) = files.pop() else {
        return match manifest.exists() {
            true => Err(problem(
                folder,
                "it has a model.toml and no .gguf or .rkllm file",
            )),
            false => Ok(None),
        };
    };
    if !files.is_empty() {
        files.push(file);
        let names: Vec<_> = files.iter().map(|file| file_name(&file.path)).collect();
        let text = format!(
            "it holds {} model files ({}), a folder is one model",
            names.len(),
            names.join(", ")
        );
        return Err(problem(folder, &text));
    }
    Ok(Some(ModelEntry {
        name: file_name(folder),
        kind: file.kind,
        file: file.path,
        parts: file.parts,
        manifest,
        folder: Some(folder.to_owned()),
    }))
}

impl ModelEntry {
    /// Reads all that is known about the model, and what is wrong with parts of it that it can be
    /// used without.
    pub fn read(self) -> Result<(InstalledModel, Vec<ModelProblem>), ModelProblem> {
        let fail = |text: String| problem(&self.file, &text);
        manifest::check_name(&self.name).map_err(fail)?;
        let manifest = match self.manifest.exists() {
            true => Manifest::read(&self.manifest).map_err(fail)?,
            false => Manifest::default(),
        };
        let metadata = fs::metadata(&self.file).map_err(|e| fail(format!("not readable: {e}")))?;
        let size_bytes = self.parts.iter().try_fold(metadata.len(), |sum, part| {
            fs::metadata(part)
                .map(|metadata| sum + metadata.len())
                .map_err(|e| problem(part, &format!("not readable: {e}")))
        })?;
        let gguf = match self.kind {
            ModelKind::Gguf => Some(read_gguf(&self.file).map_err(fail)?),
            ModelKind::Rkllm => None,
        };
        let mut notes = Vec::new();
        if self.kind == ModelKind::Rkllm && !starts_like_rkllm(&self.file) {
            notes.push("it does not start as .rkllm files usually do".to_owned());
        }
        if !self.parts.is_empty() {
            notes.push(format!("split into {} files", self.parts.len() + 1));
        }
        let mut model = InstalledModel {
            id: manifest.id.as_deref().unwrap_or(&self.name).into(),
            aliases: manifest.aliases.clone(),
            path: self.file.clone(),
            kind: self.kind,
            size_bytes,
            created: metadata
                .modified()
                .ok()
                .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
                .map_or(0, |age| age.as_secs()),
            context_length: manifest.context_length,
            context_limit: gguf.as_ref().and_then(|facts| facts.context_length),
            sampling: manifest.sampling.into(),
            embeddings: manifest.embeddings.clone().into(),
            max_new_tokens: manifest.max_new_tokens,
            tokenizer_json: self.companion("tokenizer.json"),
            cpu_mask: manifest.cpu_mask,
            base_domain_id: manifest.base_domain_id,
            extra_stop: manifest.stop.clone(),
            extra_eos_ids: manifest.eos_ids.clone(),
            notes,
            ..InstalledModel::default()
        };
        let problems = self.read_template(&manifest, gguf.unwrap_or_default(), &mut model);
        Ok((model, problems))
    }

    fn companion(&self, name: &str) -> Option<PathBuf> {
        let path = self.folder.as_ref()?.join(name);
        path.exists().then_some(path)
    }

    fn read_template(
        &self,
        manifest: &Manifest,
        gguf: GgufFacts,
        model: &mut InstalledModel,
    ) -> Vec<ModelProblem> {
        let mut problems = Vec::new();
        let mut keep = |path: &Path, text: String| problems.push(problem(path, &text));
        let config = self.companion("tokenizer_config.json").and_then(|path| {
            TokenizerConfig::read(&path)
                .map_err(|e| keep(&path, e))
                .ok()
        });
        let tokenizer_tokens = self
            .companion("tokenizer.json")
            .and_then(|path| {
                tokenizer_files::special_tokens(&path)
                    .map_err(|e| keep(&path, e))
                    .ok()
            })
            .unwrap_or_default();
        let stem = self.file.file_stem().and_then(OsStr::to_str);
        let chosen = Candidates {
            manifest,
            manifest_dir: self.manifest.parent().unwrap_or(Path::new("")),
            companions: self.folder.as_deref(),
            tokenizer_config: config.as_ref(),
            gguf: gguf.chat_template.as_deref(),
            names: [stem.unwrap_or_default(), &self.name],
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
        let mut listed = gguf.control_tokens;
        listed.extend(tokenizer_tokens);
        listed.extend(
            config
                .iter()
                .flat_map(|c| c.special_tokens().map(str::to_owned)),
        );
        let list_is_known = !listed.is_empty();
        listed.extend(
            well_known_control_tokens()
                .filter(|token| !list_is_known || text.contains(token))
                .map(str::to_owned),
        );
        listed.extend([special.bos.clone(), special.eos.clone()]);
        model.control_tokens = Arc::new(ControlTokens::new(listed));
        match chosen {
            None => model.notes.push(
                "no chat template was found; name one in model.toml to serve chat requests".into(),
            ),
            Some((source, text)) => {
                let compiled = text.and_then(|text| {
                    ChatTemplate::compile(&text, special, model.control_tokens.clone())
                        .map_err(|e| e.to_string())
                });
                match compiled {
                    Ok(template) => {
                        model.notes.extend(template.failed_probe().map(|e| {
                            format!(
                                "its chat template from {source} failed on a plain question: {e}"
                            )
                        }));
                        model.template = Some(Arc::new(template));
                    }
                    Err(e) => keep(
                        &self.file,
                        format!("its chat template from {source} cannot be used: {e}"),
                    ),
                }
                model.template_source = Some(source);
            }
        }
        problems
    }
}

/// The manifest's word goes before the files', a family's habit comes last.
fn special_tokens(
    manifest: &Manifest,
    config: Option<&TokenizerConfig>,
    gguf: &GgufFacts,
    family: Option<super::TemplateFamily>,
) -> SpecialTokens {
    let usual = family
        .map(super::TemplateFamily::special_tokens)
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

fn read_gguf(path: &Path) -> Result<GgufFacts, String> {
    let facts = gguf::read(path).map_err(|e| format!("its GGUF header is unusable: {e}"))?;
    match (facts.kind.as_deref(), facts.architecture.as_deref()) {
        (Some("adapter"), _) => Err("it is a LoRA adapter, not a model".into()),
        (_, Some("clip")) | (Some("mmproj"), _) => {
            Err("it is a multimodal projector, not a language model".into())
        }
        _ => Ok(facts),
    }
}

/// A hint only: the vendor's format is not documented and its library has the last word.
fn starts_like_rkllm(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == [0xDA, 0xEE, 0xB3, 0x36]
}
