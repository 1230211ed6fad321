//! What makes a board slower than it is: governors, caps and heat (docs/vendor-library.md §9).

use super::board::NO_NPU;
use super::{Check, Patient};
use crate::board::Sysroot;

const POLICIES: &str = "/sys/devices/system/cpu/cpufreq";
const DEVFREQ: &str = "/sys/class/devfreq";
const THERMAL: &str = "/sys/class/thermal";

/// Governors that do not wait for load before they raise the frequency.
fn is_steady(governor: &str) -> bool {
    matches!(governor, "performance" | "userspace")
}

/// A CPU cluster or a device whose frequency the kernel sets.
struct Clock {
    name: String,
    governor_file: String,
    governor: Option<String>,
}

impl Clock {
    fn at(sysroot: &Sysroot, folder: &str, name: &str, file: &str) -> Self {
        let governor_file = format!("{folder}/{name}/{file}");
        Self {
            name: name.to_owned(),
            governor: sysroot.text(&governor_file),
            governor_file,
        }
    }
}

fn clusters(sysroot: &Sysroot) -> Vec<Clock> {
    let names = sysroot.names(POLICIES).into_iter();
    let policies = names.filter(|name| name.starts_with("policy"));
    policies
        .map(|name| Clock::at(sysroot, POLICIES, &name, "scaling_governor"))
        .collect()
}

fn governors(clocks: &[Clock], why: &str) -> Check {
    let known: Vec<_> = clocks
        .iter()
        .filter_map(|clock| Some((clock, clock.governor.as_deref()?)))
        .collect();
    if known.is_empty() {
        return Check::skip("the kernel does not tell");
    }
    let told: Vec<_> = known
        .iter()
        .map(|(clock, governor)| format!("{} {governor}", clock.name))
        .collect();
    let slow: Vec<_> = known
        .iter()
        .filter(|(_, governor)| !is_steady(governor))
        .map(|(clock, _)| clock.governor_file.as_str())
        .collect();
    if slow.is_empty() {
        return Check::ok(told.join(", "));
    }
    Check::warn(told.join(", "))
        .expected(format!(
            "performance, or userspace at the highest frequency{why}"
        ))
        .remedy(format!("echo performance | tee {}", slow.join(" ")))
}

pub(super) fn cpu_governor(patient: &Patient) -> Check {
    if patient.soc.is_none() {
        return Check::skip("no board");
    }
    governors(&clusters(&patient.sysroot), "")
}

pub(super) fn cpu_frequency(patient: &Patient) -> Check {
    let sysroot = &patient.sysroot;
    let (mut told, mut capped) = (Vec::new(), Vec::new());
    for Clock { name, .. } in clusters(sysroot) {
        let of = |file| sysroot.number::<u64>(&format!("{POLICIES}/{name}/{file}"));
        let (Some(allowed), Some(possible)) = (of("scaling_max_freq"), of("cpuinfo_max_freq"))
        else {
            continue;
        };
        told.push(format!(
            "{name} {} of {} MHz",
            allowed / 1000,
            possible / 1000
        ));
        if allowed < possible {
            capped.push(format!(
                "echo {possible} > {POLICIES}/{name}/scaling_max_freq"
            ));
        }
    }
    frequencies(told, &capped)
}

fn frequencies(told: Vec<String>, capped: &[String]) -> Check {
    if told.is_empty() {
        return Check::skip("the kernel does not tell");
    }
    if capped.is_empty() {
        return Check::ok(told.join(", "));
    }
    Check::warn(told.join(", "))
        .expected(
            "the highest frequency allowed; heat lowers it too, and then cooling is the remedy",
        )
        .remedy(capped.join("; "))
}

fn npu_clock(patient: &Patient) -> Option<Clock> {
    let device = patient.npu()?.npu_device()?;
    let sysroot = &patient.sysroot;
    sysroot
        .has(&format!("{DEVFREQ}/{device}"))
        .then(|| Clock::at(sysroot, DEVFREQ, device, "governor"))
}

pub(super) fn npu_governor(patient: &Patient) -> Check {
    if patient.npu().is_none() {
        return Check::skip(NO_NPU);
    }
    governors(npu_clock(patient).as_slice(), "")
}

pub(super) fn npu_frequency(patient: &Patient) -> Check {
    if patient.npu().is_none() {
        return Check::skip(NO_NPU);
    }
    let sysroot = &patient.sysroot;
    let Some(Clock { name, .. }) = npu_clock(patient) else {
        return Check::skip("the kernel does not tell");
    };
    let allowed: Option<u64> = sysroot.number(&format!("{DEVFREQ}/{name}/max_freq"));
    let possible = sysroot
        .text(&format!("{DEVFREQ}/{name}/available_frequencies"))
        .and_then(|all| all.split_whitespace().filter_map(|f| f.parse().ok()).max());
    let (Some(allowed), Some(possible)) = (allowed, possible) else {
        return Check::skip("the kernel does not tell");
    };
    let told = format!(
        "{name} {} of {} MHz",
        allowed / 1_000_000,
        possible / 1_000_000
    );
    let raise = format!("echo {possible} > {DEVFREQ}/{name}/max_freq");
    let capped = if allowed < possible {
        vec![raise]
    } else {
        Vec::new()
    };
    frequencies(vec![told], &capped)
}

pub(super) fn ddr_governor(patient: &Patient) -> Check {
    if patient.npu().is_none() {
        return Check::skip(NO_NPU);
    }
    let sysroot = &patient.sysroot;
    if !sysroot.has(&format!("{DEVFREQ}/dmc")) {
        return Check::skip("the kernel does not set the memory's frequency");
    }
    let clock = Clock::at(sysroot, DEVFREQ, "dmc", "governor");
    governors(&[clock], ": at a quarter of it a model writes half as fast")
}

/// A zone, in thousandths of a degree.
struct Zone {
    name: String,
    now: i64,
    /// Where the kernel begins to slow the board down.
    passive: Option<i64>,
}

fn zones(sysroot: &Sysroot) -> Vec<Zone> {
    let names = sysroot.names(THERMAL).into_iter();
    let folders = names.filter(|name| name.starts_with("thermal_zone"));
    let zone = |folder: String| {
        let of = |file: &str| sysroot.text(&format!("{THERMAL}/{folder}/{file}"));
        let trips = sysroot.names(&format!("{THERMAL}/{folder}")).into_iter();
        let passive = trips
            .filter_map(|file| Some(file.strip_suffix("_type")?.to_owned()))
            .filter(|trip| trip.starts_with("trip_point_"))
            .filter(|trip| of(&format!("{trip}_type")).as_deref() == Some("passive"))
            .filter_map(|trip| of(&format!("{trip}_temp"))?.parse().ok())
            .max();
        Some(Zone {
            name: of("type")?,
            now: of("temp")?.parse().ok()?,
            passive,
        })
    };
    folders.filter_map(zone).collect()
}

/// As near to where the kernel slows the board down as this, in thousandths of a degree.
const NEAR: i64 = 5_000;

pub(super) fn thermal_headroom(patient: &Patient) -> Check {
    let zones = zones(&patient.sysroot);
    let Some(hottest) = zones.iter().max_by_key(|zone| zone.now) else {
        return Check::skip("the kernel tells no temperature");
    };
    let degrees = |thousandths: i64| format!("{} °C", thousandths / 1000);
    let observed = format!("{} {}", hottest.name, degrees(hottest.now));
    let near = |zone: &&Zone| zone.passive.is_some_and(|limit| zone.now + NEAR >= limit);
    let Some(zone) = zones.iter().find(near) else {
        return Check::ok(observed);
    };
    let limit = zone.passive.map_or_else(String::new, degrees);
    Check::warn(format!("{} {}", zone.name, degrees(zone.now)))
        .expected(format!(
            "well below {limit}, where the kernel slows it down"
        ))
        .remedy("add a heat sink or a fan")
}

pub(super) fn thermal_throttling(patient: &Patient) -> Check {
    let sysroot = &patient.sysroot;
    let names = sysroot.names(THERMAL).into_iter();
    let devices: Vec<_> = names
        .filter(|name| name.starts_with("cooling_device"))
        .collect();
    let (mut known, mut slowed) = (0, Vec::new());
    for device in devices {
        let of = |file: &str| sysroot.text(&format!("{THERMAL}/{device}/{file}"));
        let (Some(kind), Some(state)) = (of("type"), of("cur_state")) else {
            continue;
        };
        // A fan that turns slows nothing down.
        if kind.contains("fan") {
            continue;
        }
        known += 1;
        if state.parse().is_ok_and(|state: u32| state > 0) {
            slowed.push(format!("{kind} at {state}"));
        }
    }
    if known == 0 {
        return Check::skip("the kernel tells of no cooling device");
    }
    if slowed.is_empty() {
        return Check::ok("nothing is slowed down for heat");
    }
    Check::warn(slowed.join(", "))
        .expected("nothing slowed down for heat")
        .remedy("add a heat sink or a fan")
}
