//! Counts and makes prompt tokens with a model's tokenizer.json. It lives here and not in the daemon because
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

    /// Tokens of `text` exactly as it is rendered, special tokens parsed and none added: the
    /// rendered text holds the ones that its template wants.
    pub fn count(&self, text: &str) -> anyhow::Result<u32> {
        Ok(u32::try_from(self.encode(text)?.len())?)
    }

    /// The tokens that [`count`](Self::count) counts.
    pub fn ids(&self, text: &str) -> anyhow::Result<Vec<i32>> {
        let encoding = self.encode(text)?;
        let ids = encoding.get_ids().iter().map(|&id| i32::try_from(id));
        Ok(ids.collect::<Result<_, _>>()?)
    }

    fn encode(&self, text: &str) -> anyhow::Result<tokenizers::Encoding> {
        self.inner
            .encode_fast(text, false)
            .map_err(|error| anyhow!("tokenising a prompt: {error}"))
    }
}
