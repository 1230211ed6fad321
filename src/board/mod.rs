//! What the board's kernel tells of itself. A figure that cannot be read is absent. A driver that hangs
//! holds nothing else up.

mod npu_load;

pub use npu_load::NpuLoad;
