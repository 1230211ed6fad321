//! Whether the board is slowed down, and why. Heat is one reason and a setting another: the kernel shows
//! a frequency that was capped in the same place for both.

use std::fmt;

use serde::Serialize;
use utoipa::ToSchema;

use super::{Clock, ClockOf, CoolingDevice};

/// Why something is slowed down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ThrottleReason {
    /// The kernel cools by slowing down.
    Cooling,
    /// A CPU cluster may not run as fast as it can.
    CpuCapped,
    /// Nor may the NPU.
    NpuCapped,
    /// Nor may the memory.
    DdrCapped,
}

impl ThrottleReason {
    pub fn name(self) -> &'static str {
        match self {
            Self::Cooling => "cooling",
            Self::CpuCapped => "cpu-capped",
            Self::NpuCapped => "npu-capped",
            Self::DdrCapped => "ddr-capped",
        }
    }

    /// Of a frequency that is capped. That the GPU is does not slow models down.
    fn capped(device: ClockOf) -> Option<Self> {
        match device {
            ClockOf::Cpu => Some(Self::CpuCapped),
            ClockOf::Npu => Some(Self::NpuCapped),
            ClockOf::Ddr => Some(Self::DdrCapped),
            ClockOf::Gpu => None,
        }
    }
}

/// Something that is slowed down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SlowedDown {
    /// `cooling`, `cpu-capped`, `npu-capped` or `ddr-capped`.
    pub reason: ThrottleReason,
    /// What it is: the type of a cooling device, or the name of a cluster or device.
    pub device: String,
    /// How far, in words.
    pub detail: String,
}

impl fmt::Display for SlowedDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.device, self.detail)
    }
}

/// What is slowed down; `None`: there is nothing to tell it by.
pub(super) fn slowed_down(
    cooling: &[CoolingDevice],
    clusters: &[Clock],
    devices: &[Clock],
) -> Option<Vec<SlowedDown>> {
    let looked_at = looked_at(cooling, clusters, devices);
    let is_known = !looked_at.is_empty();
    let slowed = looked_at.into_iter().filter_map(|(_, slowed)| slowed);
    is_known.then(|| slowed.collect())
}

/// Each reason that there is something to tell by, and whether it slows anything down.
pub(super) fn reasons(
    cooling: &[CoolingDevice],
    clusters: &[Clock],
    devices: &[Clock],
) -> Vec<(ThrottleReason, bool)> {
    let mut reasons: Vec<(ThrottleReason, bool)> = Vec::new();
    for (reason, slowed) in looked_at(cooling, clusters, devices) {
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, is_slowing)) => *is_slowing |= slowed.is_some(),
            None => reasons.push((reason, slowed.is_some())),
        }
    }
    reasons
}

/// What can slow the board down, and does.
fn looked_at(
    cooling: &[CoolingDevice],
    clusters: &[Clock],
    devices: &[Clock],
) -> Vec<(ThrottleReason, Option<SlowedDown>)> {
    let cooling = cooling.iter().filter(|device| !device.is_fan());
    let cooling = cooling.map(|device| {
        let reason = ThrottleReason::Cooling;
        let slowed = (device.state > 0).then(|| SlowedDown {
            reason,
            device: device.kind.clone(),
            detail: format!("state {}", device.state),
        });
        (reason, slowed)
    });
    let capped = clusters.iter().chain(devices).filter_map(|clock| {
        let reason = ThrottleReason::capped(clock.device)?;
        let (allowed, possible) = clock.limits()?;
        let slowed = (allowed < possible).then(|| SlowedDown {
            reason,
            device: clock.name.clone(),
            detail: format!("{} of {} MHz", allowed / 1_000_000, possible / 1_000_000),
        });
        Some((reason, slowed))
    });
    cooling.chain(capped).collect()
}
