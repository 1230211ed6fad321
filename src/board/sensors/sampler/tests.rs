use std::fs;
use std::sync::mpsc;

use super::*;

const LONG: Duration = Duration::from_secs(60);

/// A sensor that hangs until the sender is dropped.
fn hanging(until: mpsc::Receiver<()>) -> impl FnOnce(&Sysroot) -> u32 + Send + 'static {
    move |_| {
        let _ = until.recv();
        7
    }
}

#[tokio::test]
async fn a_sensor_that_hangs_costs_itself_and_its_time_once() {
    let folder = tempfile::tempdir().unwrap();
    let sysroot = Sysroot::new(folder.path());
    let mut look = Look::at(&sysroot);
    look.limit = Duration::from_millis(200);
    let (release, until) = mpsc::channel();
    assert_eq!(look.one("/sys/hangs", hanging(until)).await, None);
    assert_eq!(look.timeouts, 1);
    // It is not asked again, and not waited for, while it hangs; others are.
    look.limit = LONG;
    let before = Instant::now();
    assert_eq!(look.one("/sys/hangs", |_| 1).await, None);
    assert_eq!(look.one("/sys/other", |_| 2).await, Some(2));
    assert!(before.elapsed() < LONG);
    assert_eq!(look.timeouts, 1);
    let path = sysroot.path("/sys/hangs").display().to_string();
    assert_eq!(look.not_answering, [path.clone(), path]);
    drop(release);
    let until = Instant::now() + LONG;
    while look.one("/sys/hangs", |_| 3).await != Some(3) {
        assert!(Instant::now() < until, "it never answers again");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_npu_s_driver_may_hang_alone() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("proc/meminfo", "MemTotal: 4 kB\n");
    write("sys/class/thermal/thermal_zone0/type", "soc-thermal\n");
    write("sys/class/thermal/thermal_zone0/temp", "41000\n");
    write("sys/class/thermal/thermal_zone1/type", "soc-thermal\n");
    let pipe = folder.path().join("run/rknpu/load");
    fs::create_dir_all(pipe.parent().unwrap()).unwrap();
    let (fifo, mode) = (
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
    );
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, fifo, mode, 0).unwrap();
    let sysroot = Sysroot::new(folder.path());
    for _ in 0..2 {
        let mut look = Look::at(&sysroot);
        // It is waited for once; the others have time on a busy machine.
        look.limit = Duration::from_secs(3);
        let readings = look.all().await;
        assert_eq!(readings.npu_load, None);
        assert_eq!(readings.not_answering, ["the NPU's driver"]);
        assert_eq!(readings.memory.total_bytes, Some(4096));
        assert_eq!(readings.hottest(), Some(("soc-thermal", 41.0)));
        assert_eq!(readings.thermal_zones[1].kind, "soc-thermal 2");
    }
    // The driver answers again, and is asked again.
    drop(fs::OpenOptions::new().write(true).open(&pipe).unwrap());
    fs::remove_file(&pipe).unwrap();
    fs::write(&pipe, "NPU load:  5%\n").unwrap();
    let until = Instant::now() + LONG;
    loop {
        let readings = Look::at(&sysroot).all().await;
        if readings.npu_load == Some(vec![0.05]) {
            break;
        }
        assert!(Instant::now() < until, "{readings:?}");
    }
}

#[tokio::test]
async fn nobody_looks_where_the_interval_is_zero() {
    let watch = BoardWatch::start(Sysroot::new("/nonexistent"), Duration::ZERO);
    tokio::task::yield_now().await;
    assert!(watch.latest().is_none());
}

#[tokio::test]
async fn a_sensor_that_cannot_be_read_ends_no_throttling_and_gives_its_name_to_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = |path: &str| folder.path().join(path);
    let write = |file: &str, text: &str| {
        fs::create_dir_all(path(file).parent().unwrap()).unwrap();
        fs::write(path(file), text).unwrap();
    };
    const COOLING: &str = "sys/class/thermal/cooling_device0/cur_state";
    const KIND: &str = "sys/class/thermal/thermal_zone0/type";
    write(
        "sys/class/thermal/cooling_device0/type",
        "thermal-cpufreq-0\n",
    );
    write(COOLING, "2\n");
    write(
        "sys/class/thermal/cooling_device1/type",
        "thermal-devfreq-0\n",
    );
    write("sys/class/thermal/cooling_device1/cur_state", "0\n");
    for zone in [
        "sys/class/thermal/thermal_zone0",
        "sys/class/thermal/thermal_zone1",
    ] {
        write(&format!("{zone}/type"), "soc\n");
        write(&format!("{zone}/temp"), "41000\n");
    }
    let sysroot = Sysroot::new(folder.path());
    let mut look = Look::at(&sysroot);
    // The others have time on a busy machine.
    look.limit = LONG;
    let kinds = |readings: &BoardReadings| -> Vec<String> {
        let zones = readings.thermal_zones.iter();
        zones.map(|zone| zone.kind.clone()).collect()
    };
    let hot = look.all().await;
    assert_eq!(hot.throttled.as_ref().map(Vec::len), Some(1));
    assert_eq!(hot.throttle_reasons(), [(ThrottleReason::Cooling, true)]);
    assert_eq!(kinds(&hot), ["soc", "soc 2"]);
    fs::remove_file(path(KIND)).unwrap();
    for lost in [COOLING, "sys/class/thermal/cooling_device0/type"] {
        fs::remove_file(path(lost)).unwrap();
        let unknown = look.all().await;
        assert_eq!(unknown.throttled, None, "{lost}");
        assert_eq!(unknown.throttle_reasons(), [], "{lost}");
        assert_eq!(kinds(&unknown), ["soc 2"]);
    }
    write(
        "sys/class/thermal/cooling_device0/type",
        "thermal-cpufreq-0\n",
    );
    write(COOLING, "0\n");
    write(KIND, "soc\n");
    let cool = look.all().await;
    assert_eq!(cool.throttled, Some(Vec::new()));
    assert_eq!(kinds(&cool), ["soc", "soc 2"]);
}

#[tokio::test]
async fn throttling_shows_within_one_interval_and_is_gone_within_another() {
    let folder = tempfile::tempdir().unwrap();
    let device = folder.path().join("sys/class/thermal/cooling_device0");
    fs::create_dir_all(&device).unwrap();
    fs::write(device.join("type"), "thermal-cpufreq-0\n").unwrap();
    // At once, as the kernel's files change.
    let set = |state: &str| {
        fs::write(folder.path().join("new"), state).unwrap();
        fs::rename(folder.path().join("new"), device.join("cur_state")).unwrap();
    };
    set("0\n");
    let watch = BoardWatch::start(Sysroot::new(folder.path()), Duration::from_millis(20));
    let mut looks = watch.0.clone();
    for (state, is_slowed) in [("2\n", true), ("0\n", false), ("1\n", true), ("0\n", false)] {
        set(state);
        looks.borrow_and_update();
        // The one that is under way may have read it before.
        let mut left = 2;
        let told = loop {
            tokio::time::timeout(LONG, looks.changed())
                .await
                .expect("a look in time")
                .expect("it goes on");
            left -= 1;
            let sample = watch.latest().expect("it looked");
            // Not known on a machine that is too busy to read in time.
            if let (..=0, Some(told)) = (left, &sample.readings.throttled) {
                break told.clone();
            }
        };
        assert_eq!(!told.is_empty(), is_slowed, "state {state}");
    }
}
