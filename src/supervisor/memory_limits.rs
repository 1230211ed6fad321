//! When a worker has too much memory. Pure: it is given figures and answers what to do.
//!
//! A value that is set is kept as it is; only defaults give way, so that the soft limit never
//! lies above the hard one unless both were set so, which `settings` refuses.

use crate::children::memory::{HeldBytes, ProcessMemory};
use crate::memory::Accountant;
use crate::settings::MemorySettings;

/// Percent of the machine's memory. What is left at the soft limit serves the rest of the system
/// while a worker finishes; at the hard limit the kernel is about to kill something, and not
/// necessarily the worker.
const DEFAULT_SOFT_PERCENT: u64 = 80;
const DEFAULT_HARD_PERCENT: u64 = 90;

/// A worker over the soft limit has grown by this part of what it held, or by half of what was left up
/// to the hard limit, before it is replaced.
const GROWTH_SHARE: u64 = 8;

/// Limits of [`ProcessMemory::total_bytes`]; `None`: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    pub soft_bytes: Option<u64>,
    pub hard_bytes: Option<u64>,
}

/// What others hold of the machine's memory, which is not left for workers.
#[derive(Clone, Debug)]
pub struct Beside {
    pub readers: HeldBytes,
    /// In files that wait for their readers.
    pub tensors: Accountant,
    /// Where they lie in a folder in memory.
    pub prefixes: HeldBytes,
}

impl Beside {
    pub fn bytes(&self) -> u64 {
        let tensors = self.tensors.used_bytes();
        let beside = self.readers.get().saturating_add(tensors);
        beside.saturating_add(self.prefixes.get())
    }
}

/// Which limit of its memory a worker is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    None,
    /// It finishes what it does and is then replaced.
    Soft,
    /// It is killed at once.
    Hard,
}

/// The limits of a machine with so much memory; `None`: not known, so that a limit which was not set
/// is none.
pub fn effective(settings: &MemorySettings, machine_bytes: Option<u64>) -> MemoryLimits {
    let percent = |share: u64| machine_bytes.map(|bytes| bytes / 100 * share);
    let set = |value: u64| (value > 0).then_some(value);
    let default_soft = percent(DEFAULT_SOFT_PERCENT);
    let default_hard = percent(DEFAULT_HARD_PERCENT);
    let (soft_bytes, hard_bytes) = match (
        settings.worker_soft_limit_bytes.map(set),
        settings.worker_hard_limit_bytes.map(set),
    ) {
        (None, None) => (default_soft, default_hard),
        (Some(soft), Some(hard)) => (soft, hard),
        (Some(soft), None) => (soft, default_hard.map(|hard| hard.max(soft.unwrap_or(0)))),
        (None, Some(hard)) => (
            default_soft.map(|soft| hard.map_or(soft, |hard| hard.min(soft))),
            hard,
        ),
    };
    MemoryLimits {
        soft_bytes,
        hard_bytes,
    }
}

/// Which limit a worker is over that holds so much. `least` is the least that it has held since its model
/// was loaded: a new worker would hold as much, so only what has come since is worth another load.
pub fn pressure(memory: &ProcessMemory, least: Option<u64>, limits: MemoryLimits) -> Pressure {
    let over = |limit: Option<u64>| limit.is_some_and(|limit| memory.total_bytes() > limit);
    let has_grown = least.is_none_or(|least| {
        let to_hard = limits.hard_bytes.map(|hard| hard.saturating_sub(least) / 2);
        let growth = (least / GROWTH_SHARE).min(to_hard.unwrap_or(u64::MAX));
        over(Some(least.saturating_add(growth)))
    });
    if over(limits.hard_bytes) {
        Pressure::Hard
    } else if over(limits.soft_bytes) && has_grown {
        Pressure::Soft
    } else {
        Pressure::None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::generation::ClientKey;
    use crate::memory::Standing;

    fn settings(soft: Option<u64>, hard: Option<u64>) -> MemorySettings {
        MemorySettings {
            worker_soft_limit_bytes: soft,
            worker_hard_limit_bytes: hard,
            ..MemorySettings::default()
        }
    }

    fn limits(soft: Option<u64>, hard: Option<u64>, machine: Option<u64>) -> [Option<u64>; 2] {
        let limits = effective(&settings(soft, hard), machine);
        [limits.soft_bytes, limits.hard_bytes]
    }

    #[test]
    fn what_readers_and_tensors_hold_is_not_left_for_workers() {
        let beside = Beside {
            readers: HeldBytes::default(),
            tensors: Accountant::of_files(1000),
            prefixes: HeldBytes::default(),
        };
        beside.prefixes.set(4);
        beside.readers.set(30);
        let client = ClientKey::new("a client");
        let account = beside.tensors.account(client, Standing::Ordinary);
        let held = account.charge(200).unwrap();
        assert_eq!(beside.bytes(), 234);
        drop(held);
        assert_eq!(beside.bytes(), 34);
    }

    #[test]
    fn unset_limits_are_shares_of_the_machine() {
        let machine = Some(1000);
        assert_eq!(limits(None, None, machine), [Some(800), Some(900)]);
        assert_eq!(limits(None, None, None), [None, None]);
    }

    #[test]
    fn set_limits_are_kept_and_zero_is_none() {
        let machine = Some(1000);
        assert_eq!(limits(Some(1), Some(2), machine), [Some(1), Some(2)]);
        assert_eq!(limits(Some(0), Some(0), machine), [None, None]);
        assert_eq!(limits(Some(0), None, machine), [None, Some(900)]);
        assert_eq!(limits(None, Some(0), machine), [Some(800), None]);
    }

    #[test]
    fn a_default_gives_way_to_the_other_limit() {
        let machine = Some(1000);
        assert_eq!(limits(Some(950), None, machine), [Some(950), Some(950)]);
        assert_eq!(limits(None, Some(300), machine), [Some(300), Some(300)]);
    }

    #[test]
    fn a_worker_is_recycled_above_the_soft_and_killed_above_the_hard_limit() {
        let limits = MemoryLimits {
            soft_bytes: Some(100),
            hard_bytes: Some(200),
        };
        let pressure_of = |anonymous_bytes, shared_bytes, npu_bytes| {
            let memory = ProcessMemory {
                anonymous_bytes,
                shared_bytes,
                npu_bytes,
            };
            pressure(&memory, None, limits)
        };
        assert_eq!(pressure_of(60, 40, None), Pressure::None);
        assert_eq!(pressure_of(60, 40, Some(1)), Pressure::Soft);
        assert_eq!(pressure_of(60, 41, None), Pressure::Soft);
        assert_eq!(pressure_of(200, 0, None), Pressure::Soft);
        assert_eq!(pressure_of(201, 0, None), Pressure::Hard);
        assert_eq!(pressure_of(u64::MAX, 1, Some(u64::MAX)), Pressure::Hard);
    }

    #[test]
    fn what_a_model_needs_by_itself_is_no_reason_to_load_it_again() {
        let judge = |bytes, least, hard_bytes| {
            let memory = ProcessMemory {
                anonymous_bytes: bytes,
                shared_bytes: 0,
                npu_bytes: None,
            };
            let limits = MemoryLimits {
                soft_bytes: Some(800),
                hard_bytes,
            };
            pressure(&memory, Some(least), limits)
        };
        let hard = Some(900);
        assert_eq!(judge(850, 850, hard), Pressure::None);
        assert_eq!(judge(875, 850, hard), Pressure::None);
        assert_eq!(judge(876, 850, hard), Pressure::Soft);
        assert_eq!(judge(901, 850, hard), Pressure::Hard);
        assert_eq!(judge(956, 850, None), Pressure::None);
        assert_eq!(judge(957, 850, None), Pressure::Soft);
        assert_eq!(judge(801, 400, hard), Pressure::Soft);
    }

    proptest! {
        #[test]
        fn limits_are_in_order_unless_set_otherwise(
            soft in any::<Option<u64>>(),
            hard in any::<Option<u64>>(),
            machine in any::<Option<u64>>(),
        ) {
            prop_assume!(soft.is_none() || hard.is_none());
            if let [Some(soft), Some(hard)] = limits(soft, hard, machine) {
                prop_assert!(soft <= hard);
            }
        }

        #[test]
        fn more_memory_is_never_judged_more_mildly(
            [less, more] in any::<[u64; 2]>().prop_map(|mut pair| { pair.sort_unstable(); pair }),
            soft_bytes in any::<Option<u64>>(),
            hard_bytes in any::<Option<u64>>(),
            least in any::<Option<u64>>(),
        ) {
            let severity = |anonymous_bytes| {
                let memory = ProcessMemory { anonymous_bytes, shared_bytes: 0, npu_bytes: None };
                match pressure(&memory, least, MemoryLimits { soft_bytes, hard_bytes }) {
                    Pressure::None => 0,
                    Pressure::Soft => 1,
                    Pressure::Hard => 2,
                }
            };
            prop_assert!(severity(less) <= severity(more));
        }
    }
}
