//! After a load the prompts that its model pins come before requests, which find them in the slots then; a
//! request waits for that as long as a setting says, and one whose run was interrupted not at all. Where that
//! time or the worker ends before they are all there, no request waits for them again until they have been.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Instance;
use crate::supervisor::waiter::Waiter;

/// While pinned prompts are brought into the slots of a worker that has just loaded its model.
pub(super) struct PinnedFirst {
    /// Becomes true when what is being pinned is to be cut short for a request. Dropped, it only ends.
    cut_short: watch::Sender<bool>,
    limit: Duration,
    /// Since when a request waits for it.
    waited_since: Option<Instant>,
}

impl Instance {
    /// `limit`: how long a request waits for it.
    pub fn begin_pinned_first(&mut self, limit: Duration) {
        let pins = !self.model.pinned_prompts().is_empty();
        let begins = pins && self.handle.is_none() && !limit.is_zero() && !self.pins_later;
        self.pinned_first = begins.then(|| PinnedFirst {
            cut_short: watch::Sender::new(false),
            limit,
            waited_since: None,
        });
    }

    /// Tells the pinning when to cut it short; `None`: requests go first by now.
    pub fn pinned_first(&self) -> Option<watch::Receiver<bool>> {
        Some(self.pinned_first.as_ref()?.cut_short.subscribe())
    }

    /// Requests go first from now on; what is being pinned goes on.
    pub fn end_pinned_first(&mut self) {
        self.pinned_first = None;
    }

    /// All is tried, and `is_all` of it there.
    pub fn is_pinned_by_now(&mut self, is_all: bool) {
        self.end_pinned_first();
        self.pins_later &= !is_all;
    }

    /// The worker has ended. If that was amid the pinning, the next one would hold requests back for the same end.
    pub(super) fn worker_ended_pinning(&mut self) {
        self.pins_later |= self.pinned_first.is_some() && !self.is_unloading;
        self.end_pinned_first();
    }

    /// Ends it where a request has waited for long enough.
    pub fn consider_pinned_first(&mut self, now: Instant) {
        let waits = self.first_request().is_some();
        let Some(first) = &mut self.pinned_first else {
            return;
        };
        let since = first.waited_since.unwrap_or(now);
        first.waited_since = waits.then_some(since);
        let limit = first.limit;
        let is_over = self.pinned_first_until().is_some_and(|until| until <= now);
        if is_over {
            self.pins_later = true;
            tracing::info!(
                model = &**self.model_id(),
                waited_s = limit.as_secs_f64(),
                "requests go before prompts that their model pins, which are not all in its slots yet"
            );
        }
        if (is_over || self.unload_wanted)
            && let Some(ended) = self.pinned_first.take()
        {
            ended.cut_short.send_replace(true);
        }
    }

    /// Until when requests wait for it, if any does.
    pub fn pinned_first_until(&self) -> Option<Instant> {
        let first = self.pinned_first.as_ref()?;
        Some(first.waited_since? + first.limit)
    }

    /// Whether the first request that waits comes behind it.
    pub(super) fn is_held_back(&self) -> bool {
        let first = self.first_request();
        self.pinned_first.is_some() && first.is_some_and(|waiter| waiter.sequence > 0)
    }

    fn first_request(&self) -> Option<&Waiter> {
        let mut requests = self.waiters.iter();
        requests.find(|waiter| waiter.request.is_some())
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
            cut_short: watch::Sender::new(false),
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
        let cut_short = instance.pinned_first().unwrap();
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
        assert!(instance.is_held_back() && !*cut_short.borrow());
        instance.consider_pinned_first(came + LIMIT);
        assert!(!instance.is_held_back() && *cut_short.borrow());
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
        // Where what is being pinned has the slot, that is cut short for it as for any other.
        let came = Instant::now();
        instance.consider_pinned_first(came);
        assert_eq!(instance.pinned_first_until(), Some(came + LIMIT));
    }

    #[test]
    fn a_preload_hides_no_request_that_waits_behind_it() {
        let (mut instance, came) = (instance(), Instant::now());
        instance.waiters.push_back(Waiter {
            sequence: 1,
            request: None,
        });
        instance.consider_pinned_first(came);
        assert!(!instance.is_held_back());
        assert_eq!(instance.pinned_first_until(), None);
        instance.waiters.push_back(request(2));
        instance.consider_pinned_first(came);
        assert!(instance.is_held_back());
        assert_eq!(instance.pinned_first_until(), Some(came + LIMIT));
    }

    #[test]
    fn what_was_given_up_once_holds_nothing_back_until_it_is_there() {
        let mut late = instance();
        late.waiters.push_back(request(1));
        let came = Instant::now();
        late.consider_pinned_first(came);
        late.consider_pinned_first(came + LIMIT);
        let mut dead = instance();
        let cut_short = dead.pinned_first().unwrap();
        dead.worker_ended_pinning();
        // The pinning finds out by itself whose fault the end was.
        assert!(!*cut_short.borrow());
        for mut instance in [late, dead] {
            assert!(instance.pins_later && instance.pinned_first().is_none());
            instance.is_pinned_by_now(false);
            assert!(instance.pins_later);
            instance.is_pinned_by_now(true);
            assert!(!instance.pins_later);
        }
        let mut unloaded = instance();
        unloaded.is_unloading = true;
        unloaded.worker_ended_pinning();
        assert!(!unloaded.pins_later && unloaded.pinned_first().is_none());
    }

    #[test]
    fn a_model_that_is_to_go_waits_for_none_of_it() {
        let mut instance = instance();
        instance.unload_wanted = true;
        instance.consider_pinned_first(Instant::now());
        assert!(instance.pinned_first().is_none());
    }
}
