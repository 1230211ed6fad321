//! Saved prompts: the tokens in the cache and the state behind them, in a file that says which model
//! and which adapter computed it. A file for another model is refused when it is loaded; one that is
//! cut short or changed is, too, because llama.cpp would read from it what it takes for sizes.
//!
//! ```text
//!   magic 16 · model u64 · adapter u64 · tokens u64 · state bytes u64 · tokens i32… · state …
//!   · FNV-1a of all before it u64                                              (little-endian)
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};

use llama_cpp_sys_2 as llama;
use thiserror::Error;

use super::Engine;
use crate::fingerprint::Fingerprint;
use crate::log::{Verbosity, error, info};
use crate::prefix_reuse::common_prefix;
use crate::vocabulary::Token;

const MAGIC: &[u8; 16] = b"rkllm-cpu cache1";
const HEADER: usize = 48;

#[derive(Debug, Error)]
pub(crate) enum CacheError {
    #[error("a prompt cache is loaded already; call rkllm_release_prompt_cache first")]
    Loaded,
    #[error("failed to read the prompt cache {0}: {1}")]
    Unreadable(String, std::io::Error),
    #[error("{0} is not a whole prompt cache of this runtime")]
    Damaged(String),
    // The vendor's words.
    #[error("the prompt dose not match the current model[{0}]")]
    OtherModel(String),
}

/// A loaded prompt, kept until it is released.
pub(super) struct PromptCache {
    adapter: u64,
    tokens: Vec<Token>,
    state: Vec<u8>,
}

impl Engine {
    /// `rkllm_load_prompt_cache`: runs whose tokens begin the same take its cells.
    pub(crate) fn load_prompt_cache(&mut self, path: &str) -> Result<(), CacheError> {
        if self.prompt_cache.is_some() {
            return Err(CacheError::Loaded);
        }
        let bytes =
            std::fs::read(path).map_err(|reason| CacheError::Unreadable(path.into(), reason))?;
        let (model, cache) = parse(&bytes).ok_or_else(|| CacheError::Damaged(path.into()))?;
        if model != self.model.fingerprint {
            return Err(CacheError::OtherModel(self.model.description()));
        }
        info!("loaded a prompt cache of {} tokens", cache.tokens.len());
        self.prompt_cache = Some(cache);
        Ok(())
    }

    /// `rkllm_release_prompt_cache`; cells that were taken from it stay.
    pub(crate) fn release_prompt_cache(&mut self) {
        self.prompt_cache = None;
    }

    /// Takes the loaded prompt's cells if more of `wanted`'s first `most` tokens are in them than
    /// in the cache.
    pub(super) fn restore_prompt_cache(&mut self, slot: usize, wanted: &[Token], most: usize) {
        let Some(cache) = &self.prompt_cache else {
            return;
        };
        let gained = |held: &[Token]| common_prefix(held, wanted).min(most);
        if cache.adapter != self.adapters.active_fingerprint()
            || cache.tokens.len() > self.model.max_context
            || gained(&cache.tokens) <= gained(self.slots[slot].cells.tokens())
        {
            return;
        }
        self.slots[slot].cells.clear();
        // SAFETY: the context is alive and used by this thread only; the state has the length
        // given, was written by the same version for the same model, and is whole.
        let read = unsafe {
            llama::llama_state_seq_set_data(
                self.model.context(),
                cache.state.as_ptr(),
                cache.state.len(),
                slot as llama::llama_seq_id,
            )
        };
        if read == 0 {
            error!("llama.cpp did not take the prompt cache; the prompt is evaluated instead");
            self.slots[slot].cells.clear();
            return;
        }
        self.slots[slot].cells.decoded(&cache.tokens);
        if self.verbosity >= Verbosity::DETAILS {
            info!("took {} tokens from the prompt cache", cache.tokens.len());
        }
    }

    /// Writes what the cache holds; a failure is told and the run goes on.
    pub(crate) fn save_prompt_cache(&self, path: &Path) {
        if let Err(reason) = self.try_save(path) {
            error!(
                "failed to save the prompt cache {}: {reason}",
                path.display()
            );
        }
    }

    fn try_save(&self, path: &Path) -> std::io::Result<()> {
        // A prompt is saved where there is one sequence.
        let tokens = self.slots[0].cells.tokens();
        if tokens.iter().any(|&token| token < 0) {
            return Err(std::io::Error::other("it holds embedding rows, not tokens"));
        }
        let context = self.model.context();
        // SAFETY: the context is alive and used by this thread only; the buffer has the size that
        // llama.cpp asked for.
        let state = unsafe {
            let mut state = vec![0; llama::llama_state_seq_get_size(context, 0)];
            let written =
                llama::llama_state_seq_get_data(context, state.as_mut_ptr(), state.len(), 0);
            state.truncate(written);
            state
        };
        let adapter = self.adapters.active_fingerprint();
        let bytes = file_of(self.model.fingerprint, adapter, tokens, &state);
        // The name belongs to a whole file at every moment.
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".new");
        let unfinished = PathBuf::from(unfinished);
        let mut file = std::fs::File::create(&unfinished)?;
        file.write_all(&bytes)
            .and_then(|()| std::fs::rename(&unfinished, path))
            .inspect_err(|_| drop(std::fs::remove_file(&unfinished)))?;
        info!("saved a prompt cache of {} tokens", tokens.len());
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
fn parse(bytes: &[u8]) -> Option<(u64, PromptCache)> {
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
