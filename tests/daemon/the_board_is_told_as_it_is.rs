//! What the board's sensors tell is the same over HTTP, in the metrics and in the doctor's report, and
//! changes with the kernel's files. What is not there is null, and what hangs costs nothing but itself.
//! Boards are copies that are made of documented facts (`invented-*`), of no real board.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::board_support::{Board, GOOD, check};
use crate::daemon_support::{Daemon, Setup, chat, eventually};
use crate::manager::Manager;

/// Far more than a look takes, far less than a run or a watchdog would wait for a sensor that hangs.
const PROMPTLY: Duration = Duration::from_secs(20);

fn setup(board: &Board) -> Setup {
    let root = board.root().to_str().expect("UTF-8");
    Setup::new().settings(&format!(
        "board.root = {root:?}\nboard.interval = \"100ms\""
    ))
}

fn status(daemon: &Daemon) -> Value {
    let answer = daemon.get("/v1/status");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// The board once it was looked at and is as the test wants it.
fn board_when(daemon: &Daemon, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || {
        let board = status(daemon)["board"].take();
        (board.is_object() && holds(&board)).then_some(board)
    })
}

fn metric_is_there(daemon: &Daemon, line: &str) {
    eventually(line, || {
        let page = daemon.get("/metrics").body;
        page.lines().any(|told| told == line).then_some(())
    });
}

fn doctor(board: &Board) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_rkllmd"))
        .args(["doctor", "--json", "--sysroot"])
        .arg(board.root())
        .env_clear()
        .output()
        .expect("the program starts");
    serde_json::from_slice(&output.stdout).expect("a report")
}

fn zone<'a>(board: &'a Value, kind: &str) -> &'a Value {
    let zones = board["thermal_zones"].as_array().expect("zones");
    let zone = zones.iter().find(|zone| zone["type"] == kind);
    zone.unwrap_or_else(|| panic!("no {kind} in {board}"))
}

#[test]
fn every_board_tells_what_it_has() {
    let dmc = "/sys/class/devfreq/dmc";
    let gpu = "/sys/class/devfreq/27800000.gpu";
    let table = [
        (
            GOOD,
            vec![
                format!("{dmc}/cur_freq = 2112000000\\n"),
                format!("{dmc}/max_freq = 2112000000\\n"),
                format!("{dmc}/available_frequencies = 528000000 2112000000\\n"),
                "/run/rknpu/load = NPU load:  Core0: 25%, Core1:  0%, Core2:100%,\\n".to_owned(),
                "/sys/class/hwmon/hwmon3/name = pwmfan\\n".to_owned(),
                "/sys/class/hwmon/hwmon3/fan1_input = 2400\\n".to_owned(),
            ],
            json!({
                "/soc": "RK3588", "/kernel": "6.1.43-rockchip-rk3588", "/npu_driver": "0.9.8",
                "/npu_load": [0.25, 0.0, 1.0], "/throttled": [], "/not_answering": [],
                "/thermal_zones/0/trip_points/1": {"type": "passive", "celsius": 85.0},
                "/devices/0/device": "npu", "/devices/0/max_hertz": 1_000_000_000,
                "/devices/1/device": "ddr", "/devices/1/current_hertz": 2_112_000_000u64,
                "/cpu_clusters/1/name": "policy4", "/cpu_clusters/1/governor": "performance",
                "/cpu_clusters/1/highest_hertz": 2_352_000_000u64,
                "/cpu_clusters/1/current_hertz": null,
                "/memory/cma_total_bytes": 268_435_456, "/memory/swap_total_bytes": null,
                "/fans": [{"name": "pwmfan 1", "rpm": 2400, "drive_ratio": null}], "/power": [],
            }),
        ),
        (
            "invented-rk3588-vendor-5.10",
            vec![],
            json!({
                "/kernel": "5.10.110-rockchip", "/npu_driver": "0.9.6", "/npu_load": null,
                "/throttled": [
                    {"reason": "cooling", "device": "thermal-cpufreq-0", "detail": "state 3"},
                    {"reason": "cpu-capped", "device": "policy4", "detail": "1608 of 2352 MHz"},
                ],
            }),
        ),
        (
            "invented-rk3588-mainline",
            vec!["/proc/pressure/io = some avg10=50.00 avg60=1.00 total=1\\n".to_owned()],
            json!({
                "/soc": "RK3588", "/npu_driver": null, "/devices": [], "/cpu_clusters": [],
                "/thermal_zones/0/celsius": 38.0, "/thermal_zones/0/trip_points": [],
                "/throttled": null, "/memory/cma_total_bytes": 0,
                "/pressure": [{"resource": "io", "some_ratio": 0.5, "full_ratio": null}],
            }),
        ),
        (
            "invented-rk3576",
            vec![format!("{gpu}/governor = simple_ondemand\\n")],
            json!({
                "/soc": "RK3576", "/name": "Invented RK3576 board", "/thermal_zones": [],
                "/devices/0/name": "27700000.npu", "/devices/0/highest_hertz": 950_000_000,
                "/devices/1/device": "gpu", "/devices/1/max_hertz": null, "/throttled": [],
            }),
        ),
        (
            "invented-x86",
            vec![],
            json!({
                "/soc": null, "/name": null, "/kernel": "6.1.0-30-amd64", "/npu_driver": null,
                "/npu_load": null, "/devices": [], "/throttled": null, "/fans": [],
                "/cpu_clusters/0/governor": "powersave",
                "/thermal_zones/0/type": "x86_pkg_temp",
            }),
        ),
    ];
    for (name, further, expected) in table {
        let board = Board::of(name);
        for line in &further {
            board.write(line);
        }
        let daemon = setup(&board).start();
        let told = board_when(&daemon, name, |_| true);
        for (pointer, value) in expected.as_object().expect("pointers") {
            assert_eq!(
                told.pointer(pointer),
                Some(value),
                "{name} {pointer}: {told}"
            );
        }
        assert_eq!(status(&daemon)["versions"]["kernel"], told["kernel"]);
    }
}

#[test]
fn a_container_without_sensors_tells_nothing_and_invents_nothing() {
    let root = tempfile::tempdir().expect("a folder");
    let path = root.path().to_str().expect("UTF-8");
    let setup = Setup::new().settings(&format!(
        "board.root = {path:?}\nboard.interval = \"100ms\""
    ));
    let daemon = setup.start();
    let mut board = board_when(&daemon, "a look", |_| true);
    let fields = board.as_object_mut().expect("an object");
    assert!(fields.remove("age_ms").is_some_and(|age| age.is_u64()));
    assert_eq!(fields.remove("read_timeouts"), Some(json!(0)));
    let memory = fields.remove("memory").expect("memory");
    let memory = memory.as_object().expect("an object");
    assert!(memory.values().all(Value::is_null), "{memory:?}");
    for (name, value) in fields {
        assert!(value.is_null() || *value == json!([]), "{name}: {value}");
    }
    let page = daemon.get("/metrics").body;
    let told = page.lines().filter(|line| {
        line.starts_with("rkllmd_board") || line.starts_with("rkllmd_npu_load_ratio")
    });
    let told: Vec<_> = told.collect();
    assert_eq!(told, ["rkllmd_board_read_timeouts_total 0"]);
    drop(daemon);

    let off = Setup::new().settings("board.interval = \"0s\"").start();
    assert_eq!(status(&off)["board"], Value::Null);
    assert!(!off.get("/metrics").body.contains("rkllmd_board"));
}

#[test]
fn status_metrics_and_doctor_agree_while_the_files_change() {
    let board = Board::of(GOOD);
    let daemon = setup(&board).start();
    for (thousandths, celsius, degrees) in
        [(43_500, 43.5, 43), (81_250, 81.25, 81), (-4000, -4.0, 41)]
    {
        board.write(&format!(
            "/sys/class/thermal/thermal_zone6/temp = {thousandths}\\n"
        ));
        board_when(&daemon, "the temperature", |board| {
            zone(board, "npu-thermal")["celsius"] == celsius
        });
        let shown = format!("{celsius:?}");
        metric_is_there(
            &daemon,
            &format!("rkllmd_board_temperature_celsius{{zone=\"npu-thermal\"}} {shown}"),
        );
        let report = doctor(&board);
        let observed = check(&report, "thermal.headroom")["observed"].to_string();
        // The hottest is the other zone at last.
        assert!(observed.contains(&format!("{degrees} °C")), "{observed}");
    }
    for governor in ["ondemand", "schedutil"] {
        board.write(&format!(
            "/sys/devices/system/cpu/cpufreq/policy4/scaling_governor = {governor}\\n"
        ));
        board_when(&daemon, governor, |board| {
            board["cpu_clusters"][1]["governor"] == governor
        });
        metric_is_there(
            &daemon,
            &format!("rkllmd_board_governor{{device=\"policy4\",governor=\"{governor}\"}} 1"),
        );
        let observed = check(&doctor(&board), "cpu.governor")["observed"].to_string();
        assert!(observed.contains(governor), "{observed}");
    }
    // What is gone is not told on.
    board.remove("/sys/class/thermal/thermal_zone6");
    board_when(&daemon, "one zone less", |board| {
        board["thermal_zones"]
            .as_array()
            .is_some_and(|all| all.len() == 1)
    });
    assert!(!daemon.get("/metrics").body.contains("npu-thermal"));
}

#[test]
fn throttling_is_told_when_it_begins_and_when_it_ends() {
    let board = Board::of(GOOD);
    let manager = Manager::new();
    let daemon = manager.attach(setup(&board)).start();
    board_when(&daemon, "a board at its best", |board| {
        board["throttled"] == json!([])
    });
    manager.wait_until("heat", |text| {
        text.ends_with("; hottest 43 °C (npu-thermal)")
    });
    let cooling = "/sys/class/thermal/cooling_device4/cur_state";
    let npu = "/sys/class/devfreq/fdab0000.npu/max_freq";
    let cpu = "/sys/devices/system/cpu/cpufreq/policy6/scaling_max_freq";
    for (file, hot, cool, reason, device) in [
        (cooling, "2", "0", "cooling", "thermal-devfreq-1"),
        (npu, "300000000", "1000000000", "npu-capped", "fdab0000.npu"),
        (cpu, "408000", "2352000", "cpu-capped", "policy6"),
    ] {
        let logged = daemon.log.lines().len();
        let changed = Instant::now();
        board.write(&format!("{file} = {hot}\\n"));
        board_when(&daemon, reason, |board| {
            board["throttled"][0]["reason"] == reason && board["throttled"][0]["device"] == device
        });
        assert!(changed.elapsed() < PROMPTLY, "{:?}", changed.elapsed());
        metric_is_there(
            &daemon,
            &format!("rkllmd_board_throttled{{reason=\"{reason}\"}} 1"),
        );
        let throttled = format!("; throttled: {device} (");
        manager.wait_until(reason, |text| text.contains(&throttled));
        board.write(&format!("{file} = {cool}\\n"));
        metric_is_there(
            &daemon,
            &format!("rkllmd_board_throttled{{reason=\"{reason}\"}} 0"),
        );
        manager.wait_until("an end", |text| {
            text.starts_with("STATUS=") && !text.contains("throttled")
        });
        // The log has one line for each; the end is told when it has lasted.
        let lines = eventually("both lines", || {
            let lines = daemon.log.after(logged);
            let of = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
            let both = (
                of("the board is throttled: "),
                of("the board is not throttled any more"),
            );
            (both == (1, 1)).then_some(lines)
        });
        let begun = lines.iter().find(|line| line.contains("throttled: "));
        let begun = begun.expect("it was found");
        assert!(begun.contains("WARN") && begun.contains(device), "{begun}");
    }
}

#[test]
fn a_sensor_that_hangs_costs_itself_alone() {
    let board = Board::of(GOOD);
    let pipe = |path: &str| {
        if board.path(path).exists() {
            board.remove(path);
        }
        std::fs::create_dir_all(board.path(path).parent().expect("a folder")).expect("it");
        let (fifo, mode) = (
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o666),
        );
        rustix::fs::mknodat(rustix::fs::CWD, board.path(path), fifo, mode, 0).expect("a pipe");
    };
    // The driver's file is opened whatever it is, and hangs; a pipe elsewhere is no file of the kernel's.
    pipe("/run/rknpu/load");
    pipe("/sys/class/thermal/thermal_zone6/temp");
    pipe("/sys/class/devfreq/dmc/governor");
    let watchdog = Duration::from_secs(2);
    let manager = Manager::new();
    let daemon = manager
        .attach(setup(&board))
        .scenario("m", "tokens = [\"fine\"]\n")
        .environment("WATCHDOG_USEC", &watchdog.as_micros().to_string())
        .start();
    let told = board_when(&daemon, "a read that takes too long", |board| {
        board["not_answering"] == json!(["the NPU's driver"])
    });
    assert_eq!(told["npu_load"], Value::Null);
    assert_eq!(zone(&told, "npu-thermal")["celsius"], Value::Null);
    assert_eq!(zone(&told, "soc-thermal")["celsius"], 41.615);
    assert_eq!(told["devices"][1]["governor"], Value::Null);
    assert_eq!(told["devices"][0]["governor"], "performance");
    assert_eq!(told["memory"]["cma_total_bytes"], 268_435_456);
    for _ in 0..4 {
        let before = Instant::now();
        let answer = daemon.post("/v1/chat/completions", &chat("m", "x", json!({})));
        assert_eq!(answer.content(), "fine");
        assert!(before.elapsed() < PROMPTLY, "{:?}", before.elapsed());
        // What was queued before says nothing of now.
        manager.drain(Duration::from_millis(1));
        let before = Instant::now();
        manager.wait_for("WATCHDOG=1");
        assert!(before.elapsed() < watchdog, "{:?}", before.elapsed());
    }
    // It is left behind once, not at each look.
    let hanging = daemon
        .log
        .wait_for("a call about the NPU's driver does not come back");
    assert!(hanging.contains("hanging=1"), "{hanging}");
    let page = daemon.get("/metrics").body;
    let mut lines = page.lines();
    let timeouts = lines.find_map(|line| line.strip_prefix("rkllmd_board_read_timeouts_total "));
    let timeouts: u32 = timeouts.expect("counted").parse().expect("a number");
    // A busy machine may add some; there were dozens of looks.
    assert!((1..10).contains(&timeouts), "{page}");
    assert!(!page.contains("rkllmd_npu_load_ratio{"), "{page}");
    // The driver answers again.
    let path = board.path("/run/rknpu/load");
    let file = std::fs::OpenOptions::new().write(true).open(&path);
    let answered = path.with_extension("new");
    std::fs::write(&answered, "NPU load:  7%\n").expect("a file");
    std::fs::rename(&answered, &path).expect("the pipe's place");
    drop(file.expect("a reader waits"));
    board_when(&daemon, "the load", |board| {
        board["npu_load"] == json!([0.07])
    });
}
