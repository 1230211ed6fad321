use llama_cpp_sys_2 as llama;

use crate::vocabulary::Token;

/// Samplers of llama.cpp that are applied one after the other.
pub(super) struct Chain(*mut llama::llama_sampler);

// SAFETY: a chain is owned by one `Chain` and has no ties to the thread that made it.
unsafe impl Send for Chain {}

impl Chain {
    pub(super) fn new() -> Chain {
        let params = llama::llama_sampler_chain_params { no_perf: true };
        // SAFETY: it has no preconditions.
        Chain(unsafe { llama::llama_sampler_chain_init(params) })
    }

    /// `make` returns a sampler that has no other owner.
    pub(super) fn add(&mut self, make: impl FnOnce() -> *mut llama::llama_sampler) {
        // SAFETY: the chain is alive, and takes the sampler over.
        unsafe { llama::llama_sampler_chain_add(self.0, make()) };
    }

    pub(super) fn raw(&mut self) -> *mut llama::llama_sampler {
        self.0
    }

    /// A token of the vocabulary that the chain was made for.
    pub(super) fn accept(&mut self, token: Token) {
        // SAFETY: the chain is alive.
        unsafe { llama::llama_sampler_accept(self.0, token) };
    }

    /// Changes, sorts and shortens the candidates, and returns the one that it draws, if it draws.
    pub(super) fn apply(&mut self, candidates: &mut Vec<llama::llama_token_data>) -> Option<Token> {
        let mut array = llama::llama_token_data_array {
            data: candidates.as_mut_ptr(),
            size: candidates.len(),
            selected: -1,
            sorted: false,
        };
        // SAFETY: the chain is alive; samplers change the array in place and never lengthen it.
        unsafe { llama::llama_sampler_apply(self.0, &mut array) };
        candidates.truncate(array.size);
        let drawn = usize::try_from(array.selected).ok()?;
        candidates.get(drawn).map(|candidate| candidate.id)
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // SAFETY: the chain is owned by this value and frees the samplers in it.
        unsafe { llama::llama_sampler_free(self.0) };
    }
}
