//! A runtime with the ABI of `librkllmrt.so` 1.3.1 that runs GGUF models on the CPU, through
//! llama.cpp. It exists so that everything above the ABI can be run, tested and measured on any
//! machine; where the vendor's behaviour is known, this library behaves the same.
//!
//! A call's way: `exports` (C to Rust, nothing unwinds; `marshalling` reads what the host passes) →
//! `engine` (one model, its caches and its conversations; `engine::prompt` turns a request into
//! tokens, `engine::decoding` evaluates them) → `generation` or, for `n_batch`, `batch_generation`
//! (the run loops) → `results` → callback. `run_state` is the only thing that another thread may
//! touch meanwhile.
//!
//! Environment: `RKLLM_LOG_LEVEL` as the vendor's; `RKLLM_CPU_SEED` makes draws repeat;
//! `RKLLM_CPU_THREADS` overrides the number of compute threads. All are read by `rkllm_init`.

mod abi;
mod batch_generation;
mod chat_template;
mod enabled_cpus;
mod engine;
mod exports;
mod fingerprint;
mod generation;
mod host_callbacks;
mod log;
mod marshalling;
mod model_dtype;
mod model_load;
mod perf;
mod prefix_reuse;
mod results;
mod run_state;
mod sampler;
mod utf8_assembly;
mod vocabulary;

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
