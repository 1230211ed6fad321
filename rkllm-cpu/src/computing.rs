//! A context of llama.cpp, the threads that compute in it, and the record of what each sequence of
//! its cache holds, always equal to llama.cpp's memory. Who has it decides alone what is evaluated
//! next: the thread of a run that has a context to itself, or the scheduler of one that is shared.

use std::ptr::NonNull;
use std::sync::Arc;

use llama_cpp_sys_2 as llama;

mod adapters;
mod decode_batch;
mod decoding;

pub(crate) use adapters::{AdapterError, NO_ADAPTER};
pub(crate) use decoding::{Evaluation, How, Inputs, OutputKind, Part};

use crate::compute_threads::ComputeThreads;
use crate::log::MutedEngineLog;
use crate::pool::{self, Holding, Need, Standing};
use crate::prefix_reuse::{ContextMemory, KvCells};
use crate::prompt_file::PromptCache;
use crate::rounding::Origins;
use crate::sampler::Sampler;
use crate::vocabulary::Token;
use crate::weights::Weights;
use adapters::Adapters;

/// Tokens evaluated at once in prefill.
pub(crate) const PREFILL_BATCH: usize = 512;

/// One conversation's part of the cache.
pub(crate) struct Sequence {
    pub(crate) cells: KvCells<ContextMemory>,
    /// The adapter that computed them.
    adapter: u64,
    /// A handle has it.
    pub(crate) taken: bool,
    pub(crate) standing: Standing,
    /// Cells that its run may count on, those that it has included.
    pub(crate) promised: usize,
}

/// How many sequences share how many cells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Tokens of one sequence.
    pub(crate) context_length: u32,
    pub(crate) sequences: u32,
    /// Cells for all of them; none: each has the whole length to itself.
    pub(crate) pool_tokens: Option<u32>,
}

/// Fields are freed in this order: the cells look into the context, which uses the threads and the
/// model.
pub(crate) struct Computing {
    pub(crate) sequences: Vec<Sequence>,
    adapters: Adapters,
    context: Context,
    pub(crate) threads: ComputeThreads,
    pub(crate) weights: Arc<Weights>,
    pub(crate) max_context: usize,
    /// Cells for all sequences.
    capacity: usize,
    /// Counts, so that what was used longer ago is known.
    uses: u64,
}

struct Context(NonNull<llama::llama_context>);

// SAFETY: it is not tied to the thread that made it; `Computing` is used by one thread at a time,
// under its lock.
unsafe impl Send for Context {}

impl Computing {
    /// None: there is not enough memory, or the model has no use for cells.
    pub(crate) fn create(
        weights: Arc<Weights>,
        threads: ComputeThreads,
        shape: Shape,
    ) -> Option<Computing> {
        let context = Context::create(&weights, &threads, shape)?;
        if !context.has_cells() {
            return None;
        }
        let can_forget = !weights.has_recurrent_state();
        let sequence = |number| Sequence {
            // SAFETY: the cells are dropped before the context.
            cells: KvCells::new(unsafe { ContextMemory::of(context.raw(), number, can_forget) }),
            adapter: NO_ADAPTER,
            taken: false,
            standing: Standing::Idle { since: 0 },
            promised: 0,
        };
        Some(Computing {
            sequences: (0..shape.sequences as usize).map(sequence).collect(),
            adapters: Adapters::default(),
            context,
            threads,
            weights,
            max_context: shape.context_length as usize,
            capacity: shape.cells()? as usize,
            uses: 0,
        })
    }

    fn raw(&self) -> *mut llama::llama_context {
        self.context.raw()
    }

    pub(crate) fn cells(&mut self, sequence: usize) -> &mut KvCells<ContextMemory> {
        &mut self.sequences[sequence].cells
    }

    pub(crate) fn held(&self, sequence: usize) -> usize {
        self.sequences[sequence].cells.len()
    }

    pub(crate) fn origins(&self, sequence: usize) -> Origins {
        self.sequences[sequence].cells.origins()
    }

    /// A sequence that no handle has; none if all are taken.
    pub(crate) fn take_sequence(&mut self) -> Option<usize> {
        let free = self.sequences.iter().position(|sequence| !sequence.taken)?;
        self.sequences[free].taken = true;
        Some(free)
    }

    /// The handle is gone.
    pub(crate) fn give_up(&mut self, sequence: usize) {
        self.empty(sequence);
        self.sequences[sequence].cells.publish_in(Arc::default());
        self.sequences[sequence].taken = false;
    }

    /// No run uses the cells any more; they stay for a prompt that begins the same.
    pub(crate) fn leave(&mut self, sequence: usize) {
        self.uses += 1;
        let since = self.uses;
        self.sequences[sequence].standing = Standing::Idle { since };
        self.sequences[sequence].promised = 0;
    }

    pub(crate) fn empty(&mut self, sequence: usize) {
        self.cells(sequence).clear();
        self.leave(sequence);
    }

    /// Takes cells from sequences that need them less, so that `sequence` can have `cells` in all.
    /// Returns those that lost theirs; none if there is no room.
    pub(crate) fn make_room(
        &mut self,
        sequence: usize,
        cells: usize,
        need: Need,
    ) -> Option<Vec<usize>> {
        let holdings: Vec<Holding> = self
            .sequences
            .iter()
            .map(|sequence| Holding {
                cells: sequence.cells.len(),
                promised: sequence.promised,
                standing: sequence.standing,
            })
            .collect();
        let losing = pool::make_room(&holdings, self.capacity, sequence, cells, need)?;
        for &loser in &losing {
            self.empty(loser);
        }
        Some(losing)
    }

    /// Readies a sequence's cells for `wanted`, computed with `adapter`: those that begin it stay, at
    /// most `most` of them. Returns how many.
    pub(crate) fn reuse(
        &mut self,
        sequence: usize,
        wanted: &[Token],
        most: usize,
        adapter: u64,
    ) -> usize {
        let held = &mut self.sequences[sequence];
        // Keys and values computed with one adapter are wrong for every other.
        if held.adapter != adapter {
            held.cells.clear();
            held.adapter = adapter;
        }
        let reused = held.cells.reuse_at_most(wanted, most);
        self.leave(sequence);
        reused
    }

    /// `index`: the token of the last decode whose logits are drawn from; -1 is its last. None: the
    /// host's hook has ended the run.
    pub(crate) fn sample(&self, sampler: &mut Sampler, index: i32) -> Option<Token> {
        // SAFETY: called after a decode has completed, in which that token asked for logits.
        unsafe { sampler.sample(self.raw(), index) }
    }

    /// llama.cpp's state of a sequence, from which `restore` makes its cells again.
    pub(crate) fn state_of(&self, sequence: usize) -> Vec<u8> {
        let sequence = sequence as llama::llama_seq_id;
        // SAFETY: the context is alive and used by this thread only; the buffer has the size that
        // llama.cpp asked for.
        unsafe {
            let mut state = vec![0; llama::llama_state_seq_get_size(self.raw(), sequence)];
            let written = llama::llama_state_seq_get_data(
                self.raw(),
                state.as_mut_ptr(),
                state.len(),
                sequence,
            );
            state.truncate(written);
            state
        }
    }

    /// False, and the sequence is empty: llama.cpp did not take it.
    ///
    /// # Safety
    /// The prompt's state is whole and was made by `state_of`, of this version and for the same model,
    /// when the sequence held the prompt's tokens.
    pub(crate) unsafe fn restore(&mut self, sequence: usize, prompt: &PromptCache) -> bool {
        let state = &prompt.state;
        self.cells(sequence).clear();
        // SAFETY: the context is alive and used by this thread only; the rest is the caller's.
        let read = unsafe {
            llama::llama_state_seq_set_data(
                self.raw(),
                state.as_ptr(),
                state.len(),
                sequence as llama::llama_seq_id,
            )
        };
        if read == 0 {
            self.cells(sequence).clear();
            return false;
        }
        self.cells(sequence)
            .restored(&prompt.tokens, prompt.origins);
        self.sequences[sequence].adapter = prompt.adapter;
        true
    }
}

impl Shape {
    /// None: there are more than llama.cpp can count.
    fn cells(&self) -> Option<u32> {
        match self.pool_tokens {
            Some(tokens) => Some(tokens),
            None => self.context_length.checked_mul(self.sequences),
        }
    }
}

impl Context {
    fn create(weights: &Weights, threads: &ComputeThreads, shape: Shape) -> Option<Context> {
        let count = threads.cpus.threads;
        let own =
            Context::with_pooling(weights, shape, count, llama::LLAMA_POOLING_TYPE_UNSPECIFIED)?;
        // SAFETY: the context is alive.
        let pooling = unsafe { llama::llama_pooling_type(own.raw()) };
        let context = if pooling == llama::LLAMA_POOLING_TYPE_NONE {
            own
        } else {
            // A hidden state for each token, whatever the model's file asks an embedder to pool.
            drop(own);
            Context::with_pooling(weights, shape, count, llama::LLAMA_POOLING_TYPE_NONE)?
        };
        // SAFETY: the context is alive, and `Computing` frees the threads after it.
        unsafe { threads.attach_to(context.raw()) };
        Some(context)
    }

    fn with_pooling(
        weights: &Weights,
        shape: Shape,
        threads: i32,
        pooling: llama::llama_pooling_type,
    ) -> Option<Context> {
        let cells = shape.cells()?;
        // A pool may be longer than any sequence in it, of which llama.cpp would warn.
        let scope = MutedEngineLog::scope();
        if shape.pool_tokens.is_some() && cells > weights.trained_context() {
            MutedEngineLog::mute();
        }
        // SAFETY: the parameters are llama.cpp's defaults with a few changed; the model is alive,
        // and `Computing` frees it after the context.
        let raw = unsafe {
            let mut params = llama::llama_context_default_params();
            params.n_ctx = cells;
            params.n_batch = PREFILL_BATCH as u32;
            params.n_ubatch = PREFILL_BATCH as u32;
            params.n_seq_max = shape.sequences;
            params.kv_unified = shape.pool_tokens.is_some();
            params.n_threads = threads;
            params.n_threads_batch = threads;
            params.no_perf = true;
            params.pooling_type = pooling;
            llama::llama_init_from_model(weights.raw(), params)
        };
        drop(scope);
        NonNull::new(raw).map(Context)
    }

    fn raw(&self) -> *mut llama::llama_context {
        self.0.as_ptr()
    }

    /// A model without them reads all of a text at once, also what comes later in it.
    fn has_cells(&self) -> bool {
        // SAFETY: the context is alive.
        unsafe { !llama::llama_get_memory(self.raw()).is_null() }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: owned by this value.
        unsafe { llama::llama_free(self.0.as_ptr()) };
    }
}
