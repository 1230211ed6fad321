//! The library that a worker opens, and what is told of it.

use std::path::Path;
use std::sync::Arc;

use rkllm_sys::{ExtensionVersion, Family, Library, OpenOptions};

use super::library_call;
use crate::generation::RunExtensions;
use crate::ipc::LibraryFacts;

pub fn open(library: &Path, assume_family: Option<&str>) -> anyhow::Result<Arc<Library>> {
    let assume_family = match assume_family {
        None => None,
        Some(name) => Some(Family::from_name(name).ok_or_else(|| {
            anyhow::anyhow!("`{name}` is not an ABI family (setting runtime.assume-family)")
        })?),
    };
    Ok(Arc::new(Library::open(
        library,
        &OpenOptions { assume_family },
    )?))
}

pub fn library_facts(library: &Library) -> LibraryFacts {
    LibraryFacts {
        path: library.path().to_owned(),
        version: library.version().to_owned(),
        family: library.family().to_string(),
        defaults: Box::new(library_call::default_param(&library.default_params())),
    }
}

pub fn run_extensions(library: &Library) -> RunExtensions {
    match library.extension_version() {
        ExtensionVersion::None => RunExtensions::None,
        ExtensionVersion::First => RunExtensions::Draws,
        ExtensionVersion::Second => RunExtensions::Logprobs,
        ExtensionVersion::Third => RunExtensions::Deterministic,
    }
}
