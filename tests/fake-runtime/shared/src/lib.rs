//! A runtime library that does what a scenario file tells it. It speaks the vendor's real ABI
//! from tables of measured offsets and knows nothing of rkllm-sys, so that a wrong layout on one
//! side cannot be hidden by the same mistake on the other.
//!
//! Each package beside this one is a cdylib of one ABI family made with the macros of `exports`;
//! README.md one folder up tells what a scenario can say.

#[macro_use]
mod exports;
mod answer;
mod batch;
mod calls;
mod console;
mod continuation;
mod fault;
mod fault_check;
mod faults_of_a_run;
mod generation;
mod late_callback;
pub mod layout;
mod load;
mod memory;
mod model;
mod output;
mod params;
mod prompt_cache;
mod runtime;
mod scenario;
mod set_up;
mod token_loop;
mod words;

pub use runtime::{DefaultParam, Runtime};
