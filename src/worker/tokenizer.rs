//! Counts prompt tokens with a model's tokenizer.json. It lives here and not in the daemon because
//! a large vocabulary takes tens of megabytes.

use std::path::Path;

use anyhow::anyhow;

pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<String>,
}

impl Tokenizer {
    /// `bos` is the text of the token that the runtime puts before a prompt that lacks it.
    pub fn open(path: &Path, bos: Option<String>) -> anyhow::Result<Self> {
        let inner = tokenizers::Tokenizer::from_file(path)
            .map_err(|error| anyhow!("reading {}: {error}", path.display()))?;
        Ok(Self { inner, bos })
    }

    /// Tokens of `prompt` as the runtime will count them, special tokens parsed.
    pub fn count(&self, prompt: &str) -> anyhow::Result<u32> {
        let encoding = self
            .inner
            .encode_fast(prompt, false)
            .map_err(|error| anyhow!("tokenising the prompt: {error}"))?;
        let added = self
            .bos
            .as_ref()
            .is_some_and(|bos| !prompt.starts_with(bos.as_str()));
        Ok(u32::try_from(encoding.len())? + u32::from(added))
    }
}
