use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Notices silence with one timer that is set anew when it fires, not with every token.
pub(crate) struct Silence {
    limit: Duration,
    last_sound: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Silence {
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            last_sound: Instant::now(),
            timer: Box::pin(tokio::time::sleep(limit)),
        }
    }

    pub fn broken(&mut self) {
        self.last_sound = Instant::now();
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let due = self.last_sound + self.limit;
            if due <= now {
                self.timer.as_mut().reset(now + self.limit);
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}
