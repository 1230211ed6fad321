//! Model files by their names: by extension, and the parts of a split GGUF taken together.

use std::collections::BTreeSet;
use std::path::Path;

use super::facts::ModelKind;

/// A model file, or the parts of a split one (`X-00001-of-00003.gguf` …) as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFile {
    pub name: String,
    pub kind: ModelKind,
    /// The file, of a split one its first part, then its further parts.
    pub files: Vec<String>,
}

/// A file that looks like a model's and cannot be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadName {
    pub file: String,
    pub problem: String,
}

/// The kind that a file's extension tells.
pub fn kind_of(name: &Path) -> Option<ModelKind> {
    match name.extension()?.to_str()?.to_lowercase().as_str() {
        "gguf" => Some(ModelKind::Gguf),
        "rkllm" => Some(ModelKind::Rkllm),
        _ => None,
    }
}

impl ModelFile {
    /// The models among these names of one folder.
    pub fn group(names: &BTreeSet<String>) -> Vec<Result<Self, BadName>> {
        names
            .iter()
            .filter_map(|name| {
                let kind = kind_of(Path::new(name))?;
                let stem = Path::new(name).file_stem()?.to_str()?;
                match SplitName::parse(stem).filter(|_| kind == ModelKind::Gguf) {
                    None => Some(Ok(Self {
                        name: stem.to_owned(),
                        kind,
                        files: vec![name.clone()],
                    })),
                    Some(split) if split.part == 1 => Some(split.collect(name, names)),
                    Some(split) => {
                        let first = split.file(1);
                        (!names.contains(&first)).then(|| {
                            Err(BadName {
                                file: name.clone(),
                                problem: format!("its first part {first} is missing"),
                            })
                        })
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

    fn file(&self, part: u32) -> String {
        let (name, count) = (self.name, self.count);
        format!("{name}-{part:05}-of-{count:05}.gguf")
    }

    fn collect(&self, file: &str, names: &BTreeSet<String>) -> Result<ModelFile, BadName> {
        let mut files = vec![file.to_owned()];
        for part in (2..=self.count).map(|part| self.file(part)) {
            if !names.contains(&part) {
                return Err(BadName {
                    file: file.to_owned(),
                    problem: format!("its part {part} is missing"),
                });
            }
            files.push(part);
        }
        Ok(ModelFile {
            name: self.name.to_owned(),
            kind: ModelKind::Gguf,
            files,
        })
    }
}
