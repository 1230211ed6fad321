//! What of this machine decides which file of a model suits it.

use std::path::Path;

use rkllm_sys::{Architecture, library_version};

use crate::board::{Soc, Sysroot};
use crate::memory::machine;

/// A worker may have so much of the machine's memory unless the settings say otherwise.
const SHARE_PERCENT: u64 = 80;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Board {
    /// `None`: the machine is no board.
    pub soc: Option<Soc>,
    /// Version of the vendor's library. `None`: it is not installed or does not tell.
    pub runtime: Option<String>,
    /// What a model may take, as a worker may. `None`: not known.
    pub memory_bytes: Option<u64>,
}

impl Board {
    /// This machine, with the library at `npu_library`.
    pub fn own(npu_library: &Path) -> Self {
        let memory = machine::machine_bytes();
        Self {
            soc: Soc::of(&Sysroot::own()),
            runtime: library_version(npu_library, Architecture::OWN).ok(),
            memory_bytes: memory.map(|bytes| bytes / 100 * SHARE_PERCENT),
        }
    }

    /// Whether it has an NPU that the vendor's library serves.
    pub fn has_npu(&self) -> bool {
        self.soc.is_some_and(Soc::runs_rkllm)
    }
}
