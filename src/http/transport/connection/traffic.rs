//! What a connection knows of its requests without looking into them: how many began, whether one is
//! being served, and whether that one ends with its client.

use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::task::AtomicWaker;

/// One connection's. The connection's task writes `arrived`; requests do the rest, wherever they are
/// dropped.
#[derive(Default)]
pub(super) struct Traffic {
    /// Bytes read from the client.
    arrived: AtomicU64,
    /// Requests whose header was whole.
    begun: AtomicU64,
    /// Requests that are being served.
    open: AtomicUsize,
    /// Those of them that end when their client leaves.
    bound: AtomicIsize,
    /// Number of the last request that is to be dropped, whether or not its client reads; 0: none is.
    given_up: AtomicU64,
    other_protocol: OnceLock<Protocol>,
    /// Whether the last request was read to its end.
    body_whole: AtomicBool,
    /// The connection's task.
    pub task: AtomicWaker,
}

/// What was true at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub arrived: u64,
    pub begun: u64,
    pub serving: bool,
    pub bound: bool,
}

/// What is spoken where HTTP/1 is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// From the beginning.
    Http2,
    /// What an answer has agreed to.
    Upgraded,
}

impl Traffic {
    pub fn arrived(&self, bytes: usize) {
        self.arrived.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub fn body_is_whole(&self, whole: bool) {
        self.body_whole.store(whole, Ordering::Relaxed);
    }

    pub fn has_whole_body(&self) -> bool {
        self.body_whole.load(Ordering::Relaxed)
    }

    pub fn speaks(&self, other: Protocol) {
        let _ = self.other_protocol.set(other);
    }

    /// Whether the request that began last is to be dropped.
    pub fn is_given_up(&self) -> bool {
        let given_up = self.given_up.load(Ordering::Acquire);
        given_up != 0 && given_up == self.begun.load(Ordering::Relaxed)
    }

    pub fn other_protocol(&self) -> Option<Protocol> {
        self.other_protocol.get().copied()
    }

    pub fn seen(&self) -> Seen {
        Seen {
            arrived: self.arrived.load(Ordering::Relaxed),
            begun: self.begun.load(Ordering::Relaxed),
            serving: self.open.load(Ordering::Acquire) > 0,
            bound: self.bound.load(Ordering::Acquire) > 0,
        }
    }
}

/// Held by each request that is being served on a connection.
pub(crate) struct InFlight(ClientBound);

/// Lets a request say that it has no reader once its client has left. Clones mean the same request.
#[derive(Clone)]
pub(crate) struct ClientBound {
    traffic: Arc<Traffic>,
    /// Among the connection's requests, from 1.
    number: u64,
    state: Arc<AtomicU8>,
}

const FREE: u8 = 0;
const BOUND: u8 = 1;
const OVER: u8 = 2;

impl ClientBound {
    /// From now on the request is dropped when its client has closed its sending side.
    pub fn bind(&self) {
        // Counted first: the end of the request takes off what it finds bound.
        self.traffic.bound.fetch_add(1, Ordering::AcqRel);
        let bound = self
            .state
            .compare_exchange(FREE, BOUND, Ordering::AcqRel, Ordering::Acquire);
        if bound.is_err() {
            self.traffic.bound.fetch_sub(1, Ordering::AcqRel);
        }
        self.traffic.task.wake();
    }

    /// The request is dropped now, and its connection with it, unless it has ended.
    pub fn give_up(&self) {
        self.traffic
            .given_up
            .fetch_max(self.number, Ordering::AcqRel);
        self.traffic.task.wake();
    }
}

impl InFlight {
    pub(super) fn new(traffic: &Arc<Traffic>) -> Self {
        let before = traffic.begun.fetch_add(1, Ordering::Relaxed);
        traffic.open.fetch_add(1, Ordering::AcqRel);
        Self(ClientBound {
            traffic: Arc::clone(traffic),
            number: before + 1,
            state: Arc::default(),
        })
    }

    /// Of a request that goes on without its connection.
    pub fn without_connection() -> Self {
        Self::new(&Arc::default())
    }

    pub fn client_bound(&self) -> &ClientBound {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let traffic = &self.0.traffic;
        if self.0.state.swap(OVER, Ordering::AcqRel) == BOUND {
            traffic.bound.fetch_sub(1, Ordering::AcqRel);
        }
        traffic.open.fetch_sub(1, Ordering::AcqRel);
        traffic.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_bound_once_and_not_after_its_end() {
        let traffic = Arc::new(Traffic::default());
        let first = InFlight::new(&traffic);
        let bound = first.client_bound().clone();
        assert!(traffic.seen().serving && !traffic.seen().bound);
        bound.bind();
        bound.bind();
        assert!(traffic.seen().bound);
        let second = InFlight::new(&traffic);
        drop(first);
        assert!(traffic.seen().serving && !traffic.seen().bound);
        bound.bind();
        assert!(!traffic.seen().bound, "the first is over");
        drop(second);
        let seen = traffic.seen();
        assert_eq!((seen.serving, seen.begun), (false, 2));
    }

    #[test]
    fn a_request_that_is_given_up_late_drops_no_later_one() {
        let traffic = Arc::new(Traffic::default());
        assert!(!traffic.is_given_up());
        let first = InFlight::new(&traffic);
        let late = first.client_bound().clone();
        let second = InFlight::new(&traffic);
        drop(first);
        late.give_up();
        assert!(!traffic.is_given_up());
        second.client_bound().give_up();
        // Nor does the end of an earlier one save it.
        late.give_up();
        assert!(traffic.is_given_up());
        drop(second);
        let _third = InFlight::new(&traffic);
        assert!(!traffic.is_given_up());
    }
}
