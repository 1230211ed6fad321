//! What the board's kernel tells of itself. A figure that cannot be read is absent. A driver that hangs
//! holds nothing else up.

mod npu_load;
pub mod sensors;
mod soc;
mod sysroot;
mod tuning;

pub use npu_load::NpuLoad;
pub use sensors::{BoardReadings, BoardSample, BoardWatch};
pub use soc::Soc;
pub use sysroot::Sysroot;
pub use tuning::{Change as TuningChange, Tuned, Tuning, TuningError};
