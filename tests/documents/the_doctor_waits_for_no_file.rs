//! `rkllmd doctor` on boards of which files and folders hang: what stands on them has no answer, all else is told as
//! before, and in the time that it promises.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::board_support::{Board, GOOD};
use crate::doctor_command::doctor;
use crate::fuse_support::{HungMount, can_be_mounted};

/// What is promised, with the program's start and end.
const PROMISED: Duration = Duration::from_secs(3);
/// A busy machine may take longer to start a program, but not each time.
const TRIES: usize = 3;
/// What stands on the chip alone, of checks that are made of a copy.
const OF_THE_CHIP: [&str; 16] = [
    "soc",
    "driver.loaded",
    "driver.version",
    "node.present",
    "node.access",
    "npu.users",
    "runtime.found",
    "runtime.version",
    "runtime.deps",
    "models.platform",
    "models.toolkit",
    "memory.cma",
    "cpu.governor",
    "npu.governor",
    "npu.frequency",
    "ddr.governor",
];

/// Status and what was observed, by id.
type Found = BTreeMap<String, (String, String)>;

fn examine(board: &Board) -> (Found, Duration) {
    let before = Instant::now();
    let root = board.root().to_str().expect("UTF-8");
    let output = doctor(&["--json", "--sysroot", root]);
    let took = before.elapsed();
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let checks = report["checks"].as_array().expect("checks").iter();
    let found = checks.map(|check| {
        let told = (text(&check["status"]), text(&check["observed"]));
        (text(&check["id"]), told)
    });
    (found.collect(), took)
}

/// All of it is as on the good board, but for what must have no answer.
fn is_told(board: &Board, good: &Found, hanging: &[&str], overdue: &[&str]) {
    let paths = hanging.iter().map(|path| board.path(path));
    let hung: Vec<_> = paths.map(|path| HungMount::over(&path)).collect();
    let mut fastest = Duration::MAX;
    for _ in 0..TRIES {
        let (found, took) = examine(board);
        for (id, (status, observed)) in &found {
            if overdue.contains(&id.as_str()) {
                assert_eq!(status, "warn", "{id} while {hanging:?} hangs");
                assert_eq!(observed, "no answer within 2500 ms", "{id}");
            } else {
                let told = (status, observed);
                let before = (&good[id].0, &good[id].1);
                assert_eq!(told, before, "{id} while {hanging:?} hangs");
            }
        }
        fastest = fastest.min(took);
        if fastest < PROMISED {
            break;
        }
    }
    assert!(fastest < PROMISED, "{hanging:?}: {fastest:?}");
    // What is looked for behind something else that hangs is not reached.
    assert!(hung.iter().any(|hung| hung.held() > 0), "{hanging:?}");
}

#[test]
fn what_hangs_costs_its_own_checks() {
    if !can_be_mounted() {
        return;
    }
    let (good, _) = examine(&Board::of(GOOD));
    let table: &[(&str, &[&str])] = &[
        ("/sys/module/rknpu/version", &["driver.version"]),
        ("/sys/class/devfreq/dmc/governor", &["ddr.governor"]),
        (
            "/sys/class/thermal/thermal_zone6/temp",
            &["thermal.headroom"],
        ),
        (
            "/sys/class/thermal",
            &["thermal.headroom", "thermal.throttling"],
        ),
        (
            "/sys/devices/system/cpu/cpufreq/policy4/scaling_max_freq",
            &["cpu.governor", "cpu.frequency"],
        ),
        (
            "/proc/meminfo",
            &["models.memory", "memory.available", "memory.cma"],
        ),
        ("/dev", &["node.present", "node.access"]),
        ("/proc/device-tree", &OF_THE_CHIP),
    ];
    for (path, overdue) in table {
        is_told(&Board::of(GOOD), &good, &[path], overdue);
    }
}

/// The configuration alone is waited for, because it says where things lie.
#[test]
fn where_everything_hangs_everything_is_unknown() {
    if !can_be_mounted() {
        return;
    }
    let board = Board::of(GOOD);
    let (good, _) = examine(&board);
    let overdue: Vec<_> = good
        .iter()
        .filter(|(_, (_, observed))| observed != "a copy does not tell")
        .map(|(id, _)| id.as_str())
        .collect();
    let hanging = ["/proc", "/sys", "/dev", "/usr", "/var"];
    is_told(&board, &good, &hanging, &overdue);
}

/// A thread in the kernel that no signal reaches keeps its process from ending; the command ends all the same.
#[test]
fn the_command_ends_although_a_driver_is_wedged() {
    if !can_be_mounted() {
        return;
    }
    let board = Board::of(GOOD);
    let (good, _) = examine(&board);
    let wedged = HungMount::unkillable_over(&board.path("/sys/module/rknpu/version"));
    let mut fastest = Duration::MAX;
    for _ in 0..TRIES {
        let (found, took) = examine(&board);
        assert_eq!(found["driver.version"].1, "no answer within 2500 ms");
        assert_eq!(found["node.access"], good["node.access"]);
        fastest = fastest.min(took);
        if fastest < PROMISED {
            break;
        }
    }
    assert!(fastest < PROMISED, "{fastest:?}");
    assert!(wedged.held() > 0);
}
