//! The memory that clients may make the daemon use, as one sum under one setting.
//!
//! `budget` decides and knows nothing of threads; `accountant` hands out what it decided as charges
//! that give their bytes back when they are dropped; `allowance` charges in blocks what is small and
//! many; `allocator` and `trimmer` see to it that the kernel gets back what was freed.

mod accountant;
pub(crate) mod allocator;
mod allowance;
mod budget;
pub(crate) mod machine;
mod trimmer;

pub use accountant::{Account, Accountant, Charge};
pub(crate) use allowance::{Allowance, Taken};
pub use budget::{OverBudget, Standing};

/// What clients may have where the settings do not say it: at most this, …
const MOST_BYTES: u64 = 256 * 1024 * 1024;
/// … and at most this share of the machine's memory, in percent.
const SHARE_PERCENT: u64 = 6;
/// Below this nothing could be served.
const LEAST_BYTES: u64 = 16 * 1024 * 1024;

/// `memory.requests-limit-bytes` in force. `machine_bytes`: where that is known.
pub(crate) fn requests_limit(set: Option<u64>, machine_bytes: Option<u64>) -> u64 {
    set.unwrap_or_else(|| {
        let share = machine_bytes.map_or(MOST_BYTES, |bytes| bytes / 100 * SHARE_PERCENT);
        share.clamp(LEAST_BYTES, MOST_BYTES)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_set_one_or_a_share_of_the_machine() {
        const GIB: u64 = 1 << 30;
        assert_eq!(requests_limit(Some(5), Some(GIB)), 5);
        assert_eq!(requests_limit(None, Some(2 * GIB)), 2 * GIB / 100 * 6);
        assert_eq!(requests_limit(None, Some(64 * GIB)), MOST_BYTES);
        assert_eq!(requests_limit(None, None), MOST_BYTES);
        assert_eq!(requests_limit(None, Some(GIB / 16)), LEAST_BYTES);
    }
}
