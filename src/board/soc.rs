//! Which chip a board has, as its device tree tells (docs/vendor-library.md §5).

use super::Sysroot;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Soc {
    Rk3588,
    Rk3582,
    Rk3576,
    Rk3562,
    Rv1126b,
    /// RK3566 and RK3568, whose NPU the vendor's library does not serve.
    Rk356x,
    /// Another of the vendor's, or of another vendor.
    Unknown,
}

impl Soc {
    /// `None`: the machine has no device tree, so it is no board.
    pub fn of(sysroot: &Sysroot) -> Option<Self> {
        let compatible = sysroot.text("/proc/device-tree/compatible")?;
        let found = compatible.split('\0').find_map(|name| {
            let chip = name.strip_prefix("rockchip,")?;
            Some(match chip {
                "rk3588" | "rk3588s" => Self::Rk3588,
                "rk3582" => Self::Rk3582,
                "rk3576" => Self::Rk3576,
                "rk3562" => Self::Rk3562,
                "rv1126b" => Self::Rv1126b,
                "rk3566" | "rk3568" => Self::Rk356x,
                _ => return None,
            })
        });
        Some(found.unwrap_or(Self::Unknown))
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Rk3588 => "RK3588",
            Self::Rk3582 => "RK3582",
            Self::Rk3576 => "RK3576",
            Self::Rk3562 => "RK3562",
            Self::Rv1126b => "RV1126B",
            Self::Rk356x => "RK356x",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the vendor's library serves its NPU.
    pub fn runs_rkllm(self) -> bool {
        !matches!(self, Self::Rk356x | Self::Unknown)
    }

    /// The NPU's name in the device tree and so in /sys.
    pub fn npu_device(self) -> Option<&'static str> {
        match self {
            Self::Rk3588 | Self::Rk3582 => Some("fdab0000.npu"),
            Self::Rk3576 => Some("27700000.npu"),
            Self::Rk3562 => Some("ff300000.npu"),
            Self::Rv1126b => Some("22000000.npu"),
            Self::Rk356x | Self::Unknown => None,
        }
    }
}
