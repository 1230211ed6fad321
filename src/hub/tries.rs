//! How often, and when, what failed is tried again.

use std::thread;
use std::time::Duration;

use super::{HubAccess, PullError};

const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A client that is to wait longer is told so.
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(60);

/// What a request came to that brought nothing.
pub(super) enum Trouble {
    Final(PullError),
    Again {
        reason: String,
        /// As the hub says.
        wait: Option<Duration>,
        /// It has too much to do.
        is_busy: bool,
    },
}

impl Trouble {
    pub fn again(reason: impl Into<String>) -> Self {
        Self::Again {
            reason: reason.into(),
            wait: None,
            is_busy: false,
        }
    }
}

impl From<PullError> for Trouble {
    fn from(error: PullError) -> Self {
        Self::Final(error)
    }
}

/// Tries in a row that bring nothing.
pub(super) struct Tries<'a> {
    hub: &'a HubAccess,
    doing: String,
    tries: u32,
}

impl<'a> Tries<'a> {
    pub fn new(hub: &'a HubAccess, doing: String) -> Self {
        let tries = 0;
        Self { hub, doing, tries }
    }

    /// Something was brought.
    pub fn succeed(&mut self) {
        self.tries = 0;
    }

    /// Waits before the next one.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn wait(&mut self, trouble: Trouble) -> Result<(), PullError> {
        let (reason, asked, is_busy) = match trouble {
            Trouble::Final(error) => return Err(error),
            Trouble::Again {
                reason,
                wait,
                is_busy,
            } => (reason, wait, is_busy),
        };
        self.tries += 1;
        let is_too_long = asked.is_some_and(|wait| wait > LONGEST_ASKED_WAIT);
        if self.tries >= self.hub.max_tries || is_too_long {
            return Err(match is_busy {
                true => PullError::Busy { retry_after: asked },
                false => PullError::Network {
                    doing: self.doing.clone(),
                    tries: self.tries,
                    reason,
                },
            });
        }
        let doubled = 1u32.checked_shl(self.tries - 1).unwrap_or(u32::MAX);
        let own = self
            .hub
            .retry_wait
            .saturating_mul(doubled)
            .min(LONGEST_WAIT);
        thread::sleep(asked.unwrap_or(own).max(own));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Job;
    use crate::settings::Settings;

    fn hub(max_tries: u32) -> HubAccess {
        let mut settings = Settings::default();
        settings.hub.max_tries = max_tries;
        settings.hub.retry_wait = Duration::ZERO;
        Job::new("a/b", &settings).hub
    }

    fn busy(seconds: u64) -> Trouble {
        Trouble::Again {
            reason: "busy".to_owned(),
            wait: Some(Duration::from_secs(seconds)),
            is_busy: true,
        }
    }

    #[test]
    fn they_end_unless_one_brings_something() {
        let hub = hub(3);
        let mut tries = Tries::new(&hub, "asking".to_owned());
        for _ in 0..3 {
            assert_eq!(tries.wait(Trouble::again("cut")), Ok(()));
            assert_eq!(tries.wait(Trouble::again("cut")), Ok(()));
            tries.succeed();
        }
        assert_eq!(tries.wait(busy(0)), Ok(()));
        assert_eq!(tries.wait(busy(0)), Ok(()));
        let ended = PullError::Network {
            doing: "asking".to_owned(),
            tries: 3,
            reason: "cut".to_owned(),
        };
        assert_eq!(tries.wait(Trouble::again("cut")), Err(ended));
    }

    #[test]
    fn what_is_final_or_would_take_too_long_is_told_at_once() {
        let hub = hub(100);
        let mut tries = Tries::new(&hub, "asking".to_owned());
        let offline = Trouble::Final(PullError::Offline);
        assert_eq!(tries.wait(offline), Err(PullError::Offline));
        let retry_after = Some(Duration::from_secs(3600));
        assert_eq!(tries.wait(busy(3600)), Err(PullError::Busy { retry_after }));
    }
}
