//! How much of a prompt is evaluated in one step: as much as is predicted to hold up others for no more
//! than a moment, by what steps were measured to take. Others are the runs that wait for theirs, and,
//! beside a run that is alone, calls on other handles that want the context between two steps.

use std::time::Duration;

use crate::rounding::MANY;

/// What a step may take while other runs wait for it.
pub(crate) const BESIDE_OTHERS: Duration = Duration::from_millis(60);
/// What a step may take while no other run does.
pub(crate) const ALONE: Duration = Duration::from_millis(500);
/// The weight of a new measurement.
const NEW: f64 = 0.25;

#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Seconds for a token of a prompt.
    token: Option<f64>,
}

impl Pace {
    /// Tokens that a step of so long has time for, a multiple of `MANY`; no less.
    pub(crate) fn tokens(&self, step: Duration) -> usize {
        let each = self.token.unwrap_or(f64::INFINITY);
        let tokens = (step.as_secs_f64() / each) as usize;
        (tokens / MANY * MANY).max(MANY)
    }

    /// A step with so many tokens of a prompt took `wall`.
    pub(crate) fn measured(&mut self, tokens: usize, wall: Duration) {
        if tokens >= MANY {
            let each = wall.as_secs_f64() / tokens as f64;
            let known = self.token.get_or_insert(each);
            *known += (each - *known) * NEW;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_time_for_what_it_was_measured_to_take() {
        let mut pace = Pace::default();
        assert_eq!(pace.tokens(BESIDE_OTHERS), 64, "nothing is known");
        assert_eq!(pace.tokens(ALONE), 64, "nothing is known");
        pace.measured(320, Duration::from_millis(96));
        // 60 ms and 500 ms at 0.3 ms.
        assert_eq!(pace.tokens(BESIDE_OTHERS), 192);
        assert_eq!(pace.tokens(ALONE), 1664);
        pace.measured(63, Duration::from_secs(9));
        assert_eq!(pace.tokens(BESIDE_OTHERS), 192, "too little to be measured");
        for _ in 0..40 {
            pace.measured(64, Duration::from_secs(5));
        }
        assert_eq!(pace.tokens(BESIDE_OTHERS), 64, "however long that takes");
        assert_eq!(pace.tokens(ALONE), 64, "also alone");
    }
}
