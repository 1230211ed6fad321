//! What is told of a model's files, and where.

use std::path::Path;

use crate::ipc::ModelLocation;
use crate::models::ModelProblem;

/// Bytes of a sentence that tells what is wrong, whatever a folder brings into it.
const MOST_TEXT_BYTES: usize = 1024;

/// The file in which an administrator says something about the model at this location.
pub(super) fn manifest_name(location: &ModelLocation) -> String {
    match &location.file {
        Some(file) => format!("{}.toml", file.name),
        None => "model.toml".to_owned(),
    }
}

pub(super) fn problem(path: &Path, text: &str) -> ModelProblem {
    ModelProblem {
        path: path.to_owned(),
        problem: shortened(text),
        serves: false,
    }
}

pub(super) fn shortened(text: &str) -> String {
    if text.len() <= MOST_TEXT_BYTES {
        return text.to_owned();
    }
    let end = (0..=MOST_TEXT_BYTES)
        .rev()
        .find(|&end| text.is_char_boundary(end));
    format!("{}…", &text[..end.unwrap_or(0)])
}
