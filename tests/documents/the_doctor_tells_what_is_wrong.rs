//! `rkllmd doctor` on copies of boards that are made of documented facts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::board_support::{Board, GOOD, check, descriptions};
use crate::doctor_command::{doctor, statuses};

/// What the command promises, and time for a busy machine to start it.
const LIMIT: Duration = Duration::from_secs(15);

fn of(board: &Board, further: &[&str]) -> (String, i32) {
    let root = board.root().to_str().unwrap();
    let output = doctor(&[&["--sysroot", root], further].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr, "", "nothing goes wrong");
    let text = String::from_utf8(output.stdout).unwrap();
    (text, output.status.code().expect("an exit code"))
}

fn json(board: &Board) -> Value {
    serde_json::from_str(&of(board, &["--json"]).0).unwrap()
}

fn close(board: &Board, path: &str, mode: u32) {
    let path = board.path(path);
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// With `UPDATE_DOCS=1` the reports are written anew, to be read before they are committed.
#[test]
fn every_board_gets_its_report() {
    let mut seen = 0;
    for entry in fs::read_dir(descriptions()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (text, code) = of(&Board::of(&name), &[]);
        let report = format!("{text}exit code {code}\n");
        let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden/doctor")
            .join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::create_dir_all(golden.parent().unwrap()).unwrap();
            fs::write(&golden, &report).unwrap();
        }
        assert_eq!(report, fs::read_to_string(&golden).unwrap(), "{name}");
        seen += 1;
    }
    assert!(seen >= 7, "{seen} boards");
}

/// One change makes one check differ, and no other.
#[test]
fn one_fault_is_told_by_its_own_check() {
    const CPU: &str = "/sys/devices/system/cpu/cpufreq/policy4";
    const NPU: &str = "/sys/class/devfreq/fdab0000.npu";
    type Change = fn(&Board);
    let table: &[(&str, &str, Change)] = &[
        ("driver.version", "warn", |b| {
            b.write("/sys/module/rknpu/version = 0.9.2\\n")
        }),
        ("driver.version", "fail", |b| {
            b.write("/sys/module/rknpu/version = 0.8.2\\n")
        }),
        ("driver.version", "skip", |b| {
            b.write("/sys/module/rknpu/version = ?\\n")
        }),
        ("node.access", "fail", |b| {
            close(b, "/dev/dri/by-path/platform-fdab0000.npu-card", 0o600);
        }),
        ("runtime.found", "fail", |b| {
            close(b, "/usr/lib/librkllmrt.so", 0o600);
        }),
        ("runtime.version", "fail", |b| {
            b.write("/usr/lib/librkllmrt.so := library 1.4.0")
        }),
        ("runtime.deps", "fail", |b| {
            b.remove("/usr/lib/aarch64-linux-gnu/libgomp.so.1")
        }),
        ("models.access", "fail", |b| {
            close(b, "/var/lib/rkllmd/models/qwen3-4b/model.rkllm", 0o640);
        }),
        ("models.access", "fail", |b| {
            close(b, "/var/lib/rkllmd/models/qwen3-4b", 0o700);
        }),
        ("models.access", "fail", |b| {
            b.write("/var/lib/rkllmd/models/qwen3-4b/tokenizer.json = {}");
            close(b, "/var/lib/rkllmd/models/qwen3-4b/tokenizer.json", 0o600);
        }),
        ("models.access", "fail", |b| {
            close(b, "/var/lib/rkllmd", 0o750);
        }),
        ("models.platform", "warn", |b| {
            b.write("/var/lib/rkllmd/models/small-rk3576.rkllm := model 1.3.1 1000000");
        }),
        ("models.platform", "warn", |b| {
            b.write("/var/lib/rkllmd/models/small-rk3562/model.rkllm := model 1.3.1 1000000");
        }),
        ("models.toolkit", "fail", |b| {
            b.write("/var/lib/rkllmd/models/new.rkllm := model 1.4.0 1000000");
        }),
        ("models.memory", "warn", |b| {
            b.write("/var/lib/rkllmd/models/large.rkllm := model 1.3.1 14000000000");
        }),
        ("models.memory", "fail", |b| {
            b.write("/var/lib/rkllmd/models/large.rkllm := model 1.3.1 17000000000");
        }),
        ("memory.available", "warn", |b| {
            b.write("/proc/meminfo = MemTotal: 16155968 kB\\nMemAvailable: 155968 kB\\nCmaTotal: 262144 kB\\nCmaFree: 200000 kB\\n");
        }),
        ("memory.cma", "warn", |b| {
            b.write("/proc/meminfo = MemTotal: 16155968 kB\\nMemAvailable: 14155968 kB\\nCmaTotal: 262144 kB\\nCmaFree: 2000 kB\\n");
        }),
        ("memory.swap", "warn", |b| {
            b.write("/proc/swaps = Filename Type\\n/dev/mmcblk0p2 partition 1 0 -2\\n");
        }),
        ("memory.cgroup", "warn", |b| {
            b.remove("/sys/fs/cgroup/cgroup.controllers");
            b.write("/sys/fs/cgroup/memory/memory.limit_in_bytes = 1\\n");
        }),
        ("cpu.governor", "warn", |b| {
            b.write(&format!("{CPU}/scaling_governor = schedutil\\n"))
        }),
        ("cpu.frequency", "warn", |b| {
            b.write(&format!("{CPU}/scaling_max_freq = 408000\\n"))
        }),
        ("npu.governor", "warn", |b| {
            b.write(&format!("{NPU}/governor = rknpu_ondemand\\n"))
        }),
        ("npu.frequency", "warn", |b| {
            b.write(&format!("{NPU}/max_freq = 300000000\\n"))
        }),
        ("ddr.governor", "warn", |b| {
            b.write("/sys/class/devfreq/dmc/governor = dmc_ondemand\\n");
        }),
        ("ddr.governor", "skip", |b| {
            b.remove("/sys/class/devfreq/dmc")
        }),
        ("thermal.headroom", "warn", |b| {
            b.write("/sys/class/thermal/thermal_zone0/temp = 81000\\n");
        }),
        ("thermal.throttling", "warn", |b| {
            b.write("/sys/class/thermal/cooling_device4/cur_state = 2\\n");
        }),
    ];
    let good = statuses(&json(&Board::of(GOOD)));
    assert!(
        good.values()
            .all(|status| status == "ok" || status == "skip"),
        "{good:?}"
    );
    for (id, status, change) in table {
        let board = Board::of(GOOD);
        change(&board);
        let found = statuses(&json(&board));
        let differing: Vec<_> = found
            .iter()
            .filter(|&(id, status)| good[id] != *status)
            .collect();
        assert_eq!(differing, [(&(*id).to_owned(), &(*status).to_owned())]);
    }
}

/// Where something is missing that other checks look at, they say so instead of finding faults.
#[test]
fn what_stands_on_something_missing_is_not_told() {
    type Change = fn(&Board);
    let table: &[(&str, &[&str], Change)] = &[
        ("driver.loaded", &["driver.version"], |b| {
            b.remove("/sys/module/rknpu")
        }),
        ("node.present", &["node.access"], |b| b.remove("/dev/dri")),
        (
            "runtime.found",
            &["runtime.version", "models.toolkit"],
            |b| {
                b.remove("/usr/lib/librkllmrt.so");
            },
        ),
    ];
    for (failed, skipped, change) in table {
        let board = Board::of(GOOD);
        change(&board);
        let report = json(&board);
        assert_eq!(check(&report, failed)["status"], "fail");
        for id in *skipped {
            assert_eq!(check(&report, id)["status"], "skip", "{id} after {failed}");
        }
        let failures = statuses(&report)
            .into_values()
            .filter(|status| status == "fail")
            .count();
        assert_eq!(failures, 1, "after {failed}");
    }
}

/// Where only the CPU runtime can serve, a model for an NPU is none.
#[test]
fn a_chip_without_rkllm_serves_no_model_of_it() {
    let board = Board::of("invented-rk3568");
    board.write("/var/lib/rkllmd/models/qwen.rkllm := model 1.3.1 1000000");
    let report = json(&board);
    let told = check(&report, "models.platform");
    assert_eq!(told["status"], "fail", "{told}");
    let observed = told["observed"].as_str().unwrap();
    assert!(
        observed.contains("qwen.rkllm") && observed.contains("RK356x"),
        "{observed}"
    );
}

/// Without the service's user it is not told what that may open.
#[test]
fn without_the_services_user_no_access_is_told() {
    let good = statuses(&json(&Board::of(GOOD)));
    let board = Board::of(GOOD);
    board.write("/etc/passwd = root:x:0:0::/root:/bin/sh\\n");
    // Which is not seen as closed then.
    close(&board, "/usr/lib/librkllmrt.so", 0o600);
    for (id, status) in statuses(&json(&board)) {
        let expected = match id.as_str() {
            "node.access" | "models.access" => "skip",
            _ => good[&id].as_str(),
        };
        assert_eq!(status, expected, "{id}");
    }
}

/// What a shell can carry out on the copy mends what it was told for.
#[test]
fn remedies_that_can_be_typed_mend_the_check() {
    type Change = fn(&Board);
    const MODELS: &str = "/var/lib/rkllmd/models";
    let table: &[(&str, &str, Change)] = &[
        ("cpu.governor", "warn", |b| {
            b.write("/sys/devices/system/cpu/cpufreq/policy0/scaling_governor = powersave\\n");
        }),
        ("cpu.frequency", "warn", |b| {
            b.write("/sys/devices/system/cpu/cpufreq/policy6/scaling_max_freq = 408000\\n");
        }),
        ("npu.governor", "warn", |b| {
            b.write("/sys/class/devfreq/fdab0000.npu/governor = simple_ondemand\\n");
        }),
        ("npu.frequency", "warn", |b| {
            b.write("/sys/class/devfreq/fdab0000.npu/max_freq = 300000000\\n");
        }),
        ("ddr.governor", "warn", |b| {
            b.write("/sys/class/devfreq/dmc/governor = dmc_ondemand\\n");
        }),
        ("runtime.found", "fail", |b| {
            close(b, "/usr/lib/librkllmrt.so", 0o600)
        }),
        ("models.access", "fail", |b| {
            close(b, &format!("{MODELS}/qwen3-4b"), 0o700)
        }),
        ("models.access", "fail", |b| {
            close(b, &format!("{MODELS}/qwen3-4b/model.rkllm"), 0o600);
        }),
        ("models.access", "fail", |b| close(b, MODELS, 0o700)),
        ("models.access", "fail", |b| close(b, "/var/lib", 0o700)),
    ];
    for (id, status, fault) in table {
        let board = Board::of(GOOD);
        fault(&board);
        let report = json(&board);
        let told = check(&report, id);
        assert_eq!(told["status"], *status, "{id}");
        let remedy = told["remedy"].as_str().unwrap();
        let root = board.root().to_str().unwrap();
        let program = env!("CARGO_BIN_EXE_rkllmd");
        let on_the_copy = ["/sys/", "/usr/", "/var/"]
            .into_iter()
            .fold(remedy.to_owned(), |remedy, folder| {
                remedy.replace(&format!(" {folder}"), &format!(" {root}{folder}"))
            })
            .replace("rkllmd tune", &format!("{program} tune --sysroot {root}"));
        let shell = Command::new("sh")
            .args(["-c", &on_the_copy])
            .output()
            .unwrap();
        assert!(shell.status.success(), "{on_the_copy}");
        assert_eq!(
            check(&json(&board), id)["status"],
            "ok",
            "{id} after {remedy}"
        );
    }
}

/// A named pipe holds nothing up; it is no file of the kernel's.
#[test]
fn files_that_hang_leave_their_own_check_unknown() {
    let good = statuses(&json(&Board::of(GOOD)));
    let board = Board::of(GOOD);
    for path in [
        "/sys/class/devfreq/dmc/governor",
        "/sys/module/rknpu/version",
        "/usr/lib/librkllmrt.so",
    ] {
        board.remove(path);
        let (fifo, mode) = (
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o666),
        );
        rustix::fs::mknodat(rustix::fs::CWD, board.path(path), fifo, mode, 0).unwrap();
    }
    let before = Instant::now();
    let found = statuses(&json(&board));
    assert!(before.elapsed() < LIMIT, "{:?}", before.elapsed());
    for (id, status) in &found {
        let hangs = [
            "ddr.governor",
            "driver.version",
            "runtime.found",
            "runtime.version",
            "models.toolkit",
        ];
        if hangs.contains(&id.as_str()) {
            assert_ne!(status, "ok", "{id}");
        } else {
            assert_eq!(*status, good[id], "{id}");
        }
    }
}

#[test]
fn this_machine_is_examined_without_a_daemon() {
    let output = doctor(&["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let statuses = statuses(&report);
    let worst = ["fail", "warn"]
        .iter()
        .position(|bad| statuses.values().any(|s| s == bad));
    let expected = [2, 1].get(worst.unwrap_or(9)).copied().unwrap_or(0);
    assert_eq!(output.status.code(), Some(expected), "{statuses:?}");
    assert_eq!(statuses["memory.available"], "ok", "{report}");
    assert_eq!(statuses["service.clock"], "ok");
    let nowhere = doctor(&["--sysroot", "/nonexistent"]);
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("no such folder"));
}

/// Each id stays, and has its place in the document that the report names.
#[test]
fn every_check_is_documented() {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/troubleshooting.md");
    let text = fs::read_to_string(text).unwrap();
    let headings: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let of_models = rkllmd::doctor::model_ids();
    let ids: Vec<_> = rkllmd::doctor::ids().chain(of_models).collect();
    for id in &ids {
        assert!(headings.contains(id), "{id} has no heading");
    }
    let documented = headings.iter().filter(|heading| ids.contains(heading));
    assert_eq!(documented.count(), ids.len(), "each once");
}
