//! Looks at the sensors again and again, for whoever wants to know.
//!
//! Each sensor is read apart, one after the other and no longer than a limit; one that hangs is left
//! behind, is not asked again until it answers, and costs no other. Who wants to know gets what the last
//! look found and waits for nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::hwmon::{self, Monitor};
use super::{
    BoardReadings, Clock, CoolingDevice, Identity, KernelMemory, Pressure, SlowedDown, ThermalZone,
    frequency, thermal, throttling,
};
use crate::apart::{self, Subject};
use crate::board::{NpuLoad, Sysroot};

/// A driver that takes longer to tell one sensor hangs.
const LIMIT: Duration = Duration::from_millis(500);
/// Sensors of one kind that are looked at; boards have a dozen.
const MOST_OF_A_KIND: usize = 64;

/// What one look found.
#[derive(Clone, Debug)]
pub struct BoardSample {
    /// When the look ended.
    pub taken: Instant,
    pub readings: BoardReadings,
    /// Reads that took too long, since the start.
    pub read_timeouts: u64,
}

/// What is known of the board now; clones share it.
#[derive(Clone, Debug)]
pub struct BoardWatch(watch::Receiver<Option<Arc<BoardSample>>>);

impl BoardWatch {
    /// Begins to look, at once and then every `interval`, until nobody can want to know any more; never where
    /// that is zero.
    pub fn start(sysroot: Sysroot, interval: Duration) -> Self {
        let (told, samples) = watch::channel(None);
        if !interval.is_zero() {
            tokio::spawn(keep_looking(sysroot, interval, told));
        }
        Self(samples)
    }

    /// `None`: nobody has looked yet, or does.
    pub fn latest(&self) -> Option<Arc<BoardSample>> {
        self.0.borrow().clone()
    }
}

async fn keep_looking(
    sysroot: Sysroot,
    interval: Duration,
    told: watch::Sender<Option<Arc<BoardSample>>>,
) {
    let mut looks = tokio::time::interval(interval);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut log = ThrottlingLog::default();
    let mut read_timeouts = 0;
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = told.closed() => return,
        }
        let mut look = Look::at(&sysroot);
        let readings = look.all().await;
        read_timeouts += look.timeouts;
        log.write(readings.throttled.as_deref());
        told.send_replace(Some(Arc::new(BoardSample {
            taken: Instant::now(),
            readings,
            read_timeouts,
        })));
    }
}

/// One look at all sensors.
struct Look<'a> {
    sysroot: &'a Sysroot,
    limit: Duration,
    timeouts: u64,
    not_answering: Vec<String>,
}

impl<'a> Look<'a> {
    fn at(sysroot: &'a Sysroot) -> Self {
        Self {
            sysroot,
            limit: LIMIT,
            timeouts: 0,
            not_answering: Vec::new(),
        }
    }

    async fn all(&mut self) -> BoardReadings {
        let identity = self.one("/proc/device-tree", Identity::read).await;
        let mut thermal_zones = self
            .each(thermal::FOLDER, thermal::ZONES, ThermalZone::read)
            .await;
        tell_apart(thermal_zones.iter_mut().map(|zone| &mut zone.kind));
        let cooling_devices = self
            .each(
                thermal::FOLDER,
                thermal::COOLING_DEVICES,
                CoolingDevice::read,
            )
            .await;
        let cpu_clusters = self
            .each(frequency::CLUSTERS, frequency::CLUSTER, Clock::cluster)
            .await;
        let mut devices = self.each(frequency::DEVICES, "", Clock::device).await;
        devices.sort_by_key(|clock| clock.device);
        // One name each; a board has one of a kind.
        devices.dedup_by_key(|clock| clock.device);
        let monitors = self
            .each(hwmon::FOLDER, hwmon::DEVICES, Monitor::read)
            .await;
        let (mut fans, mut power) = (Vec::new(), Vec::new());
        for monitor in monitors {
            fans.extend(monitor.fans);
            power.extend(monitor.power);
        }
        tell_apart(fans.iter_mut().map(|fan| &mut fan.name));
        tell_apart(power.iter_mut().map(|sensor| &mut sensor.name));
        let memory = self.one("/proc/meminfo", KernelMemory::read).await;
        let pressure = self.one("/proc/pressure", Pressure::read).await;
        let npu_load = self
            .ask(Subject::NpuDriver, NpuLoad::read)
            .await
            .flatten()
            .map(|load| load.cores);
        BoardReadings {
            identity: identity.unwrap_or_default(),
            throttled: throttling::slowed_down(&cooling_devices, &cpu_clusters, &devices),
            thermal_zones,
            cooling_devices,
            npu_load,
            devices,
            cpu_clusters,
            memory: memory.unwrap_or_default(),
            pressure: pressure.unwrap_or_default(),
            fans,
            power,
            not_answering: std::mem::take(&mut self.not_answering),
        }
    }

    /// Every sensor of a kind; those that cannot be read are left out.
    async fn each<T: Send + 'static>(
        &mut self,
        folder: &'static str,
        prefix: &'static str,
        read: fn(&Sysroot, &str) -> Option<T>,
    ) -> Vec<T> {
        let names = move |sysroot: &Sysroot| {
            let names = sysroot.names(folder).into_iter();
            let of_kind = names.filter(|name| name.starts_with(prefix));
            of_kind.take(MOST_OF_A_KIND).collect::<Vec<_>>()
        };
        let names = self.one(folder, names).await.unwrap_or_default();
        let mut found = Vec::new();
        for name in names {
            let path = format!("{folder}/{name}");
            let one = self.one(&path, move |sysroot| read(sysroot, &name)).await;
            found.extend(one.flatten());
        }
        found
    }

    async fn one<T: Send + 'static>(
        &mut self,
        path: &str,
        read: impl FnOnce(&Sysroot) -> T + Send + 'static,
    ) -> Option<T> {
        let subject = Subject::Sensor(self.sysroot.path(path));
        self.ask(subject, read).await
    }

    async fn ask<T: Send + 'static>(
        &mut self,
        subject: Subject,
        read: impl FnOnce(&Sysroot) -> T + Send + 'static,
    ) -> Option<T> {
        let name = subject.to_string();
        let told = if apart::is_stuck(&subject) {
            None
        } else {
            let sysroot = self.sysroot.clone();
            let told = apart::ask(subject, self.limit, move || read(&sysroot)).await;
            self.timeouts += u64::from(told.is_none());
            told
        };
        if told.is_none() {
            self.not_answering.push(name);
        }
        told
    }
}

/// Puts a number behind names that are there already.
fn tell_apart<'a>(names: impl Iterator<Item = &'a mut String>) {
    let mut seen = BTreeMap::<String, u32>::new();
    for name in names {
        let times = seen.entry(name.clone()).or_default();
        *times += 1;
        if *times > 1 {
            *name = format!("{name} {times}");
        }
    }
}

/// Says when the board begins to be slowed down, and when that ends.
#[derive(Debug, Default)]
struct ThrottlingLog {
    is_throttled: bool,
}

impl ThrottlingLog {
    /// `None`, what is not known, neither begins nor ends anything.
    fn write(&mut self, throttled: Option<&[SlowedDown]>) {
        match throttled {
            Some(slowed @ [_, ..]) if !self.is_throttled => {
                let slowed: Vec<_> = slowed.iter().map(ToString::to_string).collect();
                tracing::warn!(
                    slowed_down = %slowed.join(", "),
                    "the board is throttled: answers take longer"
                );
                self.is_throttled = true;
            }
            Some([]) if self.is_throttled => {
                tracing::info!("the board is not throttled any more");
                self.is_throttled = false;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn throttling_begins_and_ends_once_each() {
        let slowed = [SlowedDown {
            reason: super::super::ThrottleReason::Cooling,
            device: "thermal-cpufreq-0".to_owned(),
            detail: "state 2".to_owned(),
        }];
        let mut log = ThrottlingLog::default();
        for (told, is_throttled) in [
            (None, false),
            (Some(&slowed[..]), true),
            (None, true),
            (Some(&slowed[..]), true),
            (Some(&slowed[..0]), false),
            (Some(&slowed[..0]), false),
        ] {
            log.write(told);
            assert_eq!(log.is_throttled, is_throttled);
        }
    }
}
