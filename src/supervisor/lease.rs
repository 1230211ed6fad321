//! The exclusive right to use a loaded worker. A lease that is dropped gives its worker back, or,
//! when a run was left unfinished, kills it: a worker in an unknown state is never reused.

use tokio::sync::mpsc;

use super::event_loop::Message;
use super::exit_report::EndReason;
use super::loading::Worker;

/// What became of a worker that is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerAfter {
    /// It has answered a request whole.
    Answered,
    /// It was not used, or not to the end.
    Unproven,
    /// It must not be used again.
    Tainted,
}

#[derive(Debug)]
pub struct Lease {
    /// `None` only once the worker was given back.
    worker: Option<Box<Worker>>,
    in_run: bool,
    after: WorkerAfter,
    end_reason: EndReason,
    home: mpsc::UnboundedSender<Message>,
}

impl Lease {
    pub(super) fn new(worker: Box<Worker>, home: mpsc::UnboundedSender<Message>) -> Self {
        Self {
            worker: Some(worker),
            in_run: false,
            after: WorkerAfter::Unproven,
            end_reason: EndReason::Cancelled,
            home,
        }
    }

    /// The worker, from now on counted as busy until `run_ended`.
    pub(super) fn begin_run(&mut self) -> Option<&mut Worker> {
        self.in_run = true;
        self.worker.as_deref_mut()
    }

    pub(super) fn run_ended(&mut self, after: WorkerAfter) {
        self.in_run = false;
        self.after = after;
    }

    /// Whether it can be used for another run.
    pub fn may_go_on(&self) -> bool {
        self.worker.is_some() && !self.in_run && self.after != WorkerAfter::Tainted
    }

    /// Why the worker will have been killed, if it is.
    pub(super) fn blame(&mut self, reason: EndReason) {
        self.end_reason = reason;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(worker) = self.worker.take() else {
            return;
        };
        let message = if self.in_run {
            worker.process.kill(self.end_reason);
            Message::Lost {
                model: worker.model.id.clone(),
                pid: worker.process.pid,
            }
        } else {
            worker.process.set_activity(None, None);
            let after = self.after;
            Message::Returned { worker, after }
        };
        // Without a supervisor the message is dropped, and with it the worker, which kills it.
        let _ = self.home.send(message);
    }
}
