//! The exclusive right to use a loaded worker. A lease that is dropped gives its worker back, or,
//! when a run was left unfinished, kills it: a worker in an unknown state is never reused.

use tokio::sync::mpsc;

use super::event_loop::Message;
use super::loading::Worker;

#[derive(Debug)]
pub struct Lease {
    /// `None` only once the worker was given back.
    worker: Option<Box<Worker>>,
    in_run: bool,
    home: mpsc::UnboundedSender<Message>,
}

impl Lease {
    pub(super) fn new(worker: Box<Worker>, home: mpsc::UnboundedSender<Message>) -> Self {
        Self {
            worker: Some(worker),
            in_run: false,
            home,
        }
    }

    /// The worker, from now on counted as busy until `run_ended`.
    pub(super) fn begin_run(&mut self) -> Option<&mut Worker> {
        self.in_run = true;
        self.worker.as_deref_mut()
    }

    pub(super) fn run_ended(&mut self) {
        self.in_run = false;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(worker) = self.worker.take() else {
            return;
        };
        let message = if self.in_run {
            worker.process.kill();
            Message::Lost {
                model: worker.model.id.clone(),
                pid: worker.process.pid,
            }
        } else {
            Message::Returned { worker }
        };
        // Without a supervisor the message is dropped, and with it the worker, which kills it.
        let _ = self.home.send(message);
    }
}
