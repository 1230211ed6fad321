//! A context of llama.cpp, the threads that compute in it, and the record of what each sequence of
//! its cache holds, always equal to llama.cpp's memory. Who has it decides alone what is evaluated
//! next: the thread of a run that has a context to itself, or the scheduler of one that is shared.

use std::sync::Arc;

use llama_cpp_sys_2 as llama;

mod adapters;
mod context;
mod decode_batch;
mod decoding;
mod gathering;
mod streams;

pub(crate) use adapters::{AdapterError, NO_ADAPTER};
pub(crate) use decoding::{Evaluation, How, Inputs, OutputKind, Part};

use crate::compute_threads::ComputeThreads;
use crate::log::info;
use crate::pool::{self, Holding, Need, Standing};
use crate::prefix_reuse::{ContextMemory, KvCells, Reused};
use crate::prompt_file::PromptCache;
use crate::rounding::Origins;
use crate::sampler::Sampler;
use crate::vocabulary::Token;
use crate::weights::Weights;
use adapters::Adapters;
use context::Context;
use streams::Streams;

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
    /// Of a shared cache. None: its cells lie among each other, or it is not shared.
    streams: Option<Streams>,
    context: Context,
    pub(crate) threads: ComputeThreads,
    pub(crate) weights: Arc<Weights>,
    pub(crate) max_context: usize,
    /// Cells for all sequences.
    capacity: usize,
    /// Counts, so that what was used longer ago is known.
    uses: u64,
}

impl Computing {
    /// None: there is not enough memory, or the model has no use for cells.
    pub(crate) fn create(
        weights: Arc<Weights>,
        threads: ComputeThreads,
        shape: Shape,
    ) -> Option<Computing> {
        let mut capacity = match shape.pool_tokens {
            Some(tokens) => tokens,
            None => shape.context_length.checked_mul(shape.sequences)?,
        } as usize;
        let (context, streams) = match shape.pool_tokens {
            None => (Context::create(&weights, &threads, shape.whole())?, None),
            Some(asked) => Context::with_streams(&weights, &threads, shape).or_else(|| {
                // A sequence among others' cells has as many as all.
                let cells = weights.short_contexts().cells(shape.context_length, asked);
                info!(
                    "the slots' {cells} cells lie among each other: each step looks at all of them"
                );
                capacity = cells as usize;
                Some((
                    Context::create(&weights, &threads, shape.mixed(cells))?,
                    None,
                ))
            })?,
        };
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
            streams,
            context,
            threads,
            weights,
            max_context: shape.context_length as usize,
            capacity,
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
        self.give_back_all(sequence);
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
        let mut holdings = self.holdings();
        // What lies out of order stays.
        let cells = match self.kept(sequence) {
            kept if kept > self.held(sequence) => cells.max(kept),
            _ => cells,
        };
        let losing = pool::make_room(&holdings, self.capacity, sequence, cells, need)?;
        if !losing.is_empty() {
            for &loser in &losing {
                self.empty(loser);
            }
            holdings = self.holdings();
        }
        holdings[sequence].promised = cells;
        self.give_back_surplus(&holdings);
        Some(losing)
    }

    fn holdings(&self) -> Vec<Holding> {
        let each = self.sequences.iter().enumerate();
        each.map(|(at, sequence)| Holding {
            cells: self.kept(at),
            promised: sequence.promised,
            standing: sequence.standing,
        })
        .collect()
    }

    /// Readies a sequence's cells for `wanted`, computed with `adapter`: those of a kind that begin it stay,
    /// at most `most` of them. Returns how many.
    pub(crate) fn reuse(
        &mut self,
        sequence: usize,
        wanted: &[Token],
        (most, kind): (usize, Reused),
        adapter: u64,
    ) -> usize {
        let held = &mut self.sequences[sequence];
        // Keys and values computed with one adapter are wrong for every other.
        if held.adapter != adapter {
            held.cells.clear();
            held.adapter = adapter;
        }
        let reused = held.cells.reuse_at_most(wanted, most, kind);
        self.leave(sequence);
        reused
    }

    /// `index`: the token of the last decode whose logits are drawn from; -1 is its last. None: the
    /// host's hook has ended the run.
    pub(crate) fn sample(&self, sampler: &mut Sampler, index: i32) -> Option<Token> {
        // SAFETY: called after a decode has completed, in which that token asked for logits.
        unsafe { sampler.sample(self.raw(), index) }
    }

    /// The logits of a token of the last decode, in which it asked for them; -1 is its last.
    pub(crate) fn row(&self, index: i32) -> Option<&[f32]> {
        // SAFETY: called after a decode has completed. A row of logits has one for each token, and is
        // valid until the next decode, which `self` has to be borrowed mutably for.
        unsafe {
            let row = llama::llama_get_logits_ith(self.raw(), index);
            let width = self.weights.vocabulary.len() as usize;
            (!row.is_null()).then(|| std::slice::from_raw_parts(row, width))
        }
    }

    /// llama.cpp's state of a sequence, from which `restore` makes its cells again.
    pub(crate) fn state_of(&self, sequence: usize) -> Vec<u8> {
        let sequence = self.number(sequence) as llama::llama_seq_id;
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
        self.cells(sequence).clear();
        self.will_write(sequence, prompt.tokens.len());
        // SAFETY: the caller vouches for the state.
        if !unsafe { self.read_state(sequence, &prompt.state) } {
            self.cells(sequence).clear();
            return false;
        }
        self.cells(sequence)
            .restored(&prompt.tokens, prompt.origins);
        // A window that was shifted is written and read in the order in which its cells lay.
        if prompt.origins.prompted < prompt.tokens.len() {
            self.may_lie_in_any_order(sequence);
        }
        self.sequences[sequence].adapter = prompt.adapter;
        true
    }
}
