//! Counts prompt tokens with a model's tokenizer.json. It lives here and not in the daemon because
//! a large vocabulary takes tens of megabytes.

use std::path::Path;

use anyhow::anyhow;

pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let inner = tokenizers::Tokenizer::from_file(path)
            .map_err(|error| anyhow!("reading {}: {error}", path.display()))?;
        Ok(Self { inner })
    }

    /// Tokens of `prompt` exactly as it is rendered, special tokens parsed and none added: the
    /// rendered text holds the ones that its template wants.
    pub fn count(&self, prompt: &str) -> anyhow::Result<u32> {
        let encoding = self
            .inner
            .encode_fast(prompt, false)
            .map_err(|error| anyhow!("tokenising the prompt: {error}"))?;
        Ok(u32::try_from(encoding.len())?)
    }
}
