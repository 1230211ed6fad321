//! `rkllm_load_prompt_cache`: a prompt from a file, whose cells runs take that begin the same.

use thiserror::Error;

use super::Engine;
use crate::computing::Computing;
use crate::log::{Verbosity, error, info};
use crate::pool::Need;
use crate::prefix_reuse::common_prefix;
use crate::prompt_file;
use crate::rounding::Origins;
use crate::vocabulary::Token;

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

impl Engine {
    /// `rkllm_load_prompt_cache`: kept until it is released.
    pub(crate) fn load_prompt_cache(&mut self, path: &str) -> Result<(), CacheError> {
        if self.prompt_cache.is_some() {
            return Err(CacheError::Loaded);
        }
        let bytes =
            std::fs::read(path).map_err(|reason| CacheError::Unreadable(path.into(), reason))?;
        let (model, cache) =
            prompt_file::parse(&bytes).ok_or_else(|| CacheError::Damaged(path.into()))?;
        let weights = &self.seat.weights;
        if model != weights.fingerprint_of_cells(self.max_context()) {
            return Err(CacheError::OtherModel(weights.description()));
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
    /// in the cache, and there is room for them.
    pub(super) fn restore_prompt_cache(
        &self,
        computing: &mut Computing,
        sequence: usize,
        wanted: &[Token],
        most: usize,
        adapter: u64,
    ) {
        let Some(cache) = &self.prompt_cache else {
            return;
        };
        let gained = |held: &[Token], origins: Origins| {
            let alike = common_prefix(held, wanted).min(most);
            origins.reusable(alike, wanted.len())
        };
        let cells = computing.cells(sequence);
        let held = gained(cells.tokens(), cells.origins());
        if cache.adapter != adapter
            || cache.tokens.len() > computing.max_context
            || gained(&cache.tokens, cache.origins) <= held
            || computing
                .make_room(sequence, cache.tokens.len(), Need::Prefix)
                .is_none()
        {
            return;
        }
        // SAFETY: the file was whole, and its model is this one.
        let restored = unsafe { computing.restore(sequence, cache) };
        if !restored {
            error!("llama.cpp did not take the prompt cache; the prompt is evaluated instead");
        } else if self.verbosity >= Verbosity::DETAILS {
            info!("took {} tokens from the prompt cache", cache.tokens.len());
        }
    }
}
