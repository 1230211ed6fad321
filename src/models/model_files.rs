//! Model files as they lie in a folder: by extension, hidden ones left out, the parts of a split
//! GGUF taken together.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{ModelKind, ModelProblem};

/// A model file, or the parts of a split one (`X-00001-of-00003.gguf` …) as one.
pub(super) struct ModelFile {
    pub name: String,
    pub kind: ModelKind,
    pub path: PathBuf,
    pub parts: Vec<PathBuf>,
}

impl ModelFile {
    pub fn group(paths: &[PathBuf]) -> Vec<Result<Self, ModelProblem>> {
        paths
            .iter()
            .filter_map(|path| {
                let extension = path.extension()?.to_str()?.to_lowercase();
                let kind = match extension.as_str() {
                    "gguf" => ModelKind::Gguf,
                    "rkllm" => ModelKind::Rkllm,
                    _ => return None,
                };
                let Some(stem) = path.file_stem().and_then(OsStr::to_str) else {
                    return Some(Err(problem(path, "its name is not UTF-8")));
                };
                match SplitName::parse(stem).filter(|_| kind == ModelKind::Gguf) {
                    None => Some(Ok(Self {
                        name: stem.to_owned(),
                        kind,
                        path: path.clone(),
                        parts: Vec::new(),
                    })),
                    Some(split) if split.part == 1 => Some(split.collect(path, kind)),
                    Some(split) => {
                        let first = split.path_of(path, 1);
                        let text = format!("its first part {} is missing", file_name(&first));
                        (!first.exists()).then(|| Err(problem(path, &text)))
                    }
                }
            })
            .collect()
    }
}

/// `<name>-<part>-of-<count>`, numbers of five digits, as llama.cpp splits files.
struct SplitName<'a> {
    name: &'a str,
    part: u32,
    count: u32,
}

impl<'a> SplitName<'a> {
    fn parse(stem: &'a str) -> Option<Self> {
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (name, part) = rest.rsplit_once('-')?;
        let number = |digits: &str| match digits.len() {
            5 => digits.parse::<u32>().ok(),
            _ => None,
        };
        Some(Self {
            name,
            part: number(part)?,
            count: number(count)?,
        })
    }

    fn path_of(&self, path: &Path, part: u32) -> PathBuf {
        let (name, count) = (self.name, self.count);
        path.with_file_name(format!("{name}-{part:05}-of-{count:05}.gguf"))
    }

    fn collect(&self, path: &Path, kind: ModelKind) -> Result<ModelFile, ModelProblem> {
        let parts: Vec<_> = (2..=self.count).map(|n| self.path_of(path, n)).collect();
        if let Some(missing) = parts.iter().find(|part| !part.exists()) {
            let text = format!("its part {} is missing", file_name(missing));
            return Err(problem(path, &text));
        }
        Ok(ModelFile {
            name: self.name.to_owned(),
            kind,
            path: path.to_owned(),
            parts,
        })
    }
}

pub(super) fn visible_paths(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| !file_name(path).starts_with('.'));
    paths.sort();
    Ok(paths)
}

pub(super) fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

pub(super) fn problem(path: &Path, text: &str) -> ModelProblem {
    ModelProblem {
        path: path.to_owned(),
        problem: text.to_owned(),
    }
}

/// Reads a text file of at most `limit` bytes.
pub(super) fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = fs::File::open(path)?
        .take(limit + 1)
        .read_to_string(&mut text)?;
    if read as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    Ok(text)
}
