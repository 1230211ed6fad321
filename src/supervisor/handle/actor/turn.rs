//! A handle's turn: waiting for its worker, and what is answered while there is none or it is idle.

use std::sync::PoisonError;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::{Actor, Stop, Wanted};
use crate::generation::{GenerationError, ModelId};
use crate::ipc::{Command, Event, Question};
use crate::library_calls::{LibraryError, Running, RunningAnswer};
use crate::supervisor::Supervisor;
use crate::supervisor::connection::ConnectionError;
use crate::supervisor::event_loop::{Message, Turn};
use crate::supervisor::handle::Urgent;
use crate::supervisor::handle::exchange::running_answer;
use crate::supervisor::lease::{Lease, WorkerAfter};
use crate::supervisor::loading::GUARD_SLACK;

const NOT_RUNNING: RunningAnswer = RunningAnswer {
    running: false,
    answered_by: Running::Daemon,
};

impl Actor {
    /// Waits for the handle's worker, and attends to what does not wait meanwhile.
    pub(super) async fn obtain(
        &mut self,
        turn: Turn,
        mut wanted: Wanted<'_>,
    ) -> Result<Lease, Stop> {
        let supervisor = self.supervisor.clone();
        let lease = supervisor.lease(self.id.clone(), turn);
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
                biased;
                lease = &mut lease => return lease.map_err(|error| Stop::Failed(self.refused(error))),
                urgent = self.urgent.recv() => match urgent {
                    Some(Urgent::IsRunning { reply }) => {
                        let _ = reply.send(Ok(NOT_RUNNING));
                    }
                    Some(Urgent::Abort { reply }) => {
                        let _ = reply.send(Ok(()));
                        if is_run {
                            return Err(Stop::Unwanted);
                        }
                    }
                    Some(Urgent::Close { reply }) => {
                        self.state.closing.is_closing = true;
                        self.state.closing.replies.push(reply);
                        return Err(Stop::Unwanted);
                    }
                    None => {
                        self.state.closing.is_closing = true;
                        return Err(Stop::Unwanted);
                    }
                },
                () = gone => return Err(Stop::Unwanted),
                () = &mut expired => {
                    return Err(Stop::Failed(GenerationError::QueueDeadline {
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

    /// Asks the library of an idle worker; where none is loaded there is nobody to ask.
    async fn ask_idle(&mut self) -> RunningAnswer {
        let Some(mut lease) = self.supervisor.lease_if_idle(self.id.clone()).await else {
            return NOT_RUNNING;
        };
        let Some(worker) = lease.begin_run() else {
            return NOT_RUNNING;
        };
        self.state.next_id += 1;
        let (id, question) = (self.state.next_id, Question::IsRunning);
        let limit = worker.deadlines.worker.control_call;
        let answered = timeout(limit + GUARD_SLACK, async {
            worker
                .connection
                .send(&Command::Ask { id, question })
                .await?;
            loop {
                match worker.connection.next_event().await? {
                    Event::Called { id: of, result } if of == id => {
                        return Ok(Some(result));
                    }
                    Event::Tainted { .. } => return Ok(None),
                    _ => {}
                }
            }
        });
        let answer: Result<_, ConnectionError> = answered.await.unwrap_or(Ok(None));
        match answer {
            Ok(Some(result)) => {
                lease.run_ended(WorkerAfter::Unproven);
                running_answer(result, false)
            }
            Ok(None) => {
                self.services.metrics.deadline_passed("control-call");
                lease.run_ended(WorkerAfter::Tainted);
                NOT_RUNNING
            }
            // The lease is dropped in the middle, which ends the worker.
            Err(_) => NOT_RUNNING,
        }
    }
}

impl Supervisor {
    async fn lease_if_idle(&self, model: ModelId) -> Option<Lease> {
        let (reply, lease) = oneshot::channel();
        let message = Message::LeaseIfIdle { model, reply };
        self.messages.send(message).ok()?;
        lease.await.ok()?
    }

    /// Closes a handle's slot. What is returned is told when its worker is gone.
    pub(super) async fn closed(&self, id: ModelId) -> Option<oneshot::Receiver<()>> {
        let (done, gone) = oneshot::channel();
        let done = Some(done);
        self.messages.send(Message::CloseHandle { id, done }).ok()?;
        Some(gone)
    }
}
