//! llama.cpp's context, and how the cache in it is laid out.

use std::ptr::NonNull;

use llama_cpp_sys_2 as llama;

use super::streams::Streams;
use super::{PREFILL_BATCH, Shape};
use crate::cache_memory::CacheMemory;
use crate::compute_threads::ComputeThreads;
use crate::log::MutedEngineLog;
use crate::weights::Weights;

pub(super) struct Context {
    raw: NonNull<llama::llama_context>,
    /// Of streams, until those have it.
    cache: CacheMemory,
}

// SAFETY: it is not tied to the thread that made it; `Computing` is used by one thread at a time,
// under its lock.
unsafe impl Send for Context {}

/// How llama.cpp lays out a cache.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    cells: u32,
    sequences: u32,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A stream with a whole context for each sequence.
    Whole,
    /// As `Whole`, with memory only for what is written.
    Sparse,
    /// Any cell is for any sequence.
    Mixed,
}

impl Shape {
    /// A context with all its memory for each sequence.
    pub(super) fn whole(self) -> Layout {
        Layout {
            cells: self.context_length.saturating_mul(self.sequences),
            sequences: self.sequences,
            kind: Kind::Whole,
        }
    }

    pub(super) fn mixed(self, cells: u32) -> Layout {
        Layout {
            cells,
            sequences: self.sequences,
            kind: Kind::Mixed,
        }
    }
}

impl Context {
    /// None: there is not enough address space, or the model's cells cannot lie in streams of which only a
    /// part has memory.
    pub(super) fn with_streams(
        weights: &Weights,
        threads: &ComputeThreads,
        shape: Shape,
    ) -> Option<(Context, Option<Streams>)> {
        if !weights.has_rows_of_cells() {
            return None;
        }
        let sparse = Layout {
            kind: Kind::Sparse,
            ..shape.whole()
        };
        let mut context = Context::create(weights, threads, sparse)?;
        let memory = std::mem::take(&mut context.cache);
        let cells = shape.context_length as usize;
        let streams = Streams::new(memory, shape.sequences as usize, cells)?;
        Some((context, Some(streams)))
    }

    pub(super) fn create(
        weights: &Weights,
        threads: &ComputeThreads,
        layout: Layout,
    ) -> Option<Context> {
        let count = threads.cpus.threads;
        let own = Context::with_pooling(
            weights,
            layout,
            count,
            llama::LLAMA_POOLING_TYPE_UNSPECIFIED,
        )?;
        // SAFETY: the context is alive.
        let pooling = unsafe { llama::llama_pooling_type(own.raw()) };
        let context = if pooling == llama::LLAMA_POOLING_TYPE_NONE {
            own
        } else {
            // A hidden state for each token, whatever the model's file asks an embedder to pool.
            drop(own);
            Context::with_pooling(weights, layout, count, llama::LLAMA_POOLING_TYPE_NONE)?
        };
        // SAFETY: the context is alive, and `Computing` frees the threads after it.
        unsafe { threads.attach_to(context.raw()) };
        Some(context)
    }

    fn with_pooling(
        weights: &Weights,
        layout: Layout,
        threads: i32,
        pooling: llama::llama_pooling_type,
    ) -> Option<Context> {
        // A mixed cache may be longer than any sequence in it, of which llama.cpp would warn.
        let scope = MutedEngineLog::scope();
        if layout.kind == Kind::Mixed && layout.cells > weights.trained_context() {
            MutedEngineLog::mute();
        }
        // SAFETY: the parameters are llama.cpp's defaults with a few changed; the model is alive,
        // and `Computing` frees it after the context.
        let make = || unsafe {
            let mut params = llama::llama_context_default_params();
            params.n_ctx = layout.cells;
            params.n_batch = PREFILL_BATCH as u32;
            params.n_ubatch = PREFILL_BATCH as u32;
            params.n_seq_max = layout.sequences;
            params.kv_unified = layout.kind == Kind::Mixed;
            params.n_threads = threads;
            params.n_threads_batch = threads;
            params.no_perf = true;
            params.pooling_type = pooling;
            llama::llama_init_from_model(weights.raw(), params)
        };
        let (raw, cache) = match layout.kind {
            Kind::Sparse => CacheMemory::watch(make),
            Kind::Whole | Kind::Mixed => (make(), CacheMemory::default()),
        };
        drop(scope);
        Some(Context {
            raw: NonNull::new(raw)?,
            cache,
        })
    }

    pub(super) fn raw(&self) -> *mut llama::llama_context {
        self.raw.as_ptr()
    }

    /// A model without them reads all of a text at once, also what comes later in it.
    pub(super) fn has_cells(&self) -> bool {
        // SAFETY: the context is alive.
        unsafe { !llama::llama_get_memory(self.raw()).is_null() }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: owned by this value.
        unsafe { llama::llama_free(self.raw.as_ptr()) };
    }
}
