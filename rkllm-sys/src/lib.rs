//! The ABI of Rockchip's `librkllmrt.so`, opened safely. The vendor changes struct layouts
//! between releases without changing a symbol, so nothing here calls a library before its version
//! has been read from its bytes, its family chosen, and that choice probed; and nothing outside
//! this crate sees which family it is talking to, except through types that say what a family
//! cannot do.
//!
//! Reading order is the order of a library's life: [`abi`] (layouts) → `library_file` (ELF,
//! version) → [`Family`] → `symbols` → `probe` → [`Library`] → [`InitParams`] → [`Handle`] →
//! [`RunOptions`] → [`ResultSink`].
//!
//! ```no_run
//! # use rkllm_sys::*;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! struct Print;
//! impl ResultSink for Print {
//!     fn on_result(&mut self, result: ResultView<'_>) -> Flow {
//!         if let Some(text) = result.text {
//!             print!("{}", String::from_utf8_lossy(text));
//!         }
//!         Flow::Continue
//!     }
//! }
//! let library = std::sync::Arc::new(Library::open("librkllmrt.so", &OpenOptions::default())?);
//! let handle = library.init(&InitParams::new("model.rkllm"))?;
//! let run = RunId::new(1).unwrap();
//! handle.run(&RunInput::Prompt("Hello"), &RunOptions::default(), run, Box::new(Print))?;
//! handle.destroy()?;
//! # Ok(()) }
//! ```

pub mod abi;
mod default_params;
mod error;
mod family;
mod handle;
mod handle_calls;
mod init;
mod input;
mod library;
mod library_file;
mod probe;
mod result;
mod run;
mod run_extension;
mod runs_in_progress;
mod symbols;

pub use default_params::DefaultParams;
pub use error::{CallError, OpenError};
pub use family::Family;
pub use handle::{ControlHandle, Handle};
pub use handle_calls::CrossAttention;
pub use init::{CpuMask, ImageTags, InitParams, Sampling};
pub use input::{Images, Multimodal, RunInput, RunItem, Sounds, Tags, Videos};
pub use library::{Library, OpenOptions};
pub use library_file::{Architecture, library_version};
pub use result::{
    CallState, Flow, LogprobView, LogprobsView, Matrix, PerfStat, ReleaseBuffer, ResultSink,
    ResultView,
};
pub use run::{History, PerRun, PerRunValues, PromptCache, RunExtras, RunId, RunMode, RunOptions};
pub use run_extension::{Draw, Ends, ExtensionVersion, LogitsHook, Logprobs, RunExtension};
pub use runs_in_progress::late_callbacks;
