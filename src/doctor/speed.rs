//! What makes a board slower than it is: governors, caps and heat (docs/vendor-library.md §9).

use super::board::NO_NPU;
use super::{Check, Patient};
use crate::board::Sysroot;
use crate::board::sensors::{Clock, CoolingDevice, ThermalZone, frequency, thermal};

/// Governors that do not wait for load before they raise the frequency.
fn is_steady(governor: &str) -> bool {
    matches!(governor, "performance" | "userspace")
}

/// Every one of a kind that can be read.
fn each<T>(
    sysroot: &Sysroot,
    (folder, prefix): (&str, &str),
    read: fn(&Sysroot, &str) -> Option<T>,
) -> Vec<T> {
    let names = sysroot.names(folder).into_iter();
    let of_kind = names.filter(|name| name.starts_with(prefix));
    of_kind.filter_map(|name| read(sysroot, &name)).collect()
}

fn clusters(sysroot: &Sysroot) -> Vec<Clock> {
    let kind = (frequency::CLUSTERS, frequency::CLUSTER);
    each(sysroot, kind, Clock::cluster)
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
    if known.iter().all(|(_, governor)| is_steady(governor)) {
        return Check::ok(told.join(", "));
    }
    Check::warn(told.join(", "))
        .expected(format!(
            "performance, or userspace at the highest frequency{why}"
        ))
        .remedy("rkllmd tune")
}

pub(super) fn cpu_governor(patient: &Patient) -> Check {
    if patient.soc().is_none() {
        return Check::skip("no board");
    }
    governors(&clusters(&patient.sysroot), "")
}

pub(super) fn cpu_frequency(patient: &Patient) -> Check {
    frequencies(&clusters(&patient.sysroot))
}

fn frequencies(clocks: &[Clock]) -> Check {
    let (mut told, mut capped) = (Vec::new(), Vec::new());
    for clock in clocks {
        let Some((allowed, possible)) = clock.limits() else {
            continue;
        };
        let mhz = |hertz: u64| hertz / 1_000_000;
        told.push(format!(
            "{} {} of {} MHz",
            clock.name,
            mhz(allowed),
            mhz(possible)
        ));
        if allowed < possible {
            let (file, unit) = clock.limit_file();
            capped.push(format!("echo {} > {file}", possible / unit));
        }
    }
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
    Clock::device(&patient.sysroot, patient.npu()?.npu_device()?)
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
    frequencies(npu_clock(patient).as_slice())
}

pub(super) fn ddr_governor(patient: &Patient) -> Check {
    if patient.npu().is_none() {
        return Check::skip(NO_NPU);
    }
    let Some(clock) = Clock::device(&patient.sysroot, "dmc") else {
        return Check::skip("the kernel does not set the memory's frequency");
    };
    governors(&[clock], ": at a quarter of it a model writes half as fast")
}

/// As near to where the kernel slows the board down as this, in degrees.
const NEAR: f64 = 5.0;

pub(super) fn thermal_headroom(patient: &Patient) -> Check {
    let kind = (thermal::FOLDER, thermal::ZONES);
    let zones = each(&patient.sysroot, kind, ThermalZone::read);
    let zones: Vec<_> = zones
        .iter()
        .filter_map(|zone| Some((zone, zone.celsius?)))
        .collect();
    let hottest = zones.iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
    let Some((hottest, celsius)) = hottest else {
        return Check::skip("the kernel tells no temperature");
    };
    let degrees = |celsius: f64| format!("{} °C", celsius.trunc());
    let observed = format!("{} {}", hottest.kind, degrees(*celsius));
    let near = zones.iter().find_map(|(zone, celsius)| {
        let limit = zone.passive_celsius()?;
        (celsius + NEAR >= limit).then_some((zone, *celsius, limit))
    });
    let Some((zone, celsius, limit)) = near else {
        return Check::ok(observed);
    };
    Check::warn(format!("{} {}", zone.kind, degrees(celsius)))
        .expected(format!(
            "well below {}, where the kernel slows it down",
            degrees(limit)
        ))
        .remedy("add a heat sink or a fan")
}

pub(super) fn thermal_throttling(patient: &Patient) -> Check {
    let kind = (thermal::FOLDER, thermal::COOLING_DEVICES);
    let mut devices = each(&patient.sysroot, kind, CoolingDevice::read);
    devices.retain(CoolingDevice::slows_models);
    if devices.is_empty() {
        return Check::skip("the kernel tells of no cooling device");
    }
    let slowed: Vec<_> = devices
        .iter()
        .filter_map(|device| Some((&device.kind, device.state.filter(|state| *state > 0)?)))
        .map(|(kind, state)| format!("{kind} at {state}"))
        .collect();
    if slowed.is_empty() && devices.iter().any(|device| device.state.is_none()) {
        return Check::skip("a cooling device does not tell its state");
    }
    if slowed.is_empty() {
        return Check::ok("nothing is slowed down for heat");
    }
    Check::warn(slowed.join(", "))
        .expected("nothing slowed down for heat")
        .remedy("add a heat sink or a fan")
}
