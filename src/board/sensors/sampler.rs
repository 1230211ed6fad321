//! Looks at the sensors again and again, for all parts of the daemon that want to know.
//!
//! Each sensor is read apart, one after the other and no longer than a limit; one that hangs is left
//! behind, is not asked again until it answers, and costs no other until too many hang. Who wants to know
//! gets what the last look found and waits for nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::given_names::GivenNames;
use super::hwmon::{self, Monitor};
use super::throttling_log::ThrottlingLog;
use super::{
    BoardReadings, Clock, ClockOf, CoolingDevice, Identity, KernelMemory, Pressure, ThermalZone,
    ThrottleReason, frequency, identity, thermal,
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
    /// Begins to look, at once and then every `interval`, until no part can want to know any more; never where
    /// that is zero.
    pub fn start(sysroot: Sysroot, interval: Duration) -> Self {
        let (told, samples) = watch::channel(None);
        if !interval.is_zero() {
            tokio::spawn(keep_looking(sysroot, interval, told));
        }
        Self(samples)
    }

    /// `None`: the daemon has not looked yet, or does not.
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
    let mut look = Look::at(&sysroot);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = told.closed() => return,
        }
        let readings = look.all().await;
        log.write(readings.throttled.as_deref(), Instant::now());
        told.send_replace(Some(Arc::new(BoardSample {
            taken: Instant::now(),
            readings,
            read_timeouts: look.timeouts,
        })));
    }
}

/// Looks at all sensors, and knows of its earlier looks what must stay the same.
struct Look<'a> {
    sysroot: &'a Sysroot,
    limit: Duration,
    timeouts: u64,
    /// In this look.
    not_answering: Vec<String>,
    /// What cannot change while the machine runs.
    identity: Identity,
    zone_names: GivenNames,
    fan_names: GivenNames,
    power_names: GivenNames,
}

/// What sensors of a kind told, with the names of their folders.
struct Found<T> {
    told: Vec<(String, T)>,
    /// Those that did not tell.
    unread: Vec<String>,
    /// Whether it is known which there are.
    is_listed: bool,
}

impl<T> Found<T> {
    fn is_incomplete(&self) -> bool {
        !self.is_listed || !self.unread.is_empty()
    }

    /// Forgets names of what is gone; nothing is where that is not known.
    fn forget(&self, names: &mut GivenNames) {
        if self.is_listed {
            let told = self.told.iter().map(|(name, _)| name);
            let there: Vec<_> = told.chain(&self.unread).cloned().collect();
            names.keep(&there);
        }
    }

    fn readings(self) -> Vec<T> {
        self.told.into_iter().map(|(_, reading)| reading).collect()
    }
}

impl<'a> Look<'a> {
    fn at(sysroot: &'a Sysroot) -> Self {
        Self {
            sysroot,
            limit: LIMIT,
            timeouts: 0,
            not_answering: Vec::new(),
            identity: Identity::default(),
            zone_names: GivenNames::default(),
            fan_names: GivenNames::default(),
            power_names: GivenNames::default(),
        }
    }

    async fn all(&mut self) -> BoardReadings {
        let identity = self.identity().await;
        let thermal_zones = self.zones().await;
        let mut unread = Vec::new();
        let is_cooling = |name: &str| name.starts_with(thermal::COOLING_DEVICES);
        let cooling = self
            .each(thermal::FOLDER, is_cooling, CoolingDevice::read)
            .await;
        unread.extend(cooling.is_incomplete().then_some(ThrottleReason::Cooling));
        let is_cluster = |name: &str| name.starts_with(frequency::CLUSTER);
        let clusters = self
            .each(frequency::CLUSTERS, is_cluster, Clock::cluster)
            .await;
        unread.extend(
            clusters
                .is_incomplete()
                .then_some(ThrottleReason::CpuCapped),
        );
        let is_clock = |name: &str| ClockOf::device(name).is_some();
        let clocks = self.each(frequency::DEVICES, is_clock, Clock::device).await;
        if !clocks.is_listed {
            unread.extend([ThrottleReason::NpuCapped, ThrottleReason::DdrCapped]);
        }
        let of_device = |name: &String| ThrottleReason::capped(ClockOf::device(name)?);
        unread.extend(clocks.unread.iter().filter_map(of_device));
        let mut devices = clocks.readings();
        devices.sort_by_key(|clock| clock.device);
        // One name each; a board has one of a kind.
        devices.dedup_by_key(|clock| clock.device);
        let monitors = self.monitors().await;
        let memory = self.one("/proc/meminfo", KernelMemory::read).await;
        let pressure = self.one("/proc/pressure", Pressure::read).await;
        let npu_load = self
            .ask(Subject::NpuDriver, NpuLoad::read)
            .await
            .flatten()
            .map(|load| load.cores);
        let mut readings = BoardReadings {
            identity,
            thermal_zones,
            cooling_devices: cooling.readings(),
            npu_load,
            devices,
            cpu_clusters: clusters.readings(),
            memory: memory.unwrap_or_default(),
            pressure: pressure.unwrap_or_default(),
            fans: monitors.fans,
            power: monitors.power,
            throttled: None,
            unread,
            not_answering: std::mem::take(&mut self.not_answering),
        };
        readings.throttled = readings.brakes().slowed_down();
        readings
    }

    async fn identity(&mut self) -> Identity {
        if self.identity.kernel.is_none() {
            let told = self.one("/proc/device-tree", Identity::read).await;
            self.identity = told.unwrap_or_default();
        }
        let driver = self.one(identity::DRIVER, identity::driver_version).await;
        Identity {
            npu_driver: driver.flatten(),
            ..self.identity.clone()
        }
    }

    async fn zones(&mut self) -> Vec<ThermalZone> {
        let is_zone = |name: &str| name.starts_with(thermal::ZONES);
        let mut zones = self.each(thermal::FOLDER, is_zone, ThermalZone::read).await;
        zones.forget(&mut self.zone_names);
        for (device, zone) in &mut zones.told {
            self.zone_names.give(device, &mut zone.kind);
        }
        zones.readings()
    }

    /// All of them as one.
    async fn monitors(&mut self) -> Monitor {
        let is_monitor = |name: &str| name.starts_with(hwmon::DEVICES);
        let monitors = self.each(hwmon::FOLDER, is_monitor, Monitor::read).await;
        monitors.forget(&mut self.fan_names);
        monitors.forget(&mut self.power_names);
        let mut all = Monitor::default();
        for (device, mut monitor) in monitors.told {
            for fan in &mut monitor.fans {
                self.fan_names.give(&device, &mut fan.name);
            }
            for sensor in &mut monitor.power {
                self.power_names.give(&device, &mut sensor.name);
            }
            all.fans.extend(monitor.fans);
            all.power.extend(monitor.power);
        }
        all
    }

    /// Every sensor of a kind.
    async fn each<T: Send + 'static>(
        &mut self,
        folder: &'static str,
        is_of_kind: fn(&str) -> bool,
        read: fn(&Sysroot, &str) -> Option<T>,
    ) -> Found<T> {
        let names = move |sysroot: &Sysroot| {
            let names = sysroot.names(folder).into_iter();
            let of_kind = names.filter(|name| is_of_kind(name));
            of_kind.take(MOST_OF_A_KIND).collect::<Vec<_>>()
        };
        let names = self.one(folder, names).await;
        let mut found = Found {
            told: Vec::new(),
            unread: Vec::new(),
            is_listed: names.is_some(),
        };
        for name in names.unwrap_or_default() {
            let path = format!("{folder}/{name}");
            let asked = name.clone();
            let one = self.one(&path, move |sysroot| read(sysroot, &asked)).await;
            match one.flatten() {
                Some(reading) => found.told.push((name, reading)),
                None => found.unread.push(name),
            }
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

#[cfg(test)]
mod tests;
