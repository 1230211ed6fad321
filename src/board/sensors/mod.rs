//! What a board's sensors tell: pure readers of the kernel's files, and what is made of them. A figure
//! that the kernel does not tell is absent, never 0 and never a guess.
//!
//! A reader may hang with its driver; the sampler is who calls it apart and waits no longer than it must.

pub mod frequency;
mod given_names;
pub mod hwmon;
mod identity;
mod kernel_memory;
mod sampler;
pub mod thermal;
mod throttling;
mod throttling_log;

use serde::Serialize;
use utoipa::ToSchema;

use throttling::Brakes;

pub use frequency::{Clock, ClockOf};
pub use hwmon::{Fan, Power};
pub use identity::{Identity, driver_version};
pub use kernel_memory::{KernelMemory, Pressure};
pub use sampler::{BoardSample, BoardWatch};
pub use thermal::{CoolingDevice, ThermalZone, TripPoint};
pub use throttling::{SlowedDown, ThrottleReason};

/// What all sensors told at one look.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct BoardReadings {
    #[serde(flatten)]
    pub identity: Identity,
    /// Thermal zones; empty where the kernel has none.
    pub thermal_zones: Vec<ThermalZone>,
    /// What the kernel may slow down, or turn faster, when it is hot.
    pub cooling_devices: Vec<CoolingDevice>,
    /// Busy share of each of the NPU's cores in its driver's last second, 0 to 1. Null where the driver does
    /// not tell.
    pub npu_load: Option<Vec<f64>>,
    /// NPU, GPU and memory, where the kernel sets their frequencies.
    pub devices: Vec<Clock>,
    /// The CPU's cores that share a frequency.
    pub cpu_clusters: Vec<Clock>,
    /// The machine's memory.
    pub memory: KernelMemory,
    /// What waits for what; empty where the kernel does not tell (PSI).
    pub pressure: Vec<Pressure>,
    /// Fans that the kernel knows.
    pub fans: Vec<Fan>,
    /// What is measured of the power.
    pub power: Vec<Power>,
    /// What is slowed down now; empty where nothing is, null where the kernel does not tell of everything that
    /// could be.
    pub throttled: Option<Vec<SlowedDown>>,
    /// Reasons of which not everything answered that could slow the board down.
    #[serde(skip)]
    pub unread: Vec<ThrottleReason>,
    /// Files and folders whose reading hangs, so that nothing is known of them.
    pub not_answering: Vec<String>,
}

impl BoardReadings {
    /// The hottest zone, and its temperature.
    pub fn hottest(&self) -> Option<(&str, f64)> {
        let zones = self.thermal_zones.iter();
        zones
            .filter_map(|zone| Some((zone.kind.as_str(), zone.celsius?)))
            .max_by(|(_, a), (_, b)| a.total_cmp(b))
    }

    /// Each reason of which it is known, and whether it slows something down.
    pub fn throttle_reasons(&self) -> Vec<(ThrottleReason, bool)> {
        self.brakes().reasons()
    }

    fn brakes(&self) -> Brakes<'_> {
        Brakes {
            cooling: &self.cooling_devices,
            clusters: &self.cpu_clusters,
            devices: &self.devices,
            unread: &self.unread,
        }
    }
}

#[cfg(test)]
mod tests;
