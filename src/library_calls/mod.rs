//! The vocabulary of the vendor's whole API: parameters, inputs, calls, results and errors, under
//! the names of `rkllm.h`. A leaf like `generation`: everything may use it and it uses nothing but that one.
//!
//! The same types travel to a worker (postcard) and to a client (JSON), so nothing here is untagged
//! or flattened, and a path is always a name inside the daemon's own folder.

mod call;
mod error;
mod header_enum;
mod infer_param;
mod input;
mod param;
mod result;
mod shape;
mod tensor_values;

pub use call::{Call, CrossAttnParam, LoraAdapter, Outcome};
pub use error::{CallFailure, LibraryError};
pub use infer_param::{
    InferMode, InferParam, LoraParam, PromptCacheParam, RowSelection, RunRequest, SamplingParam,
};
pub use input::{
    AudioInput, EmbedInput, ImageInput, Input, InputPayload, InputType, MultimodalInput,
    TokenInput, VideoInput, weight_bytes,
};
pub use param::{DefaultParam, ExtendParam, Param};
pub use result::{
    CallState, CallbackResult, CallbackThread, PerfStat, PooledRows, Pooling, Running,
    RunningAnswer, SlotResult, Tensor, WantedRow,
};
pub use shape::ModelShape;
pub use tensor_values::{Counted, MemoryFile, TensorValues};
