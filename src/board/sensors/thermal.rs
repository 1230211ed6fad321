//! Thermal zones by their type, because their numbers differ from kernel to kernel, and what is slowed
//! down when they are hot.

use serde::Serialize;
use utoipa::ToSchema;

use crate::board::Sysroot;

pub const FOLDER: &str = "/sys/class/thermal";
pub const ZONES: &str = "thermal_zone";
pub const COOLING_DEVICES: &str = "cooling_device";

/// At or below it the kernel means that it does not know.
const NO_TEMPERATURE: i64 = -273_150;

/// In the types of cooling devices that hold back what models run on.
const SLOWS_MODELS: [&str; 5] = ["cpu", "devfreq", "npu", "idle", "processor"];

/// A thermal zone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct ThermalZone {
    /// Its type, such as `npu-thermal`; where two are of one type the second has a 2 behind it.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its temperature. Null where it cannot be read.
    pub celsius: Option<f64>,
    /// Where the kernel does something about it.
    pub trip_points: Vec<TripPoint>,
}

/// A temperature at which the kernel does something.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct TripPoint {
    /// `active` (a fan), `passive` (it slows the board down), `hot` or `critical` (it turns it off).
    #[serde(rename = "type")]
    pub kind: String,
    /// The temperature.
    pub celsius: f64,
}

impl ThermalZone {
    pub fn read(sysroot: &Sysroot, name: &str) -> Option<Self> {
        let folder = format!("{FOLDER}/{name}");
        let files = sysroot.names(&folder).into_iter();
        let trips = files.filter_map(|file| {
            let trip = file.strip_suffix("_type")?;
            trip.starts_with("trip_point_").then(|| trip.to_owned())
        });
        let trip_point = |trip: String| {
            Some(TripPoint {
                kind: sysroot.text(&format!("{folder}/{trip}_type"))?,
                celsius: celsius(sysroot, &format!("{folder}/{trip}_temp"))?,
            })
        };
        Some(Self {
            kind: sysroot.text(&format!("{folder}/type"))?,
            celsius: celsius(sysroot, &format!("{folder}/temp")),
            trip_points: trips.filter_map(trip_point).collect(),
        })
    }

    /// The last of those where the kernel slows the board down.
    pub fn passive_celsius(&self) -> Option<f64> {
        let trips = self.trip_points.iter();
        let passive = trips.filter(|trip| trip.kind == "passive");
        passive.map(|trip| trip.celsius).max_by(f64::total_cmp)
    }
}

fn celsius(sysroot: &Sysroot, file: &str) -> Option<f64> {
    let thousandths: i64 = sysroot.number(file)?;
    // Exact: a temperature has few digits.
    (thousandths > NO_TEMPERATURE).then(|| thousandths as f64 / 1000.0)
}

/// What the kernel slows down, or turns faster, when it is hot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct CoolingDevice {
    /// Its type, such as `thermal-cpufreq-0` or `pwm-fan`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How far it is at work; 0 is not at all. Null where it cannot be read.
    pub state: Option<u32>,
    /// How far it can be. Null where the kernel does not tell.
    pub most: Option<u32>,
}

impl CoolingDevice {
    pub fn read(sysroot: &Sysroot, name: &str) -> Option<Self> {
        let of = |file: &str| format!("{FOLDER}/{name}/{file}");
        Some(Self {
            kind: sysroot.text(&of("type"))?,
            state: sysroot.number(&of("cur_state")),
            most: sysroot.number(&of("max_state")),
        })
    }

    /// Whether models are slower while it is at work. A fan, a charger or a display slows nothing down, and
    /// models do not run on the GPU; older kernels name it as they do the others, `thermal-devfreq-` and a number.
    pub fn slows_models(&self) -> bool {
        let kind = self.kind.to_ascii_lowercase();
        let is = |part: &&str| kind.contains(part);
        SLOWS_MODELS.iter().any(is) && !kind.contains("gpu")
    }
}
