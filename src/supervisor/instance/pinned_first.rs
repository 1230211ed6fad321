//! After a load the prompts that its model pins come before requests, which find them in the slots then; a
//! request waits for that as long as a setting says, and one whose run was interrupted not at all.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Instance;

/// While pinned prompts are brought into the slots of a worker that has just loaded its model.
pub(super) struct PinnedFirst {
    /// Becomes true when requests go first.
    is_over: watch::Sender<bool>,
    limit: Duration,
    /// Since when a request waits for it.
    waited_since: Option<Instant>,
}

impl Instance {
    /// `limit`: how long a request waits for it.
    pub fn begin_pinned_first(&mut self, limit: Duration) {
        let pins = !self.model.pinned_prompts().is_empty();
        self.pinned_first = (pins && self.handle.is_none() && !limit.is_zero()).then(|| {
            let is_over = watch::Sender::new(false);
            PinnedFirst {
                is_over,
                limit,
                waited_since: None,
            }
        });
    }

    /// Tells whoever pins when requests go first; `None`: they do by now.
    pub fn pinned_first(&self) -> Option<watch::Receiver<bool>> {
        Some(self.pinned_first.as_ref()?.is_over.subscribe())
    }

    pub fn end_pinned_first(&mut self) {
        if let Some(ended) = self.pinned_first.take() {
            ended.is_over.send_replace(true);
        }
    }

    /// Ends it where a request has waited for long enough.
    pub fn consider_pinned_first(&mut self, now: Instant) {
        let waits = self.is_held_back();
        let Some(first) = &mut self.pinned_first else {
            return;
        };
        let since = first.waited_since.unwrap_or(now);
        first.waited_since = waits.then_some(since);
        let limit = first.limit;
        let is_over = self.pinned_first_until().is_some_and(|until| until <= now);
        if is_over {
            tracing::info!(
                model = &**self.model_id(),
                waited_s = limit.as_secs_f64(),
                "requests go before prompts that their model pins, which are not all in its slots yet"
            );
        }
        if is_over || self.unload_wanted {
            self.end_pinned_first();
        }
    }

    /// Until when requests wait for it, if any does.
    pub fn pinned_first_until(&self) -> Option<Instant> {
        let first = self.pinned_first.as_ref()?;
        Some(first.waited_since? + first.limit)
    }

    /// Whether the first waiter is a request that comes behind it.
    pub(super) fn is_held_back(&self) -> bool {
        let waiter = self.waiters.front();
        self.pinned_first.is_some()
            && waiter.is_some_and(|waiter| waiter.request.is_some() && waiter.sequence > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;
    use crate::generation::ClientKey;
    use crate::supervisor::backoff::Backoff;
    use crate::supervisor::lifecycle::RestartPolicy;
    use crate::supervisor::waiter::{LeaseRequest, Waiter, Wish};

    const LIMIT: Duration = Duration::from_secs(20);

    fn instance() -> Instance {
        let policy = RestartPolicy {
            backoff: Backoff {
                first: Duration::from_secs(1),
                longest: Duration::from_secs(1),
            },
            healthy_after: Duration::from_secs(1),
        };
        let mut instance = Instance::new(Arc::default(), policy);
        instance.pinned_first = Some(PinnedFirst {
            is_over: watch::Sender::new(false),
            limit: LIMIT,
            waited_since: None,
        });
        instance
    }

    fn request(sequence: u64) -> Waiter {
        let request = LeaseRequest {
            client: ClientKey::new("a client"),
            alone: false,
            wish: Wish::default(),
            reply: oneshot::channel().0,
        };
        Waiter {
            sequence,
            request: Some(request),
        }
    }

    #[test]
    fn a_model_that_pins_nothing_holds_nothing_back() {
        let mut instance = instance();
        instance.begin_pinned_first(LIMIT);
        instance.waiters.push_back(request(1));
        assert!(!instance.is_held_back());
        assert!(instance.pinned_first().is_none());
    }

    #[test]
    fn a_request_waits_as_long_as_the_limit_says_and_not_before_it_came() {
        let (mut instance, begun) = (instance(), Instant::now());
        let is_over = instance.pinned_first().unwrap();
        instance.consider_pinned_first(begun);
        assert_eq!(instance.pinned_first_until(), None);
        let came = begun + 10 * LIMIT;
        instance.waiters.push_back(request(1));
        assert!(instance.is_held_back());
        instance.consider_pinned_first(came);
        assert_eq!(instance.pinned_first_until(), Some(came + LIMIT));
        // Another one that comes later has the same end.
        instance.waiters.push_back(request(2));
        instance.consider_pinned_first(came + LIMIT / 2);
        assert!(instance.is_held_back() && !*is_over.borrow());
        instance.consider_pinned_first(came + LIMIT);
        assert!(!instance.is_held_back() && *is_over.borrow());
        assert_eq!(instance.pinned_first_until(), None);
    }

    #[test]
    fn who_has_left_has_waited_for_nothing() {
        let (mut instance, begun) = (instance(), Instant::now());
        instance.waiters.push_back(request(1));
        instance.consider_pinned_first(begun);
        instance.waiters.clear();
        instance.consider_pinned_first(begun + LIMIT);
        assert!(instance.pinned_first().is_some());
        instance.waiters.push_back(request(2));
        instance.consider_pinned_first(begun + LIMIT);
        assert_eq!(instance.pinned_first_until(), Some(begun + 2 * LIMIT));
    }

    #[test]
    fn an_interrupted_run_goes_on_before_it() {
        let mut instance = instance();
        instance.waiters.push_front(request(0));
        assert!(!instance.is_held_back());
        instance.consider_pinned_first(Instant::now());
        assert_eq!(instance.pinned_first_until(), None);
        assert!(instance.pinned_first().is_some());
    }

    #[test]
    fn a_model_that_is_to_go_waits_for_none_of_it() {
        let mut instance = instance();
        instance.unload_wanted = true;
        instance.consider_pinned_first(Instant::now());
        assert!(instance.pinned_first().is_none());
    }
}
