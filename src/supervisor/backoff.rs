//! How long a model waits before it is started again after failures.
//!
//! The first restart is immediate, because most deaths are accidents and a client is waiting; from
//! the second failure in a row each wait is twice the last one up to a longest, so that a crash
//! loop costs little. Pure: the caller counts the failures, draws the random number and waits.

use std::time::Duration;

/// The share by which jitter lengthens or shortens a wait, so that models which fell together do
/// not all come back at the same moment.
const JITTER: f64 = 0.2;

/// The waits of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the second failure in a row, without jitter.
    pub first: Duration,
    /// What no wait exceeds, without jitter.
    pub longest: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row: zero for none or one, then `first`, twice that and
    /// so on up to `longest`, each with jitter of ±20 %. `random` is evenly spread over 0 to 1; 0.5
    /// means no jitter.
    pub fn wait(&self, failures_in_a_row: u32, random: f64) -> Duration {
        let Some(doublings) = failures_in_a_row.checked_sub(2) else {
            return Duration::ZERO;
        };
        // A factor beyond u32 is past any longest wait, unless `first` is zero.
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let wait = self.first.saturating_mul(factor).min(self.longest);
        let random = if random.is_nan() {
            0.5
        } else {
            random.clamp(0.0, 1.0)
        };
        let jittered = wait.as_secs_f64() * (1.0 + JITTER * (2.0 * random - 1.0));
        Duration::try_from_secs_f64(jittered).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NO_JITTER: f64 = 0.5;

    fn any_backoff() -> impl Strategy<Value = Backoff> {
        let wait = || (1_u64..365 * 24 * 3600 * 1000).prop_map(Duration::from_millis);
        (wait(), wait()).prop_map(|(first, longest)| Backoff { first, longest })
    }

    fn close(a: Duration, b: Duration) -> bool {
        a.abs_diff(b) <= Duration::from_nanos(1 + b.as_secs())
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff {
            first: Duration::from_millis(250),
            longest: Duration::from_secs(2),
        };
        let waits = (0..8).map(|failures| backoff.wait(failures, NO_JITTER).as_millis());
        assert_eq!(
            waits.collect::<Vec<_>>(),
            [0, 0, 250, 500, 1000, 2000, 2000, 2000]
        );
        assert_eq!(backoff.wait(2, 0.0).as_millis(), 200);
        assert_eq!(backoff.wait(2, 1.0).as_millis(), 300);
    }

    proptest! {
        #[test]
        fn exactly_the_first_restart_is_immediate(
            backoff in any_backoff(),
            failures in any::<u32>(),
            random in 0.0..=1.0,
        ) {
            let wait = backoff.wait(failures, random);
            prop_assert_eq!(wait.is_zero(), failures <= 1);
        }

        #[test]
        fn without_jitter_waits_never_shrink(
            backoff in any_backoff(),
            failures in any::<u32>(),
        ) {
            let next = failures.saturating_add(1);
            prop_assert!(backoff.wait(failures, NO_JITTER) <= backoff.wait(next, NO_JITTER));
        }

        #[test]
        fn jitter_stays_within_a_fifth(
            backoff in any_backoff(),
            failures in prop_oneof![0_u32..80, any::<u32>()],
            random in 0.0..=1.0,
        ) {
            let wait = backoff.wait(failures, random);
            let plain = backoff.wait(failures, NO_JITTER);
            let (least, most) = (plain.mul_f64(0.8), plain.mul_f64(1.2));
            prop_assert!(wait >= least || close(wait, least), "{wait:?} of {plain:?}");
            prop_assert!(wait <= most || close(wait, most), "{wait:?} of {plain:?}");
            prop_assert!(plain <= backoff.longest || close(plain, backoff.longest));
        }

        #[test]
        fn no_input_panics(
            first in any::<Duration>(),
            longest in any::<Duration>(),
            failures in any::<u32>(),
            random in any::<f64>(),
        ) {
            let wait = Backoff { first, longest }.wait(failures, random);
            prop_assert!(wait <= longest.saturating_mul(2));
        }
    }
}
