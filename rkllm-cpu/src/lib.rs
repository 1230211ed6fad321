//! A runtime with the ABI of `librkllmrt.so` 1.3.1 that runs GGUF models on the CPU, through
//! llama.cpp. It exists so that everything above the ABI can be run, tested and measured on any
//! machine; where the vendor's behaviour is known, this library behaves the same.
//!
//! A call's way: `exports` (C to Rust, nothing unwinds; `marshalling` reads what the host passes) →
//! `engine` (a handle's conversations; `engine::prompt` turns a request into tokens) → `seat` (where
//! it computes) → `generation` or, for `n_batch`, `batch_generation` (the run loops), which have
//! `computing` evaluate → `results` → callback. `run_state` is the only thing of a handle that another
//! thread may touch meanwhile.
//!
//! Handles that share a context (`shared_context`) give their generations to its `scheduler`, whose
//! thread computes for all of them; `pool` decides who has cells, `pace` how much of a prompt is
//! evaluated at once, `rounding` where it may be cut, and what was drawn comes back through a `mailbox`. Each
//! has a stream of the cache to itself, of which `cache_memory` has only what is written be real.
//!
//! Environment: `RKLLM_LOG_LEVEL` as the vendor's; `RKLLM_CPU_SEED` makes draws repeat;
//! `RKLLM_CPU_THREADS` overrides the number of compute threads; `RKLLM_CPU_SLOTS` and
//! `RKLLM_CPU_POOL_TOKENS` have handles share a context; `RKLLM_CPU_VENDOR_ONLY` leaves out what the
//! vendor's library does not have. All are read by `rkllm_init`. Without a seed or a
//! number of threads, fewer compute while other processes have the CPUs (`compute_threads`).

mod abi;
mod batch_generation;
mod cache_memory;
mod chat_template;
mod compute_threads;
mod computing;
mod embedding_rows;
mod enabled_cpus;
mod engine;
mod exports;
mod fingerprint;
mod generation;
mod host_callbacks;
mod host_embeddings;
mod log;
mod logprobs;
mod mailbox;
mod marshalling;
mod model_dtype;
mod model_load;
mod pace;
mod perf;
mod pool;
mod prefix_reuse;
mod prompt_file;
mod results;
mod rope_factors;
mod rounding;
mod run_extension;
mod run_state;
mod sampler;
mod scheduler;
mod seat;
mod shared_context;
mod thread_governor;
mod utf8_assembly;
mod vendor_only;
mod vocabulary;
mod weights;

/// What a host looks for in the file's bytes before it opens the library.
#[used]
static VERSION: &[u8; VERSION_TEXT.len()] = {
    match VERSION_TEXT.as_bytes().first_chunk() {
        Some(text) => text,
        None => unreachable!(),
    }
};

const VERSION_TEXT: &str = concat!(
    "RKLLM SDK (version: 1.3.1 | target: CPU | build: ",
    env!("CARGO_PKG_VERSION"),
    ")\0"
);
