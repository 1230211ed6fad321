//! Says when the board begins to be slowed down, and when that has ended.

use std::time::{Duration, Instant};

use super::SlowedDown;

/// For how long nothing must be slowed down before that is said: near its limit a kernel slows down and lets
/// go again with each look.
const CALM: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct ThrottlingLog {
    is_throttled: bool,
    calm_since: Option<Instant>,
}

impl ThrottlingLog {
    /// `None`, what is not known, neither begins nor ends anything.
    pub fn write(&mut self, throttled: Option<&[SlowedDown]>, now: Instant) {
        if throttled.is_none_or(|slowed| !slowed.is_empty()) {
            self.calm_since = None;
        }
        match throttled {
            Some(slowed @ [_, ..]) if !self.is_throttled => {
                let slowed: Vec<_> = slowed.iter().map(ToString::to_string).collect();
                tracing::warn!(
                    slowed_down = %slowed.join(", "),
                    "the board is throttled: answers may take longer"
                );
                self.is_throttled = true;
            }
            Some([]) if self.is_throttled => {
                let since = *self.calm_since.get_or_insert(now);
                if now.saturating_duration_since(since) >= CALM {
                    tracing::info!("the board is not throttled any more");
                    self.is_throttled = false;
                }
            }
            _ => {}
        }
    }

    #[cfg(test)]
    pub fn is_throttled(&self) -> bool {
        self.is_throttled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::sensors::ThrottleReason;

    #[test]
    fn throttling_begins_at_once_and_ends_when_it_has_been_calm() {
        let slowed = [SlowedDown {
            reason: ThrottleReason::Cooling,
            device: "thermal-cpufreq-0".to_owned(),
            detail: "state 2".to_owned(),
        }];
        let (hot, cool) = (Some(&slowed[..]), Some(&slowed[..0]));
        let begun = Instant::now();
        let mut log = ThrottlingLog::default();
        for (second, told, is_throttled) in [
            (0, None, false),
            (1, hot, true),
            (2, None, true),
            (3, hot, true),
            // It comes and goes.
            (4, cool, true),
            (8, cool, true),
            (9, hot, true),
            (10, cool, true),
            // What is not known is not calm.
            (14, None, true),
            (15, cool, true),
            (19, cool, true),
            (20, cool, false),
            (21, cool, false),
            (22, hot, true),
        ] {
            log.write(told, begun + Duration::from_secs(second));
            assert_eq!(log.is_throttled(), is_throttled, "second {second}");
        }
    }
}
