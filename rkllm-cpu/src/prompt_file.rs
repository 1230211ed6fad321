//! Saved prompts: the tokens in the cache and the state behind them, in a file that says which model
//! and which adapter computed it. A file for another model is refused when it is loaded; one that is
//! cut short or changed is, too, because llama.cpp would read from it what it takes for sizes.
//!
//! ```text
//!   magic 16 · model u64 · adapter u64 · tokens u64 · state bytes u64 · tokens i32… · state …
//!   · FNV-1a of all before it u64                                              (little-endian)
//! ```

use std::io::Write;
use std::path::PathBuf;

use crate::fingerprint::Fingerprint;
use crate::log::{error, info};
use crate::vocabulary::Token;

const MAGIC: &[u8; 16] = b"rkllm-cpu cache1";
const HEADER: usize = 48;

/// A prompt that is read, with the model that computed it.
pub(crate) struct PromptCache {
    pub(crate) adapter: u64,
    pub(crate) tokens: Vec<Token>,
    pub(crate) state: Vec<u8>,
}

/// A prompt on its way to a file. Writing needs no context, so that a shared one computes meanwhile.
pub(crate) struct SavedPrompt {
    pub(crate) path: PathBuf,
    pub(crate) model: u64,
    pub(crate) adapter: u64,
    pub(crate) tokens: Vec<Token>,
    pub(crate) state: Vec<u8>,
}

impl SavedPrompt {
    /// A failure is told and the run goes on.
    pub(crate) fn write(self) {
        if let Err(reason) = self.try_write() {
            error!(
                "failed to save the prompt cache {}: {reason}",
                self.path.display()
            );
        }
    }

    fn try_write(&self) -> std::io::Result<()> {
        if self.tokens.iter().any(|&token| token < 0) {
            return Err(std::io::Error::other("it holds embedding rows, not tokens"));
        }
        let bytes = file_of(self.model, self.adapter, &self.tokens, &self.state);
        // The name belongs to a whole file at every moment.
        let mut unfinished = self.path.as_os_str().to_owned();
        unfinished.push(".new");
        let unfinished = PathBuf::from(unfinished);
        let mut file = std::fs::File::create(&unfinished)?;
        file.write_all(&bytes)
            .and_then(|()| std::fs::rename(&unfinished, &self.path))
            .inspect_err(|_| drop(std::fs::remove_file(&unfinished)))?;
        info!("saved a prompt cache of {} tokens", self.tokens.len());
        Ok(())
    }
}

fn file_of(model: u64, adapter: u64, tokens: &[Token], state: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + tokens.len() * 4 + state.len() + 8);
    bytes.extend_from_slice(MAGIC);
    for number in [model, adapter, tokens.len() as u64, state.len() as u64] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for token in tokens {
        bytes.extend_from_slice(&token.to_le_bytes());
    }
    bytes.extend_from_slice(state);
    let mut checksum = Fingerprint::new();
    checksum.add(&bytes);
    bytes.extend_from_slice(&checksum.value().to_le_bytes());
    bytes
}

/// The model's fingerprint and the prompt; none if the file is not whole.
pub(crate) fn parse(bytes: &[u8]) -> Option<(u64, PromptCache)> {
    let (content, checksum) = bytes.split_last_chunk::<8>()?;
    let mut expected = Fingerprint::new();
    expected.add(content);
    if u64::from_le_bytes(*checksum) != expected.value() {
        return None;
    }
    let (magic, rest) = content.split_first_chunk::<16>()?;
    let (numbers, rest) = rest.split_first_chunk::<32>()?;
    let number = |at: usize| {
        numbers
            .as_chunks()
            .0
            .get(at)
            .map(|n| u64::from_le_bytes(*n))
    };
    let tokens = usize::try_from(number(2)?).ok()?;
    let state = usize::try_from(number(3)?).ok()?;
    let token_bytes = tokens.checked_mul(4)?;
    if magic != MAGIC || rest.len() != token_bytes.checked_add(state)? {
        return None;
    }
    let (tokens, state) = rest.split_at(token_bytes);
    let tokens = tokens.as_chunks().0.iter();
    let cache = PromptCache {
        adapter: number(1)?,
        tokens: tokens.map(|four| Token::from_le_bytes(*four)).collect(),
        state: state.to_vec(),
    };
    Some((number(0)?, cache))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let file = file_of(7, 9, &[1, 2, 3], b"state");
        let Some((model, cache)) = parse(&file) else {
            panic!("a whole file is read");
        };
        assert_eq!((model, cache.adapter), (7, 9));
        assert_eq!(cache.tokens, [1, 2, 3]);
        assert_eq!(cache.state, b"state");
    }

    #[test]
    fn a_file_that_is_cut_or_changed_anywhere_is_refused() {
        let file = file_of(7, 9, &[1, 2, 3], b"state");
        for length in 0..file.len() {
            assert!(parse(&file[..length]).is_none(), "cut to {length}");
        }
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(parse(&changed).is_none(), "changed at {at}");
        }
    }

    #[test]
    fn numbers_that_overflow_are_refused() {
        let mut file = file_of(7, 9, &[], b"");
        file.truncate(HEADER);
        file[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
        let mut checksum = Fingerprint::new();
        checksum.add(&file);
        file.extend_from_slice(&checksum.value().to_le_bytes());
        assert!(parse(&file).is_none());
    }
}
