//! Which board this is, and what runs it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::board::{Soc, Sysroot};

/// A board, its kernel and its NPU's driver. What is not known is null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Identity {
    /// The chip.
    #[schema(example = "RK3588")]
    pub soc: Option<String>,
    /// The board's name in its device tree.
    #[serde(rename = "name")]
    pub board: Option<String>,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// Version of the NPU's kernel driver.
    pub npu_driver: Option<String>,
}

impl Identity {
    /// Without the driver's version, which a driver that hangs may keep to itself.
    pub fn read(sysroot: &Sysroot) -> Self {
        let soc = Soc::of(sysroot).filter(|soc| *soc != Soc::Unknown);
        Self {
            soc: soc.map(|soc| soc.name().to_owned()),
            board: sysroot.text("/proc/device-tree/model"),
            kernel: sysroot.text("/proc/sys/kernel/osrelease"),
            npu_driver: None,
        }
    }
}

/// Where its version is, but for kernels that have it in debugfs; what does not answer is named by this.
pub(super) const DRIVER: &str = "/sys/module/rknpu";

/// The version of the NPU's driver, where it tells.
pub fn driver_version(sysroot: &Sysroot) -> Option<String> {
    sysroot.text(&format!("{DRIVER}/version")).or_else(|| {
        let text = sysroot.text("/sys/kernel/debug/rknpu/version")?;
        Some(text.rsplit_once('v')?.1.to_owned())
    })
}
