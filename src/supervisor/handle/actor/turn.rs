//! A handle's turn: waiting for its worker, and what is answered while there is none or it is idle.

use std::sync::PoisonError;

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::{Actor, NoLease, Wanted};
use crate::generation::{Deadline, GenerationError, ModelId};
use crate::ipc::SlotCommand;
use crate::library_calls::{LibraryError, Running, RunningAnswer};
use crate::supervisor::Supervisor;
use crate::supervisor::drive::{Ended, Limits, Outer, OwnCall, drive};
use crate::supervisor::event_loop::{Message, QueueEnd};
use crate::supervisor::handle::Urgent;
use crate::supervisor::handle::beside::{IS_RUNNING, next_question, running_answer};
use crate::supervisor::lease::Lease;

const NOT_RUNNING: RunningAnswer = RunningAnswer {
    running: false,
    answered_by: Running::Daemon,
};

impl Actor {
    /// Waits for the handle's worker, and attends to what does not wait meanwhile.
    pub(super) async fn obtain(
        &mut self,
        queue_end: QueueEnd,
        mut wanted: Wanted<'_>,
    ) -> Result<Lease, NoLease> {
        let supervisor = self.supervisor.clone();
        let lease = supervisor.lease(self.client.clone(), self.id.clone(), queue_end);
        let limit = self.services.queue_deadline();
        let expired = sleep(limit);
        tokio::pin!(lease, expired);
        loop {
            let is_run = matches!(wanted, Wanted::Run(_));
            let gone = async {
                match &mut wanted {
                    Wanted::Run(events) => events.closed().await,
                    Wanted::Call(reply) => reply.closed().await,
                    Wanted::Always => std::future::pending().await,
                }
            };
            tokio::select! {
                // What its client does not wait for any more is over before its turn can come, and before anything that was
                // asked later is answered.
                biased;
                () = gone => return Err(NoLease::Unwanted),
                lease = &mut lease => return lease.map_err(|error| NoLease::Failed(self.refused(error))),
                urgent = self.urgent.recv() => match urgent {
                    Some(Urgent::IsRunning { reply }) => {
                        let _ = reply.send(Ok(NOT_RUNNING));
                    }
                    Some(Urgent::Abort { reply }) => {
                        let _ = reply.send(Ok(()));
                        if is_run {
                            self.state.closing.is_aborted = true;
                            return Err(NoLease::Unwanted);
                        }
                    }
                    Some(Urgent::Close { reply }) => {
                        self.state.closing.is_closing = true;
                        self.state.closing.replies.push(reply);
                        return Err(NoLease::Unwanted);
                    }
                    None => {
                        self.state.closing.is_closing = true;
                        return Err(NoLease::Unwanted);
                    }
                },
                () = &mut expired => {
                    return Err(NoLease::Failed(GenerationError::QueueDeadline {
                        model: self.order.model.to_string(),
                        waited: limit,
                    }.into()));
                }
            }
        }
    }

    /// A refusal in the words of the client: of its model, and with the library's own reason.
    fn refused(&self, error: GenerationError) -> LibraryError {
        let told = &self.order.failure;
        let told = told.lock().unwrap_or_else(PoisonError::into_inner).take();
        match error {
            GenerationError::ModelUnavailable {
                reason,
                retry_after,
                ..
            } => match told {
                Some(failure) => failure.into_error(Some(reason)),
                None => LibraryError::Unavailable(GenerationError::ModelUnavailable {
                    model: self.order.model.to_string(),
                    reason,
                    retry_after,
                }),
            },
            other => LibraryError::Unavailable(other),
        }
    }

    /// Serves what does not wait while nothing else is going on.
    pub(super) async fn attend_idle(&mut self, urgent: Option<Urgent>) {
        match urgent {
            Some(Urgent::IsRunning { reply }) => {
                let answer = self.ask_idle().await;
                let _ = reply.send(Ok(answer));
            }
            Some(Urgent::Abort { reply }) => {
                let _ = reply.send(Ok(()));
            }
            Some(Urgent::Close { reply }) => {
                self.state.closing.is_closing = true;
                self.state.closing.replies.push(reply);
            }
            None => self.state.closing.is_closing = true,
        }
    }

    /// Asks the library of an idle worker; where none is loaded the answer is known.
    async fn ask_idle(&mut self) -> RunningAnswer {
        let Some(lease) = self.supervisor.lease_if_idle(self.id.clone()).await else {
            return NOT_RUNNING;
        };
        let (id, question) = next_question();
        let limits = Limits {
            first: (
                Deadline::ControlCall,
                lease.worker().deadlines.worker.control_call,
            ),
            outer: Outer::default(),
            request: None,
            metrics: &self.services.metrics,
        };
        let mut sink = OwnCall {
            id,
            function: IS_RUNNING,
        };
        let command = SlotCommand::Ask { id, question };
        let Ended::Over(over) = drive(lease, command, &mut sink, limits).await else {
            return NOT_RUNNING;
        };
        let after = over.after(false);
        let answer = over.end;
        over.running.ended(after);
        answer.map_or(NOT_RUNNING, |answer| running_answer(answer, false))
    }
}

impl Supervisor {
    /// A slot of its worker, where it has one that nothing uses.
    pub(in crate::supervisor) async fn lease_if_idle(&self, model: ModelId) -> Option<Lease> {
        let (reply, lease) = oneshot::channel();
        let message = Message::LeaseIfIdle { model, reply };
        self.messages.send(message).ok()?;
        lease.await.ok()?
    }

    /// Closes a handle's instance. What is returned is told when its worker is gone.
    pub(super) async fn closed(&self, id: ModelId) -> Option<oneshot::Receiver<()>> {
        let (done, gone) = oneshot::channel();
        let done = Some(done);
        self.messages.send(Message::CloseHandle { id, done }).ok()?;
        Some(gone)
    }
}
