//! What the board's sensors told at the last look. What they do not tell has no series.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::PREFIX;
use crate::board::sensors::Clock;
use crate::board::{BoardReadings, BoardSample};

type Gauges<L> = Family<L, Gauge<f64, AtomicU64>>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCore {
    core: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByZone {
    zone: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDevice {
    device: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByGovernor {
    device: String,
    governor: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFan {
    fan: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BySensor {
    sensor: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResource {
    resource: &'static str,
    who: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

pub(super) fn of(sample: &BoardSample) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let readings = &sample.readings;
    npu(&mut registry, readings);
    heat(&mut registry, readings);
    frequencies(&mut registry, readings);
    memory(&mut registry, readings);
    registry.register(
        "board_read_timeouts",
        "Reads of the board's sensors that took too long",
        ConstCounter::new(sample.read_timeouts),
    );
    registry
}

fn npu(registry: &mut Registry, readings: &BoardReadings) {
    let load = Gauges::<ByCore>::default();
    for (core, &share) in readings.npu_load.iter().flatten().enumerate() {
        load.get_or_create(&ByCore { core }).set(share);
    }
    registry.register(
        "npu_load_ratio",
        "Busy share of the NPU core in its driver's last second, 0 to 1",
        load,
    );
}

fn heat(registry: &mut Registry, readings: &BoardReadings) {
    let temperature = Gauges::<ByZone>::default();
    for zone in &readings.thermal_zones {
        if let Some(celsius) = zone.celsius {
            let zone = zone.kind.clone();
            temperature.get_or_create(&ByZone { zone }).set(celsius);
        }
    }
    registry.register_with_unit(
        "board_temperature",
        "Temperature of the thermal zone, by its type",
        Unit::Celsius,
        temperature,
    );
    let fans = Family::<ByFan, Gauge>::default();
    for fan in &readings.fans {
        if let Some(rpm) = fan.rpm {
            let fan = fan.name.clone();
            fans.get_or_create(&ByFan { fan }).set(rpm.into());
        }
    }
    registry.register("board_fan_rpm", "Turns of the fan in a minute", fans);
    let power = Gauges::<BySensor>::default();
    for sensor in &readings.power {
        let watts = sensor.watts;
        let sensor = sensor.name.clone();
        power.get_or_create(&BySensor { sensor }).set(watts);
    }
    registry.register_with_unit(
        "board_power",
        "Power that the sensor measures",
        Unit::Other("watts".to_owned()),
        power,
    );
    let throttled = Family::<ByReason, Gauge>::default();
    for (reason, is_slowing) in readings.throttle_reasons() {
        let reason = reason.name();
        let is_slowing = i64::from(is_slowing);
        throttled
            .get_or_create(&ByReason { reason })
            .set(is_slowing);
    }
    registry.register(
        "board_throttled",
        "1 while the board is slowed down for this reason, else 0",
        throttled,
    );
}

fn frequencies(registry: &mut Registry, readings: &BoardReadings) {
    type Told = fn(&Clock) -> Option<u64>;
    let told: [(&str, &str, Told); 3] = [
        ("board_frequency", "Frequency of the device now", |clock| {
            clock.current_hertz
        }),
        (
            "board_frequency_limit",
            "Highest frequency of the device that is allowed now",
            |clock| clock.max_hertz,
        ),
        (
            "board_frequency_highest",
            "Highest frequency that the device has",
            |clock| clock.highest_hertz,
        ),
    ];
    let clocks = || readings.cpu_clusters.iter().chain(&readings.devices);
    for (name, help, of) in told {
        let family = Family::<ByDevice, Gauge>::default();
        for clock in clocks() {
            if let Some(hertz) = of(clock) {
                let device = clock.label().to_owned();
                let hertz = i64::try_from(hertz).unwrap_or(i64::MAX);
                family.get_or_create(&ByDevice { device }).set(hertz);
            }
        }
        registry.register_with_unit(name, help, Unit::Other("hertz".to_owned()), family);
    }
    let governors = Family::<ByGovernor, Gauge>::default();
    for clock in clocks() {
        if let Some(governor) = clock.governor.clone() {
            let device = clock.label().to_owned();
            governors
                .get_or_create(&ByGovernor { device, governor })
                .set(1);
        }
    }
    registry.register(
        "board_governor",
        "1 for the governor that decides on the device's frequency",
        governors,
    );
}

fn memory(registry: &mut Registry, readings: &BoardReadings) {
    let memory = Family::<ByKind, Gauge>::default();
    for (kind, bytes) in readings.memory.by_kind() {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        memory.get_or_create(&ByKind { kind }).set(bytes);
    }
    registry.register_with_unit(
        "board_memory",
        "The machine's memory: kind total, available, cma-total, cma-free, swap-total or swap-free",
        Unit::Bytes,
        memory,
    );
    let pressure = Gauges::<ByResource>::default();
    for told in &readings.pressure {
        let resource = told.resource;
        for (who, ratio) in [("some", told.some_ratio), ("full", told.full_ratio)] {
            if let Some(ratio) = ratio {
                let labels = ByResource { resource, who };
                pressure.get_or_create(&labels).set(ratio);
            }
        }
    }
    registry.register(
        "board_pressure_ratio",
        "Share of the last 10 seconds in which some task waited for the resource, or all did (full)",
        pressure,
    );
}
