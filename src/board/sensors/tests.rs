//! Readers on copies of boards; `invented-*` are made of documented facts, of no real board.

use std::fs;

use super::hwmon::Monitor;
use super::*;
use crate::board::Sysroot;

struct Copy(tempfile::TempDir);

impl Copy {
    fn new(files: &[(&str, &str)]) -> Self {
        let copy = Self(tempfile::tempdir().unwrap());
        for (path, text) in files {
            copy.write(path, text);
        }
        copy
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.sysroot().path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn sysroot(&self) -> Sysroot {
        Sysroot::new(self.0.path())
    }
}

#[test]
fn a_zone_has_its_type_and_its_trip_points() {
    const ZONE: &str = "/sys/class/thermal/thermal_zone3";
    let of = |file: &str| format!("{ZONE}/{file}");
    let board = Copy::new(&[
        (&of("type"), "npu-thermal\n"),
        (&of("temp"), "43461\n"),
        (&of("trip_point_0_type"), "passive\n"),
        (&of("trip_point_0_temp"), "75000\n"),
        (&of("trip_point_1_type"), "critical\n"),
        (&of("trip_point_1_temp"), "115000\n"),
        (&of("trip_point_2_type"), "active\n"),
        (&of("trip_point_2_temp"), "-274000\n"),
    ]);
    let zone = ThermalZone::read(&board.sysroot(), "thermal_zone3").unwrap();
    assert_eq!(zone.kind, "npu-thermal");
    assert_eq!(zone.celsius, Some(43.461));
    let trip = |kind: &str, celsius| TripPoint {
        kind: kind.to_owned(),
        celsius,
    };
    let trips = [trip("passive", 75.0), trip("critical", 115.0)];
    assert_eq!(zone.trip_points, trips, "the third is not known");
    assert_eq!(zone.passive_celsius(), Some(75.0));
    for wrong in ["", "hot", "-274000"] {
        board.write(&of("temp"), wrong);
        let zone = ThermalZone::read(&board.sysroot(), "thermal_zone3").unwrap();
        assert_eq!(zone.celsius, None, "{wrong}");
    }
    assert_eq!(ThermalZone::read(&board.sysroot(), "thermal_zone4"), None);
}

#[test]
fn clocks_are_told_in_hertz_whatever_the_kernel_counts_in() {
    const POLICY: &str = "/sys/devices/system/cpu/cpufreq/policy4";
    const NPU: &str = "/sys/class/devfreq/27700000.npu";
    let board = Copy::new(&[
        (&format!("{POLICY}/related_cpus"), "4 5 6 7\n"),
        (&format!("{POLICY}/scaling_governor"), "schedutil\n"),
        (&format!("{POLICY}/scaling_cur_freq"), "408000\n"),
        (&format!("{POLICY}/scaling_max_freq"), "1608000\n"),
        (&format!("{POLICY}/cpuinfo_max_freq"), "2304000\n"),
        (&format!("{NPU}/governor"), "userspace\n"),
        (&format!("{NPU}/cur_freq"), "950000000\n"),
        (&format!("{NPU}/min_freq"), "300000000\n"),
        (&format!("{NPU}/max_freq"), "950000000\n"),
        (
            &format!("{NPU}/available_frequencies"),
            "300000000 950000000\n",
        ),
        ("/sys/class/devfreq/2a2d0000.ufs/governor", "x\n"),
    ]);
    let sysroot = board.sysroot();
    let cluster = Clock::cluster(&sysroot, "policy4").unwrap();
    assert_eq!(cluster.cpus, [4, 5, 6, 7]);
    assert_eq!(cluster.current_hertz, Some(408_000_000));
    assert_eq!(cluster.min_hertz, None, "absent");
    assert_eq!(cluster.limits(), Some((1_608_000_000, 2_304_000_000)));
    assert_eq!(cluster.label(), "policy4");
    let npu = Clock::device(&sysroot, "27700000.npu").unwrap();
    assert_eq!(npu.limits(), Some((950_000_000, 950_000_000)));
    assert_eq!(npu.governor.as_deref(), Some("userspace"));
    assert_eq!(npu.label(), "npu");
    let file = frequency::governor_file(npu.device, &npu.name);
    assert_eq!(file, format!("{NPU}/governor"));
    assert_eq!(Clock::device(&sysroot, "2a2d0000.ufs"), None, "another");
    assert_eq!(Clock::device(&sysroot, "dmc"), None, "there is none");

    let (clusters, devices) = ([cluster], [npu]);
    let brakes = Brakes {
        clusters: &clusters,
        devices: &devices,
        ..Brakes::default()
    };
    assert_eq!(
        brakes.reasons(),
        [
            (ThrottleReason::CpuCapped, true),
            (ThrottleReason::NpuCapped, false)
        ]
    );
    let slowed = brakes.slowed_down().unwrap();
    let slowed: Vec<_> = slowed.iter().map(ToString::to_string).collect();
    assert_eq!(slowed, ["policy4 (1608 of 2304 MHz)"]);
}

#[test]
fn a_fan_that_turns_is_no_throttling_and_nothing_known_is_none() {
    let device = |kind: &str, state| CoolingDevice {
        kind: kind.to_owned(),
        state: Some(state),
        most: None,
    };
    fn brakes(cooling: &[CoolingDevice]) -> Brakes<'_> {
        Brakes {
            cooling,
            ..Brakes::default()
        }
    }
    assert_eq!(brakes(&[]).slowed_down(), None);
    for kind in ["pwm-fan", "devfreq-fb000000.gpu", "dell-charger"] {
        let harmless = [device(kind, 3)];
        assert_eq!(brakes(&harmless).slowed_down(), None, "{kind}");
    }
    let idle = [device("pwm-fan", 3), device("thermal-cpufreq-0", 0)];
    assert_eq!(brakes(&idle).slowed_down(), Some(Vec::new()));
    let hot = [
        device("thermal-cpufreq-0", 0),
        device("thermal-devfreq-1", 2),
    ];
    let slowed = brakes(&hot).slowed_down().unwrap();
    assert_eq!(slowed[0].to_string(), "thermal-devfreq-1 (state 2)");
    assert_eq!(slowed.len(), 1);
    let reasons = brakes(&hot).reasons();
    assert_eq!(reasons, [(ThrottleReason::Cooling, true)]);
}

#[test]
fn what_did_not_answer_may_be_slowed_down() {
    let device = |state| CoolingDevice {
        kind: "thermal-cpufreq-0".to_owned(),
        state,
        most: None,
    };
    let clock = |device, max_hertz, highest_hertz| Clock {
        device,
        name: "clock".to_owned(),
        max_hertz,
        highest_hertz,
        ..Clock::default()
    };
    let cooling = [device(Some(0)), device(None)];
    let clusters = [clock(ClockOf::Cpu, None, Some(2))];
    let devices = [
        clock(ClockOf::Npu, Some(1), Some(1)),
        // The kernel sets no limits to it, and to nothing on this board.
        clock(ClockOf::Ddr, None, None),
    ];
    let mut brakes = Brakes {
        cooling: &cooling,
        clusters: &clusters,
        devices: &devices,
        unread: &[],
    };
    assert_eq!(brakes.slowed_down(), None);
    assert_eq!(brakes.reasons(), [(ThrottleReason::NpuCapped, false)]);
    brakes.unread = &[ThrottleReason::NpuCapped];
    assert_eq!(brakes.reasons(), []);
    // What is known is told, whatever else is not.
    let hot = [device(None), device(Some(1))];
    brakes.cooling = &hot;
    assert_eq!(brakes.slowed_down().map(|slowed| slowed.len()), Some(1));
    assert_eq!(brakes.reasons(), [(ThrottleReason::Cooling, true)]);
}

#[test]
fn fans_and_power_are_where_hwmon_has_them() {
    let board = Copy::new(&[
        ("/sys/class/hwmon/hwmon1/name", "pwmfan\n"),
        ("/sys/class/hwmon/hwmon1/pwm1", "51\n"),
        ("/sys/class/hwmon/hwmon1/pwm1_enable", "1\n"),
        ("/sys/class/hwmon/hwmon2/name", "invented\n"),
        ("/sys/class/hwmon/hwmon2/fan2_input", "1200\n"),
        ("/sys/class/hwmon/hwmon2/power1_input", "7500000\n"),
        ("/sys/class/hwmon/hwmon2/power2_average", "250000\n"),
        ("/sys/class/hwmon/hwmon2/power3_input", "\n"),
        ("/sys/class/hwmon/hwmon3/temp1_input", "1\n"),
    ]);
    let sysroot = board.sysroot();
    let fan = Monitor::read(&sysroot, "hwmon1").unwrap().fans;
    assert_eq!(
        fan,
        [Fan {
            name: "pwmfan 1".to_owned(),
            rpm: None,
            drive_ratio: Some(0.2),
        }]
    );
    let other = Monitor::read(&sysroot, "hwmon2").unwrap();
    assert_eq!(other.fans[0].rpm, Some(1200));
    let power: Vec<_> = other.power.iter().map(|p| (&*p.name, p.watts)).collect();
    assert_eq!(power, [("invented 1", 7.5), ("invented 2", 0.25)]);
    assert_eq!(Monitor::read(&sysroot, "hwmon3"), None, "it has no name");
}

#[test]
fn memory_and_pressure_are_what_the_kernel_writes() {
    let board = Copy::new(&[
        (
            "/proc/meminfo",
            "MemTotal:       16155968 kB\nMemAvailable: 8 kB\nCmaFree: ? kB\nSwapTotal: 0 kB\n",
        ),
        (
            "/proc/pressure/memory",
            "some avg10=12.50 avg60=1.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00\n",
        ),
        (
            "/proc/pressure/cpu",
            "some avg10=101.0 avg60=1.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00\n",
        ),
    ]);
    let memory = KernelMemory::read(&board.sysroot());
    assert_eq!(memory.available_bytes, Some(8192));
    assert_eq!(memory.swap_total_bytes, Some(0), "told, and so not absent");
    assert_eq!(
        (memory.cma_free_bytes, memory.swap_free_bytes),
        (None, None)
    );
    let pressure = Pressure::read(&board.sysroot());
    assert_eq!(
        pressure,
        [
            Pressure {
                resource: "cpu",
                some_ratio: None,
                full_ratio: None,
            },
            Pressure {
                resource: "memory",
                some_ratio: Some(0.125),
                full_ratio: Some(0.0),
            }
        ]
    );
}

#[test]
fn a_machine_without_anything_tells_nothing() {
    let board = Copy::new(&[]);
    let sysroot = board.sysroot();
    assert_eq!(Identity::read(&sysroot), Identity::default());
    assert_eq!(KernelMemory::read(&sysroot), KernelMemory::default());
    assert_eq!(Pressure::read(&sysroot), []);
    let nothing = BoardReadings::default();
    assert_eq!(nothing.hottest(), None);
    assert_eq!(nothing.throttle_reasons(), []);
    assert_eq!(nothing.throttled, None);
}
