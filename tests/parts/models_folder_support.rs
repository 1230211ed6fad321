//! A models folder, and models to put into it.

use std::fs;
use std::path::Path;

use rkllmd::models::{Catalog, InstalledModel, SlotLimits};

pub const LIMITS: SlotLimits = SlotLimits {
    parallel: 1,
    pool_contexts: 2,
    memory_bytes: Some(16 << 20),
};

/// A GGUF header with these strings, a vocabulary of three tokens and no tensors.
pub fn gguf(strings: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes
    };
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(0u64.to_le_bytes());
    file.extend((strings.len() as u64 + 4).to_le_bytes());
    for (key, value) in strings {
        file.extend(text(key));
        file.extend(8u32.to_le_bytes());
        file.extend(text(value));
    }
    file.extend(text("llama.context_length"));
    file.extend(4u32.to_le_bytes());
    file.extend(2048u32.to_le_bytes());
    file.extend(text("tokenizer.ggml.bos_token_id"));
    file.extend(4u32.to_le_bytes());
    file.extend(0u32.to_le_bytes());
    file.extend(text("tokenizer.ggml.tokens"));
    file.extend(9u32.to_le_bytes());
    file.extend(8u32.to_le_bytes());
    file.extend(3u64.to_le_bytes());
    for token in ["[BOS]", "word", "[TURN]"] {
        file.extend(text(token));
    }
    file.extend(text("tokenizer.ggml.token_type"));
    file.extend(9u32.to_le_bytes());
    file.extend(5u32.to_le_bytes());
    file.extend(3u64.to_le_bytes());
    for kind in [3i32, 1, 3] {
        file.extend(kind.to_le_bytes());
    }
    file
}

pub fn llama(template: &str) -> Vec<u8> {
    gguf(&[
        ("general.architecture", "llama"),
        ("tokenizer.chat_template", template),
    ])
}

pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn scan(&self) -> Catalog {
        crate::reader_support::scan(self.path()).unwrap()
    }

    /// The catalog's problems as `path: text`, without the folder's own path.
    pub fn problems(&self) -> Vec<String> {
        let root = format!("{}/", self.path().display());
        self.scan()
            .problems()
            .iter()
            .map(|found| format!("{}: {}", found.path.display(), found.problem).replace(&root, ""))
            .collect()
    }
}

pub fn ask(model: &InstalledModel) -> String {
    crate::reader_support::render(model, "hi [TURN]").unwrap()
}
