//! Who waits for an instance's model: requests, and the wish that it be loaded, which no request has.

use super::Instance;
use crate::generation::GenerationError;
use crate::supervisor::waiter::Waiter;

impl Instance {
    pub fn forget_gone_waiters(&mut self) {
        self.waiters.retain(|waiter| {
            waiter
                .request
                .as_ref()
                .is_none_or(|it| !it.reply.is_closed())
        });
    }

    /// Asks for the model to be loaded again when it can be and no other model needs the place.
    pub fn want_loaded(&mut self) {
        if self.waiters.is_empty() {
            let sequence = u64::MAX;
            self.waiters.push_back(Waiter {
                sequence,
                request: None,
            });
        }
    }

    /// Likewise after a worker was ended on purpose, unless its model has gone.
    pub fn bring_back(&mut self) {
        if !self.removed {
            self.want_loaded();
        }
    }

    /// Asks for the model before all others: the request that has lost its worker is about to, and
    /// until then no other model may take the place.
    pub fn keep_place(&mut self) {
        self.waiters.push_front(Waiter {
            sequence: 0,
            request: None,
        });
    }

    /// Preloads stay: they are tried again.
    pub fn fail_waiters(&mut self, error: impl Fn() -> GenerationError) {
        for waiter in std::mem::take(&mut self.waiters) {
            match waiter.request {
                Some(request) => drop(request.reply.send(Err(error()))),
                None => self.waiters.push_back(waiter),
            }
        }
    }
}
