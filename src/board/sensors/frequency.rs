//! Frequencies that the kernel sets, of the CPU's clusters (cpufreq), and of NPU, GPU and memory (devfreq).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::board::Sysroot;

pub const CLUSTERS: &str = "/sys/devices/system/cpu/cpufreq";
pub const CLUSTER: &str = "policy";
pub const DEVICES: &str = "/sys/class/devfreq";

/// What a frequency is of.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum ClockOf {
    #[default]
    Cpu,
    Npu,
    Gpu,
    /// The memory.
    Ddr,
}

impl ClockOf {
    /// By the device's name in the kernel, such as `fdab0000.npu`; `None`: another device.
    pub(in crate::board) fn device(name: &str) -> Option<Self> {
        if name.ends_with(".npu") {
            Some(Self::Npu)
        } else if name.ends_with(".gpu") {
            Some(Self::Gpu)
        } else {
            (name == "dmc").then_some(Self::Ddr)
        }
    }
}

/// A CPU cluster or a device whose frequency the kernel sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Clock {
    /// What it is: `cpu`, `npu`, `gpu` or `ddr`.
    pub device: ClockOf,
    /// Its name in the kernel, such as `policy4` or `fdab0000.npu`.
    pub name: String,
    /// The numbers of a cluster's cores.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u32>,
    /// Who decides on the frequency. Null, here and below, where the kernel does not tell.
    pub governor: Option<String>,
    /// The frequency now.
    pub current_hertz: Option<u64>,
    /// The lowest that is allowed now.
    pub min_hertz: Option<u64>,
    /// The highest that is allowed now; heat and settings lower it.
    pub max_hertz: Option<u64>,
    /// The highest that the hardware has.
    pub highest_hertz: Option<u64>,
}

impl Clock {
    pub fn cluster(sysroot: &Sysroot, name: &str) -> Option<Self> {
        let folder = format!("{CLUSTERS}/{name}");
        if !sysroot.has(&folder) {
            return None;
        }
        let of = |file: &str| format!("{folder}/{file}");
        let hertz = |file: &str| sysroot.number::<u64>(&of(file))?.checked_mul(1000);
        let cpus = sysroot.text(&of("related_cpus")).unwrap_or_default();
        Some(Self {
            device: ClockOf::Cpu,
            name: name.to_owned(),
            cpus: numbers(&cpus).collect(),
            governor: sysroot.text(&of("scaling_governor")),
            current_hertz: hertz("scaling_cur_freq"),
            min_hertz: hertz("scaling_min_freq"),
            max_hertz: hertz("scaling_max_freq"),
            highest_hertz: hertz("cpuinfo_max_freq"),
        })
    }

    pub fn device(sysroot: &Sysroot, name: &str) -> Option<Self> {
        let device = ClockOf::device(name)?;
        let folder = format!("{DEVICES}/{name}");
        if !sysroot.has(&folder) {
            return None;
        }
        let of = |file: &str| format!("{folder}/{file}");
        let hertz = |file: &str| sysroot.number(&of(file));
        let available = sysroot.text(&of("available_frequencies"));
        Some(Self {
            device,
            name: name.to_owned(),
            cpus: Vec::new(),
            governor: sysroot.text(&of("governor")),
            current_hertz: hertz("cur_freq"),
            min_hertz: hertz("min_freq"),
            max_hertz: hertz("max_freq"),
            highest_hertz: available.and_then(|all| numbers(&all).max()),
        })
    }

    /// What it is called where each is to have a name of its own.
    pub fn label(&self) -> &str {
        match self.device {
            ClockOf::Cpu => &self.name,
            ClockOf::Npu => "npu",
            ClockOf::Gpu => "gpu",
            ClockOf::Ddr => "ddr",
        }
    }

    /// The file that the highest frequency that is allowed is written to, and how many hertz its unit has.
    pub fn limit_file(&self) -> (String, u64) {
        match self.device {
            ClockOf::Cpu => (format!("{CLUSTERS}/{}/scaling_max_freq", self.name), 1000),
            _ => (format!("{DEVICES}/{}/max_freq", self.name), 1),
        }
    }

    /// What is allowed of what the hardware has; `None`: not known.
    pub fn limits(&self) -> Option<(u64, u64)> {
        Some((self.max_hertz?, self.highest_hertz?))
    }
}

/// The file that the governor of a cluster or device is written to.
pub(in crate::board) fn governor_file(device: ClockOf, name: &str) -> String {
    match device {
        ClockOf::Cpu => format!("{CLUSTERS}/{name}/scaling_governor"),
        _ => format!("{DEVICES}/{name}/governor"),
    }
}

fn numbers<N: std::str::FromStr>(text: &str) -> impl Iterator<Item = N> {
    text.split_whitespace()
        .filter_map(|number| number.parse().ok())
}
