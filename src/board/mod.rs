//! What the board's kernel tells of itself. A figure that cannot be read is absent, and a driver that
//! hangs holds nobody up.

mod npu_load;

pub use npu_load::NpuLoad;
