//! The calls that were given to the control thread and have not come back. One that hangs takes the
//! thread with it: from then on none is made any more.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::time::Instant;

use super::control_thread::ControlCall;
use super::timing::ControlTimes;

#[derive(Default)]
pub struct ControlCalls {
    /// `None`: there is no model yet, or the thread hangs.
    thread: Option<Sender<ControlCall>>,
    /// The first is being made, the others wait for it.
    outstanding: VecDeque<ControlCall>,
    /// When the first one's turn came.
    since: Option<Instant>,
}

impl ControlCalls {
    pub fn on_thread(thread: Sender<ControlCall>) -> Self {
        Self {
            thread: Some(thread),
            ..Self::default()
        }
    }

    /// Whether a call could be made now.
    pub fn can_be_made(&self) -> bool {
        self.thread.is_some()
    }

    /// Returns whether there will be an answer, or an expiry.
    pub fn make(&mut self, call: ControlCall) -> bool {
        let sent = self
            .thread
            .as_ref()
            .is_some_and(|thread| thread.send(call).is_ok());
        if sent {
            self.since.get_or_insert_with(Instant::now);
            self.outstanding.push_back(call);
        }
        sent
    }

    pub fn replied(&mut self, call: ControlCall) {
        // Of a call that was given up the answer may still come.
        if self.outstanding.front() == Some(&call) {
            self.outstanding.pop_front();
            self.since = (!self.outstanding.is_empty()).then(Instant::now);
        }
    }

    /// The first call hangs: none of these will be answered and no other is made.
    pub fn give_up(&mut self) {
        *self = Self::default();
    }

    pub fn is_outstanding(&self, call: ControlCall) -> bool {
        self.outstanding.contains(&call)
    }

    /// The call that is being made.
    pub fn current(&self) -> Option<ControlTimes> {
        Some(ControlTimes {
            call: *self.outstanding.front()?,
            since: self.since?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const ABORT: ControlCall = ControlCall::Abort { run: 1 };
    const NEXT_ABORT: ControlCall = ControlCall::Abort { run: 2 };

    #[test]
    fn a_call_is_timed_from_its_turn_on() {
        let (thread, _queue) = channel();
        let mut calls = ControlCalls::on_thread(thread);
        assert!(calls.make(ABORT) && calls.make(NEXT_ABORT));
        let first = calls.current().expect("a call");
        assert_eq!(first.call, ABORT);
        let before_reply = Instant::now();
        calls.replied(ABORT);
        let second = calls.current().expect("a call");
        assert_eq!(second.call, NEXT_ABORT);
        assert!(second.since >= before_reply);
        calls.replied(NEXT_ABORT);
        assert!(calls.current().is_none());
    }

    #[test]
    fn after_a_hang_nothing_is_waited_for_and_no_call_is_made() {
        let (thread, queue) = channel();
        let mut calls = ControlCalls::on_thread(thread);
        calls.make(ABORT);
        calls.give_up();
        assert!(calls.current().is_none() && !calls.can_be_made());
        assert!(!calls.make(NEXT_ABORT));
        assert_eq!(queue.iter().collect::<Vec<_>>(), [ABORT]);
        calls.replied(ABORT);
        assert!(calls.current().is_none());
    }
}
