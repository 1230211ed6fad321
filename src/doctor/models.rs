//! The installed models, against the library and the memory they need.

use std::fs::File;
use std::path::{Path, PathBuf};

use rkllm_sys::{Architecture, library_version};

use super::board::{NO_NPU, numbers};
use super::memory::mib;
use super::{Check, Patient};
use crate::hub::{Board, unsuited_by_name};
use crate::models::Catalog;

/// Models looked for, and folders under another.
const MOST_FILES: usize = 1000;
const DEEPEST: usize = 4;

const LIST: &str = "rkllmd models";

/// Paths of `.rkllm` files in the models' folder, as this machine names them.
fn npu_models(patient: &Patient) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![(patient.sysroot.path(&patient.settings.models.dir), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.flatten().take(MOST_FILES) {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() && depth < DEEPEST {
                folders.push((path, depth + 1));
            } else if kind.is_file() && path.extension().is_some_and(|end| end == "rkllm") {
                found.push(path);
            }
            if found.len() >= MOST_FILES {
                return found;
            }
        }
    }
    found.sort();
    found
}

/// A model as a copy of the board has it.
pub(super) struct ToldModel {
    /// As the board names it.
    pub path: String,
    pub bytes: u64,
    pub toolkit: Option<String>,
    /// Whether the service's user may read it.
    pub is_open: bool,
}

pub(super) fn told_models(patient: &Patient) -> Vec<ToldModel> {
    let root = patient.sysroot.path("/");
    let told = |path: PathBuf| {
        let of_board = Path::new("/").join(path.strip_prefix(&root).ok()?);
        Some(ToldModel {
            path: of_board.to_string_lossy().into_owned(),
            bytes: std::fs::metadata(&path).ok()?.len(),
            toolkit: toolkit_of(&path),
            is_open: super::reading::may_be_read(&patient.sysroot, &path),
        })
    };
    npu_models(patient).into_iter().filter_map(told).collect()
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

pub(super) fn read(patient: &Patient) -> Check {
    if !patient.sysroot.is_own() {
        return Check::skip("a copy does not tell");
    }
    let folder = patient.settings.models.dir.display().to_string();
    let catalog = match Catalog::scan_apart(&patient.settings, None) {
        Ok(catalog) => catalog,
        Err(error) => {
            return Check::fail(format!("{folder}: {error}"))
                .expected("a folder of models")
                .remedy(format!("mkdir -p {folder}"));
        }
    };
    let (models, problems) = (catalog.models().len(), catalog.problems());
    if let Some(first) = problems.first() {
        let (path, problem) = (first.path.display(), &first.problem);
        return Check::warn(format!(
            "{models} models, {} problems, the first: {path}: {problem}",
            problems.len()
        ))
        .expected("models without problems")
        .remedy(LIST);
    }
    if models == 0 {
        return Check::warn(format!("no model in {folder}"))
            .expected("a .rkllm or .gguf file")
            .remedy(format!("cp MODEL.rkllm {folder}/ && rkllmd reload"));
    }
    Check::ok(format!("{models} in {folder}"))
}

/// By their names and their folders', which are hints.
pub(super) fn platform(patient: &Patient) -> Check {
    let Some(soc) = patient.soc() else {
        return Check::skip("no board");
    };
    let models = npu_models(patient);
    let Some(first) = models.first() else {
        return Check::skip("no .rkllm model");
    };
    if patient.npu().is_none() {
        let (model, chip) = (name(first), soc.name());
        return Check::fail(format!("{model} is for an NPU, and {chip} has none for it"))
            .expected(".gguf models, which the CPU runtime runs on any board")
            .remedy("rkllmd rm MODEL; rkllmd pull OWNER/NAME, of a .gguf model");
    }
    let board = Board {
        soc: Some(soc),
        ..Board::default()
    };
    let unsuited = models.iter().find_map(|path| {
        let folder = path.parent().map(name).unwrap_or_default();
        let why = unsuited_by_name(&name(path), &[&folder], &board)?;
        Some((name(path), why))
    });
    match unsuited {
        Some((model, why)) => Check::warn(format!("{model}: by its name it {why}"))
            .expected(format!("models that were made for {}", soc.name()))
            .remedy("rkllmd check MODEL"),
        None => Check::ok(format!("no name speaks against {}", soc.name())),
    }
}

/// The version of the toolkit that made a model, where its file tells.
fn toolkit_of(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    crate::reader::toolkit_of(&file, length)
}

pub(super) fn toolkit(patient: &Patient) -> Check {
    if patient.npu().is_none() {
        return Check::skip(NO_NPU);
    }
    let library = patient.sysroot.path(&patient.settings.runtime.npu_library);
    let architecture = if patient.sysroot.is_own() {
        Architecture::OWN
    } else {
        Architecture::Aarch64
    };
    let Ok(runtime) = library_version(&library, architecture) else {
        return Check::skip("there is no library to compare with");
    };
    let told: Vec<_> = npu_models(patient)
        .into_iter()
        .filter_map(|path| Some((name(&path), toolkit_of(&path)?)))
        .collect();
    if told.is_empty() {
        return Check::skip("no model's file tells which toolkit made it");
    }
    let newer = |(_, toolkit): &&(String, String)| numbers(toolkit) > numbers(&runtime);
    if let Some((model, toolkit)) = told.iter().find(newer) {
        return Check::fail(format!(
            "{model} was made by toolkit {toolkit}, the library is {runtime}"
        ))
        .expected("a library at least as new as a model's toolkit")
        .remedy(format!("install librkllmrt.so {toolkit} or newer"));
    }
    Check::ok(format!(
        "{} models, none newer than the library {runtime}",
        told.len()
    ))
}

pub(super) fn memory(patient: &Patient) -> Check {
    let Some(total) = patient.sysroot.memory_bytes("MemTotal") else {
        return Check::skip("the kernel does not tell");
    };
    let sized = npu_models(patient).into_iter().filter_map(|path| {
        let bytes = std::fs::metadata(&path).ok()?.len();
        Some((bytes, name(&path)))
    });
    let Some((bytes, model)) = sized.max() else {
        return Check::skip("no .rkllm model");
    };
    // A model needs about its file's size in the NPU's memory, which is the machine's.
    let observed = format!("{model} has {}, the machine {}", mib(bytes), mib(total));
    if bytes > total {
        return Check::fail(observed)
            .expected("a model that is smaller than the memory")
            .remedy("install a smaller model, or one of fewer bits");
    }
    if bytes > total / 10 * 8 {
        return Check::warn(observed)
            .expected("a model of at most four fifths of the memory")
            .remedy("install a smaller model, or one of fewer bits");
    }
    Check::ok(observed)
}
