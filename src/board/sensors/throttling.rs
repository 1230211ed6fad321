//! Whether the board is slowed down, and why. Heat is one reason and a setting another: the kernel shows
//! a frequency that was capped in the same place for both.

use std::collections::BTreeSet;
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
    pub(super) fn capped(device: ClockOf) -> Option<Self> {
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

/// What can slow the board down.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Brakes<'a> {
    pub cooling: &'a [CoolingDevice],
    pub clusters: &'a [Clock],
    pub devices: &'a [Clock],
    /// Reasons for which there are others, which did not answer.
    pub unread: &'a [ThrottleReason],
}

/// What one of them told.
enum Told {
    Slows(SlowedDown),
    DoesNot,
    /// It may slow the board down, or not.
    Nothing,
}

impl Brakes<'_> {
    /// What is slowed down; `None`: it is not known, as there is nothing to tell it by, or as what did not
    /// answer may be slowed down.
    pub fn slowed_down(&self) -> Option<Vec<SlowedDown>> {
        let told = self.told();
        let is_all_known = !told.iter().any(|(_, told)| matches!(told, Told::Nothing));
        let can_tell = !told.is_empty() && is_all_known;
        let slowed = told.into_iter().filter_map(|(_, told)| match told {
            Told::Slows(slowed) => Some(slowed),
            Told::DoesNot | Told::Nothing => None,
        });
        let slowed: Vec<_> = slowed.collect();
        (can_tell || !slowed.is_empty()).then_some(slowed)
    }

    /// Each reason of which it is known, and whether it slows anything down.
    pub fn reasons(&self) -> Vec<(ThrottleReason, bool)> {
        let told = self.told();
        let reasons: BTreeSet<_> = told.iter().map(|(reason, _)| *reason).collect();
        let is_slowing = |reason: ThrottleReason| {
            let mut of_reason = told.iter().filter(|(of, _)| *of == reason);
            let is_slowing = of_reason
                .clone()
                .any(|(_, told)| matches!(told, Told::Slows(_)));
            let is_all_known = !of_reason.any(|(_, told)| matches!(told, Told::Nothing));
            (is_slowing || is_all_known).then_some((reason, is_slowing))
        };
        reasons.into_iter().filter_map(is_slowing).collect()
    }

    fn told(&self) -> Vec<(ThrottleReason, Told)> {
        let cooling = self.cooling.iter().filter(|device| device.slows_models());
        let cooling = cooling.map(|device| {
            let reason = ThrottleReason::Cooling;
            let told = match device.state {
                None => Told::Nothing,
                Some(0) => Told::DoesNot,
                Some(state) => Told::Slows(SlowedDown {
                    reason,
                    device: device.kind.clone(),
                    detail: format!("state {state}"),
                }),
            };
            (reason, told)
        });
        let clocks = self.clusters.iter().chain(self.devices);
        let capped =
            clocks.filter_map(|clock| Some((ThrottleReason::capped(clock.device)?, clock)));
        let capped = capped.filter_map(|(reason, clock)| {
            let told = match (clock.max_hertz, clock.highest_hertz) {
                // This kernel has no limits for it.
                (None, None) => return None,
                (Some(allowed), Some(possible)) if allowed < possible => Told::Slows(SlowedDown {
                    reason,
                    device: clock.name.clone(),
                    detail: format!("{} of {} MHz", allowed / 1_000_000, possible / 1_000_000),
                }),
                (Some(_), Some(_)) => Told::DoesNot,
                _ => Told::Nothing,
            };
            Some((reason, told))
        });
        let unread = self.unread.iter().map(|reason| (*reason, Told::Nothing));
        cooling.chain(capped).chain(unread).collect()
    }
}
