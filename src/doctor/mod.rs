//! `rkllmd doctor`: looks at what the daemon needs of its machine, and says what to type where
//! something is wrong. It needs no daemon, writes nothing, and waits for no file that hangs.

mod access;
mod board;
mod check;
mod collect;
mod holders;
mod listeners;
mod memory;
mod model;
mod models;
mod reading;
mod runtime;
mod service;
mod speed;
mod trial;

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use check::{Check, Report, Status};
pub use collect::{Collected, collect};
pub use model::{examine_model, model_ids};
pub use trial::{Beside, try_model};

use crate::board::{Soc, Sysroot};
use crate::settings::Settings;

/// What is not told by then is not waited for.
const LIMIT: Duration = Duration::from_millis(2500);

/// The configuration in a copy of a board.
pub const COPYS_CONFIG: &str = "/etc/rkllmd/rkllmd.toml";

/// Whose settings are looked at: what the service's user may read concerns no other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The installed service's.
    Service,
    /// The daemon's that examines itself, which is the service where it has its user.
    OwnDaemon,
    /// Another daemon's.
    Other,
}

/// What is looked at.
#[derive(Clone)]
pub struct Patient {
    pub sysroot: Sysroot,
    pub settings: Settings,
    pub whose: Whose,
    soc: OnceLock<Option<Soc>>,
}

impl Patient {
    pub fn new(sysroot: Sysroot, settings: Settings) -> Self {
        Self {
            sysroot,
            settings,
            whose: Whose::Service,
            soc: OnceLock::new(),
        }
    }

    /// The chip. A kernel that does not tell it holds up who asks, so a probe does and not who begins them.
    pub fn soc(&self) -> Option<Soc> {
        *self.soc.get_or_init(|| Soc::of(&self.sysroot))
    }

    /// The NPU's chip, where the vendor's library serves it.
    fn npu(&self) -> Option<Soc> {
        self.soc().filter(|soc| soc.runs_rkllm())
    }
}

/// Makes one check. A probe that does not come back leaves its own check unknown and no other.
struct Probe {
    id: &'static str,
    run: fn(&Patient) -> Check,
}

/// In the order of the report: what others stand on comes first.
const PROBES: &[Probe] = &[
    Probe {
        id: "soc",
        run: board::soc,
    },
    Probe {
        id: "driver.loaded",
        run: board::driver_loaded,
    },
    Probe {
        id: "driver.version",
        run: board::driver_version,
    },
    Probe {
        id: "node.present",
        run: access::node_present,
    },
    Probe {
        id: "node.access",
        run: access::node_access,
    },
    Probe {
        id: "npu.users",
        run: access::npu_users,
    },
    Probe {
        id: "runtime.found",
        run: runtime::found,
    },
    Probe {
        id: "runtime.version",
        run: runtime::version,
    },
    Probe {
        id: "runtime.deps",
        run: runtime::dependencies,
    },
    Probe {
        id: "runtime.cpu",
        run: runtime::cpu,
    },
    Probe {
        id: "models.read",
        run: models::read,
    },
    Probe {
        id: "models.access",
        run: reading::models,
    },
    Probe {
        id: "models.platform",
        run: models::platform,
    },
    Probe {
        id: "models.toolkit",
        run: models::toolkit,
    },
    Probe {
        id: "models.memory",
        run: models::memory,
    },
    Probe {
        id: "memory.available",
        run: memory::available,
    },
    Probe {
        id: "memory.swap",
        run: memory::swap,
    },
    Probe {
        id: "memory.cma",
        run: memory::cma,
    },
    Probe {
        id: "memory.cgroup",
        run: memory::cgroup,
    },
    Probe {
        id: "cpu.governor",
        run: speed::cpu_governor,
    },
    Probe {
        id: "cpu.frequency",
        run: speed::cpu_frequency,
    },
    Probe {
        id: "npu.governor",
        run: speed::npu_governor,
    },
    Probe {
        id: "npu.frequency",
        run: speed::npu_frequency,
    },
    Probe {
        id: "ddr.governor",
        run: speed::ddr_governor,
    },
    Probe {
        id: "thermal.headroom",
        run: speed::thermal_headroom,
    },
    Probe {
        id: "thermal.throttling",
        run: speed::thermal_throttling,
    },
    Probe {
        id: "service.exposure",
        run: service::exposure,
    },
    Probe {
        id: "service.listeners",
        run: listeners::listeners,
    },
    Probe {
        id: "service.keys",
        run: service::keys,
    },
    Probe {
        id: "service.disk",
        run: service::disk,
    },
    Probe {
        id: "service.clock",
        run: service::clock,
    },
    Probe {
        id: "service.landlock",
        run: service::landlock,
    },
];

/// The checks there are.
pub fn ids() -> impl Iterator<Item = &'static str> {
    PROBES.iter().map(|probe| probe.id)
}

/// Looks at everything at once, for at most [`LIMIT`].
pub fn examine(patient: Patient) -> Report {
    Examiner::default().examine(patient)
}

/// Examines again and again, and remembers which probes hang: of each there is one at the most.
#[derive(Clone, Default)]
pub struct Examiner {
    begun: Arc<Mutex<Ids>>,
}

/// A probe that has begun and not come back.
struct Begun {
    id: &'static str,
    among: Arc<Mutex<Ids>>,
}

impl Drop for Begun {
    fn drop(&mut self) {
        lock(&self.among).remove(self.id);
    }
}

type Ids = BTreeSet<&'static str>;

fn lock(begun: &Mutex<Ids>) -> MutexGuard<'_, Ids> {
    // Whole after every statement.
    begun.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Examiner {
    /// `None`: it has not come back from the time before.
    fn begin(&self, id: &'static str) -> Option<Begun> {
        let is_back = lock(&self.begun).insert(id);
        is_back.then(|| Begun {
            id,
            among: Arc::clone(&self.begun),
        })
    }

    /// As [`examine`].
    pub fn examine(&self, patient: Patient) -> Report {
        let deadline = Instant::now() + LIMIT;
        let patient = Arc::new(patient);
        let (told, answers) = mpsc::channel();
        for (nth, probe) in PROBES.iter().enumerate() {
            let Some(begun) = self.begin(probe.id) else {
                continue;
            };
            let (told, patient) = (told.clone(), Arc::clone(&patient));
            let run = probe.run;
            // One that hangs is left behind; the program ends without it.
            let thread = thread::Builder::new().name(probe.id.to_owned());
            let spawned = thread.spawn(move || {
                let check = run(&patient);
                // Before it is told, so that who has all answers may ask again.
                drop(begun);
                drop(told.send((nth, check)));
            });
            if spawned.is_err() {
                break;
            }
        }
        drop(told);
        report(deadline, &answers)
    }
}

fn report(deadline: Instant, answers: &mpsc::Receiver<(usize, Check)>) -> Report {
    let mut checks: Vec<Option<Check>> = PROBES.iter().map(|_| None).collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match answers.recv_timeout(left) {
            Ok((nth, check)) => checks[nth] = Some(check),
            Err(_) => break,
        }
    }
    let overdue = || {
        Check::warn(format!("no answer within {} ms", LIMIT.as_millis()))
            .expected("an answer at once")
            .remedy("a file of the kernel's or a mounted share hangs: dmesg | tail -n 50")
    };
    Report {
        checks: PROBES
            .iter()
            .zip(checks)
            .map(|(probe, check)| check.unwrap_or_else(overdue).named(probe.id))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_hangs_is_not_begun_again() {
        let examiner = Examiner::default();
        let hangs = examiner.begin("soc").expect("the first");
        assert!(examiner.begin("soc").is_none());
        assert!(examiner.clone().begin("soc").is_none(), "clones share it");
        assert!(examiner.begin("driver.loaded").is_some());
        drop(hangs);
        assert!(examiner.begin("soc").is_some());
    }
}
