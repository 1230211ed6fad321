//! Fans and power, on boards that have sensors for them.

use std::collections::BTreeSet;

use serde::Serialize;
use utoipa::ToSchema;

use crate::board::Sysroot;

pub const FOLDER: &str = "/sys/class/hwmon";
pub const DEVICES: &str = "hwmon";

/// A fan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Fan {
    /// The device and its channel, such as `pwmfan 1`.
    pub name: String,
    /// Turns a minute. Null where it has no sensor for it.
    pub rpm: Option<u32>,
    /// How strongly it is driven, 0 to 1. Null where the kernel does not tell.
    pub drive_ratio: Option<f64>,
}

/// A sensor of power.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Power {
    /// The device and its channel, such as `ina226 1`.
    pub name: String,
    /// What it measures.
    pub watts: f64,
}

/// What one device of hwmon tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Monitor {
    pub fans: Vec<Fan>,
    pub power: Vec<Power>,
}

impl Monitor {
    pub fn read(sysroot: &Sysroot, name: &str) -> Option<Self> {
        let folder = format!("{FOLDER}/{name}");
        let device = sysroot.text(&format!("{folder}/name"))?;
        let (mut fans, mut power) = (BTreeSet::new(), BTreeSet::new());
        for file in sysroot.names(&folder) {
            let channel = |before: &str, after: &str| -> Option<u32> {
                let number = file.strip_prefix(before)?.strip_suffix(after)?;
                number.parse().ok()
            };
            fans.extend(channel("fan", "_input").or_else(|| channel("pwm", "")));
            power.extend(channel("power", "_input").or_else(|| channel("power", "_average")));
        }
        let of = |file: String| format!("{folder}/{file}");
        let fan = |channel: u32| Fan {
            name: format!("{device} {channel}"),
            rpm: sysroot.number(&of(format!("fan{channel}_input"))),
            drive_ratio: sysroot
                .number::<u8>(&of(format!("pwm{channel}")))
                .map(|drive| f64::from(drive) / 255.0),
        };
        let measured = |channel: u32| {
            let input = sysroot.number::<u32>(&of(format!("power{channel}_input")));
            let average = || sysroot.number::<u32>(&of(format!("power{channel}_average")));
            Some(Power {
                name: format!("{device} {channel}"),
                watts: f64::from(input.or_else(average)?) / 1e6,
            })
        };
        Some(Self {
            fans: fans
                .into_iter()
                .map(fan)
                .filter(|fan| fan.rpm.is_some() || fan.drive_ratio.is_some())
                .collect(),
            power: power.into_iter().filter_map(measured).collect(),
        })
    }
}
