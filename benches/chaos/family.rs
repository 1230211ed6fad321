//! One family of the vendor's library through all of it: a daemon whose models know their texts, a
//! crowd of clients, injuries by the seed, and a shutdown under load.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::comings::{Came, Comings};
use crate::crowd::Crowd;
use crate::daemon_support::{Daemon, Setup};
use crate::deaths::Deaths;
use crate::drain::{self, Drained};
use crate::faults::{FAULTS, Fault};
use crate::injector::{Injector, Injury};
use crate::log_watch::LogWatch;
use crate::metrics::Metrics;
use crate::outcome::Tally;
use crate::plan::Plan;
use crate::scenario::{self, Answer, MODELS};
use crate::steadiness::{self, Sample};
use crate::strangers::{Strangers, Visits};

/// Fewer than there are models, so that they take turns.
pub const MAX_LOADED: usize = 2;
pub const DRAIN: Duration = Duration::from_secs(10);
const SLOW_READER_TIMEOUT: Duration = Duration::from_secs(1);
/// A crowd without injuries, so that memory is compared with that of a daemon that has worked.
const WARM_UP: Duration = Duration::from_secs(3);

/// Short ones: every wait is for a process on this machine that has nothing to compute. So are the
/// waits of a crash loop, which this is, because the gaps are to show what the daemon itself costs. Idle
/// readers end before what a quiet daemon holds is compared.
const SETTINGS: &str = r#"
models.max-loaded = 2
models.minimum-residency = "300ms"
queue.capacity = 16
queue.deadline = "50s"
http.slow-reader-timeout = "1s"
http.keep-alive = "10m"
deadlines.load-base = "2s"
deadlines.load-stall = "1s"
deadlines.load-longest = "5s"
deadlines.prefill-base = "1s"
deadlines.prefill-per-token = "1ms"
deadlines.inter-token = "1s"
deadlines.control-call = "500ms"
deadlines.abort-to-finish = "1s"
deadlines.unload = "1s"
deadlines.heartbeat = "5s"
deadlines.drain = "10s"
reader.idle-timeout = "1s"
recovery.backoff-first = "5ms"
recovery.backoff-longest = "20ms"
recovery.healthy-after = "500ms"
"#;

pub struct FamilyRun {
    pub family: &'static str,
    pub tally: Tally,
    pub visits: Visits,
    pub came: Came,
    pub injuries: Vec<Injury>,
    /// Faults that no call came by for.
    pub unused_faults: usize,
    pub deaths: Deaths,
    /// One a second while there were injuries.
    pub samples: Vec<Sample>,
    pub quiet_before: Sample,
    pub quiet_after: Sample,
    /// At most ten seconds after they have left.
    pub after_strangers: Sample,
    pub metrics: Metrics,
    pub drained: Drained,
}

pub fn run(plan: Plan, family: &'static str, load: Duration) -> FamilyRun {
    let answers = scenario::answers();
    let asked: Vec<(&str, &str)> = (MODELS.iter().zip(&answers))
        .map(|(model, answers)| (model.id, answers[0].prompt.as_str()))
        .collect();
    let daemon = start(family, &answers, &FAULTS);
    let log = LogWatch::new(daemon.log.clone());
    let models = daemon.folder().join("models");
    let open = AtomicUsize::new(0);
    let going = AtomicBool::new(true);
    let mut crowd = Crowd {
        address: daemon.address,
        plan,
        name: family,
        answers: &answers,
        slow_reader_timeout: SLOW_READER_TIMEOUT,
        open: &open,
        going: &going,
        poison: false,
    };
    let warm_up = thread::scope(|scope| {
        let crowd = scope.spawn(|| crowd.run());
        thread::sleep(WARM_UP);
        going.store(false, Ordering::Relaxed);
        crowd.join().expect("the crowd does not panic")
    });
    let quiet_before = steadiness::quiet(&daemon, MAX_LOADED, &asked);

    going.store(true, Ordering::Relaxed);
    crowd.poison = true;
    let decisions = plan.decisions((family, "injuries"));
    let injector = Injector::new(daemon.pid(), &models, &log, decisions);
    let comings = Comings {
        address: daemon.address,
        answers: &answers,
        going: &going,
    };
    let (mut tally, samples, came, (injuries, unused_faults)) = thread::scope(|scope| {
        let came = scope.spawn(|| comings.run(plan.decisions((family, "comings"))));
        let crowd = scope.spawn(|| crowd.run());
        let samples = scope.spawn(|| steadiness::watch(daemon.pid(), &open, &going));
        // The crowd stays until every injury is settled: without requests some are never noticed.
        let injuries = injector.run(Instant::now() + load);
        going.store(false, Ordering::Relaxed);
        (
            crowd.join().expect("the crowd does not panic"),
            samples.join().expect("sampling does not panic"),
            came.join().expect("its client does not panic"),
            injuries,
        )
    });
    tally.merge(warm_up);
    let quiet_after = steadiness::quiet_again(&daemon, MAX_LOADED, &asked, &quiet_before);

    // After the injuries: what strangers make the daemon hold for a moment would hide what injuries
    // make it keep.
    going.store(true, Ordering::Relaxed);
    crowd.poison = false;
    let strangers = Strangers {
        address: daemon.address,
        daemon: daemon.pid(),
        models: &models,
        model: MODELS[0].id,
        open: &open,
        going: &going,
    };
    let (beside_strangers, visits) = thread::scope(|scope| {
        let crowd = scope.spawn(|| crowd.run());
        let strangers = scope.spawn(|| {
            strangers.run(
                plan.decisions((family, "strangers")),
                plan.decisions((family, "strangers' folders")),
            )
        });
        thread::sleep(load);
        going.store(false, Ordering::Relaxed);
        (
            crowd.join().expect("the crowd does not panic"),
            strangers.join().expect("the strangers do not panic"),
        )
    });
    tally.merge(beside_strangers);
    let after_strangers = steadiness::quiet_again(&daemon, MAX_LOADED, &asked, &quiet_before);
    FamilyRun {
        family,
        deaths: Deaths::of(&tally, &log),
        tally,
        visits,
        came,
        injuries,
        unused_faults,
        samples,
        quiet_before,
        quiet_after,
        after_strangers,
        metrics: Metrics::of(&daemon),
        drained: drain::measure(daemon, &answers),
    }
}

/// A daemon whose models give these answers and may have these faults.
pub fn start(family: &str, answers: &[Vec<Answer>], faults: &[Fault]) -> Daemon {
    let mut setup = Setup::with_family(family)
        .settings(SETTINGS)
        .scenario(scenario::FLOOD, scenario::FLOOD_TOML)
        .model_file(scenario::FLOOD, "model.toml", scenario::FLOOD_MODEL_TOML);
    for (model, answers) in MODELS.iter().zip(answers) {
        setup = setup.scenario(model.id, &scenario::toml(model, answers, faults));
    }
    setup.start()
}
