//! The state machine against a simulated machine: processes that are started, end, hang and outlive
//! SIGKILL in any order, also while messages about them are late or repeated.

use proptest::prelude::*;

use super::*;

const POLICY: RestartPolicy = RestartPolicy {
    backoff: Backoff {
        first: Duration::from_secs(1),
        longest: Duration::from_secs(60),
    },
    healthy_after: Duration::from_secs(30),
};
const NO_JITTER: f64 = 0.5;

fn loaded(now: Instant) -> Lifecycle {
    let mut life = Lifecycle::new(POLICY);
    assert!(life.begin_load(now));
    life.spawned(Some(1));
    assert!(life.loaded(1, now));
    life
}

fn retry_at(life: &Lifecycle) -> Instant {
    match life.stage() {
        Stage::Failed { retry_at, .. } => retry_at,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_restart_is_immediate_and_the_next_ones_wait_longer_and_longer() {
    let now = Instant::now();
    let mut life = loaded(now);
    assert!(life.exited(1, true, now, NO_JITTER));
    assert_eq!(life.stage(), Stage::Unloaded, "at once");
    for (pid, wait) in [(2, 1), (3, 2), (4, 4)] {
        let ready_at = match life.stage() {
            Stage::Failed { retry_at, .. } => retry_at,
            _ => now,
        };
        assert!(life.begin_load(ready_at));
        assert!(life.loaded(pid, ready_at));
        assert!(life.exited(pid, true, ready_at, NO_JITTER));
        assert_eq!(retry_at(&life), ready_at + Duration::from_secs(wait));
        assert!(!life.begin_load(ready_at), "not before its time");
    }
}

#[test]
fn a_worker_that_proved_itself_is_forgiven() {
    let now = Instant::now();
    let mut answered = loaded(now);
    answered.exited(1, true, now, NO_JITTER);
    answered.begin_load(now);
    answered.loaded(2, now);
    assert!(answered.granted());
    assert!(answered.returned(2, true, now));
    answered.exited(2, true, now, NO_JITTER);
    assert_eq!(
        answered.stage(),
        Stage::Unloaded,
        "it had answered a request"
    );

    let mut old = loaded(now);
    old.exited(1, true, now, NO_JITTER);
    old.begin_load(now);
    old.loaded(2, now);
    old.exited(2, true, now + POLICY.healthy_after, NO_JITTER);
    assert_eq!(old.stage(), Stage::Unloaded, "it had lived long enough");
}

#[test]
fn a_first_load_that_fails_twice_is_given_up_and_a_certain_one_at_once() {
    let now = Instant::now();
    let mut life = Lifecycle::new(POLICY);
    life.begin_load(now);
    let first = life.load_failed(LoadFault::Perhaps, now, NO_JITTER);
    assert_eq!(first, AfterFailedLoad::WaitOn);
    assert!(life.begin_load(now), "the second try is immediate");
    let second = life.load_failed(LoadFault::Perhaps, now, NO_JITTER);
    assert_eq!(second, AfterFailedLoad::GiveUp);
    assert_eq!(retry_at(&life), now + Duration::from_secs(1));

    let mut certain = Lifecycle::new(POLICY);
    certain.begin_load(now);
    let after = certain.load_failed(LoadFault::Certain, now, NO_JITTER);
    assert_eq!(after, AfterFailedLoad::GiveUp);
    assert_eq!(retry_at(&certain), now + Duration::from_secs(1));
}

#[test]
fn a_model_that_could_be_loaded_is_waited_for_longer() {
    let now = Instant::now();
    let mut life = loaded(now);
    life.exited(1, true, now, NO_JITTER);
    let mut ready_at = now;
    for wait in [1, 2, 4, 8] {
        assert!(life.begin_load(ready_at));
        let after = life.load_failed(LoadFault::Perhaps, ready_at, NO_JITTER);
        assert_eq!(after, AfterFailedLoad::WaitOn, "it could be loaded before");
        ready_at += Duration::from_secs(wait);
        assert_eq!(retry_at(&life), ready_at);
    }
    assert!(life.begin_load(ready_at));
    let after = life.load_failed(LoadFault::Perhaps, ready_at, NO_JITTER);
    assert_eq!(after, AfterFailedLoad::GiveUp);
}

#[test]
fn a_worker_is_idle_when_its_last_lease_is_back() {
    let now = Instant::now();
    let mut life = loaded(now);
    assert!(life.granted() && life.granted());
    assert!(life.returned(1, true, now));
    assert!(matches!(life.stage(), Stage::Leased { leases: 1, .. }));
    assert!(!life.end(), "one is still out");
    assert!(life.granted());
    assert!(life.returned(1, true, now) && life.returned(1, true, now));
    assert!(matches!(life.stage(), Stage::Idle { .. }));
    assert!(life.end());
}

#[test]
fn a_worker_that_one_has_lost_is_lost_for_all() {
    let now = Instant::now();
    let mut life = loaded(now);
    assert!(life.granted() && life.granted());
    life.lost(1);
    assert!(!life.returned(1, true, now));
    life.lost(1);
    assert!(!life.granted());
    assert!(life.exited(1, true, now, NO_JITTER));
    assert_eq!(life.stage(), Stage::Unloaded);
}

#[test]
fn an_unkillable_process_has_no_successor_until_it_is_gone() {
    let now = Instant::now();
    let mut life = loaded(now);
    assert!(life.granted());
    life.lost(1);
    assert!(life.stuck(1));
    assert!(!life.begin_load(now));
    assert_eq!(life.pid(), Some(1));
    assert!(life.exited(1, true, now, NO_JITTER));
    assert!(life.begin_load(now));
}

/// What may happen to a model. Process ids are of the current, an older or no process.
#[derive(Clone, Copy, Debug)]
enum Step {
    BeginLoad,
    /// The load has started a process, of which nothing is known yet.
    Started,
    /// It becomes known.
    Spawned,
    Loaded,
    LoadFailed(bool),
    CancelLoad,
    LoadStopped,
    Granted,
    Returned(Which, bool),
    Lost(Which),
    End,
    Exited(Which, bool),
    Stuck(Which),
    Wait(u64),
}

#[derive(Clone, Copy, Debug)]
enum Which {
    Current,
    Older,
}

fn any_step() -> impl Strategy<Value = Step> {
    let which = || prop_oneof![4 => Just(Which::Current), 1 => Just(Which::Older)];
    prop_oneof![
        3 => Just(Step::BeginLoad),
        2 => Just(Step::Started),
        2 => Just(Step::Spawned),
        1 => Just(Step::LoadStopped),
        3 => Just(Step::Loaded),
        1 => any::<bool>().prop_map(Step::LoadFailed),
        1 => Just(Step::CancelLoad),
        3 => Just(Step::Granted),
        2 => (which(), any::<bool>()).prop_map(|(which, answered)| Step::Returned(which, answered)),
        1 => which().prop_map(Step::Lost),
        1 => Just(Step::End),
        2 => (which(), any::<bool>()).prop_map(|(which, failure)| Step::Exited(which, failure)),
        1 => which().prop_map(Step::Stuck),
        2 => (0u64..90).prop_map(Step::Wait),
    ]
}

/// The processes of one model as the kernel knows them.
#[derive(Debug, Default)]
struct Machine {
    newest: u32,
    alive: Option<u32>,
    /// Started, and not told of.
    unseen: Option<u32>,
}

impl Machine {
    fn pid(&self, which: Which) -> u32 {
        match which {
            Which::Current => self.newest,
            Which::Older => self.newest.saturating_sub(1),
        }
    }
}

proptest! {
    #[test]
    fn there_is_never_a_second_process_and_always_a_way_back(
        steps in prop::collection::vec(any_step(), 0..80),
        random in 0.0f64..1.0,
    ) {
        let mut now = Instant::now();
        let mut life = Lifecycle::new(POLICY);
        let mut machine = Machine::default();
        for step in steps {
            let before = life.stage();
            match step {
                Step::BeginLoad => {
                    let retry = match before {
                        Stage::Failed { retry_at, .. } => Some(retry_at),
                        _ => None,
                    };
                    if life.begin_load(now) {
                        prop_assert_eq!(machine.alive, None, "a load beside a living process");
                        prop_assert_eq!(machine.unseen, None, "a load beside an unseen process");
                        prop_assert!(retry.is_none_or(|retry_at| retry_at <= now));
                    }
                }
                Step::Started => {
                    if let (Stage::Loading { pid: None }, None) = (before, machine.unseen) {
                        machine.newest += 1;
                        machine.unseen = Some(machine.newest);
                    }
                }
                Step::Spawned => {
                    if let Some(pid) = machine.unseen.take() {
                        machine.alive = Some(pid);
                        life.spawned(Some(pid));
                    }
                }
                // Whatever the load's task had told comes before.
                Step::LoadStopped => {
                    if machine.unseen.is_none() {
                        life.load_stopped();
                    }
                }
                Step::Loaded => {
                    if let Some(pid) = machine.alive {
                        let is_loading = matches!(before, Stage::Loading { .. });
                        prop_assert_eq!(life.loaded(pid, now), is_loading);
                    }
                }
                // The loader reports a failure when its process is gone.
                Step::LoadFailed(certain) => {
                    if machine.unseen.is_some() {
                        continue;
                    }
                    if matches!(before, Stage::Loading { .. }) {
                        machine.alive = None;
                    }
                    let fault = if certain { LoadFault::Certain } else { LoadFault::Perhaps };
                    life.load_failed(fault, now, random);
                }
                Step::CancelLoad => life.cancel_load(),
                Step::Granted => {
                    let is_there = matches!(before, Stage::Idle { .. } | Stage::Leased { .. });
                    prop_assert_eq!(life.granted(), is_there);
                }
                Step::Returned(which, answered) => {
                    let pid = machine.pid(which);
                    let is_ours = matches!(before, Stage::Leased { pid: leased, .. } if leased == pid);
                    prop_assert_eq!(life.returned(pid, answered, now), is_ours);
                }
                Step::Lost(which) => {
                    let pid = machine.pid(which);
                    let is_news = matches!(before, Stage::Leased { pid: leased, .. } if leased == pid);
                    prop_assert_eq!(life.lost(pid), is_news);
                }
                Step::End => {
                    life.end();
                }
                Step::Exited(which, failure) => {
                    let pid = machine.pid(which);
                    if machine.alive == Some(pid) {
                        machine.alive = None;
                        // Of a load's process the loader tells.
                        if matches!(before, Stage::Loading { .. }) {
                            prop_assert!(!life.exited(pid, failure, now, random));
                            life.load_failed(LoadFault::Perhaps, now, random);
                        } else {
                            prop_assert!(life.exited(pid, failure, now, random));
                        }
                    } else if pid != machine.newest {
                        prop_assert!(!life.exited(pid, failure, now, random), "of a foreign process");
                    }
                }
                Step::Stuck(which) => {
                    let pid = machine.pid(which);
                    if machine.alive == Some(pid) || pid != machine.newest {
                        prop_assert_eq!(life.stuck(pid), machine.alive == Some(pid));
                    }
                }
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
            }
            prop_assert_eq!(life.pid(), machine.alive, "after {:?} in {:?}", step, before);
            if let Stage::Failed { retry_at, .. } = life.stage() {
                prop_assert!(retry_at <= now + POLICY.backoff.longest.mul_f64(1.21));
            }
        }
        // Whatever has happened: when the process has gone and the longest wait is over, the model
        // can be loaded.
        life.cancel_load();
        if let Some(pid) = machine.unseen {
            life.spawned(Some(pid));
            machine.alive = Some(pid);
        }
        life.load_stopped();
        if let Some(pid) = machine.alive {
            prop_assert!(life.exited(pid, true, now, random));
        }
        prop_assert!(life.begin_load(now + POLICY.backoff.longest.mul_f64(1.21)));
    }
}
