//! When a response was kept, so that its age is known after a restart: within one boot of the machine whatever becomes of
//! its clock, which a board without a battery sets only some time after its start.

use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::regular_file;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const BOOT_ID_LIMIT_BYTES: u64 = 64;
/// Empty where the kernel does not tell it.
static BOOT: LazyLock<String> = LazyLock::new(|| {
    let read = regular_file::read_text(Path::new(BOOT_ID), BOOT_ID_LIMIT_BYTES);
    read.map_or_else(|_| String::new(), |id| id.trim().to_owned())
});

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Moment {
    /// Tells one boot from every other.
    pub boot: String,
    pub us_since_boot: u64,
    pub us_since_epoch: u64,
}

impl Moment {
    pub fn now() -> Self {
        let since_boot = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(since_boot.tv_sec).unwrap_or_default();
        let nanoseconds = u64::try_from(since_boot.tv_nsec).unwrap_or_default();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let since_epoch = since_epoch.map_or(0, |since| since.as_micros());
        Self {
            boot: BOOT.clone(),
            us_since_boot: seconds
                .saturating_mul(1_000_000)
                .saturating_add(nanoseconds / 1000),
            us_since_epoch: u64::try_from(since_epoch).unwrap_or(u64::MAX),
        }
    }

    /// How long ago it was. A clock that was put back makes nothing younger than just kept.
    pub fn age(&self, now: &Self) -> Duration {
        let is_one_boot = !self.boot.is_empty() && self.boot == now.boot;
        Duration::from_micros(match is_one_boot {
            true => now.us_since_boot.saturating_sub(self.us_since_boot),
            false => now.us_since_epoch.saturating_sub(self.us_since_epoch),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(boot: &str, us_since_boot: u64, us_since_epoch: u64) -> Moment {
        Moment {
            boot: boot.to_owned(),
            us_since_boot,
            us_since_epoch,
        }
    }

    #[test]
    fn the_clock_counts_only_over_boots() {
        let kept = moment("a", 10, 1000);
        let age = |now: Moment| kept.age(&now).as_micros();
        assert_eq!(age(moment("a", 30, 9_000_000)), 20);
        assert_eq!(age(moment("b", 1, 1500)), 500);
        assert_eq!(age(moment("b", 1, 500)), 0);
        assert_eq!(
            moment("", 10, 1000).age(&moment("", 30, 1100)).as_micros(),
            100
        );
    }

    #[test]
    fn now_is_now() {
        let (one, other) = (Moment::now(), Moment::now());
        assert!(one.age(&other) < Duration::from_secs(60));
        assert_eq!(one.boot, other.boot);
        assert!(one.us_since_epoch > 1_600_000_000_000_000);
        assert!(one.us_since_boot > 0);
    }
}
