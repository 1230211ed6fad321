//! A handle's calls: made on its worker, after those that a new worker must be told again.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::oneshot;

use super::known::Known;
use super::{Actor, NoLease, Wanted, explained};
use crate::apart::{self, Subject};
use crate::generation::Deadline;
use crate::ipc::{CallReply, CallSpec, SlotCommand};
use crate::library_calls::{Call, LibraryError, Outcome};
use crate::memory::Charge;
use crate::supervisor::attempts::Attempts;
use crate::supervisor::drive::{Ended, Limits, Loss, Outer, drive, not_sent};
use crate::supervisor::event_loop::QueueEnd;
use crate::supervisor::handle::Replied;
use crate::supervisor::handle::beside::{Beside, CallSink};
use crate::supervisor::handle::state_folder::StateFolder;
use crate::supervisor::lease::{Lease, WorkerAfter};

/// A disk that takes longer to tell what is on it hangs.
const DISK_LIMIT: Duration = Duration::from_secs(10);

impl Actor {
    pub(super) async fn call(
        &mut self,
        (call, charge): (Call, Option<Charge>),
        reply: &mut oneshot::Sender<Result<Replied<Outcome>, LibraryError>>,
    ) -> Result<Outcome, LibraryError> {
        let call = self.resolve(call).await?;
        let mut attempts = Attempts::default();
        let mut queue_end = QueueEnd::Back;
        loop {
            let lease = match self.obtain(queue_end, Wanted::Call(reply)).await {
                Ok(lease) => lease,
                Err(NoLease::Failed(error)) => return Err(error),
                Err(NoLease::Unwanted) => return Err(LibraryError::Closed),
            };
            let loss = match self.call_on(lease, &call).await {
                Ok(made) => {
                    if made.is_ok() {
                        self.state.journal.record(call, charge);
                    }
                    return made;
                }
                Err(loss) => loss,
            };
            let may_repeat = attempts.lost(loss.death()).is_ok();
            if !may_repeat || self.state.closing.is_closing {
                return Err(loss.into_library_error(call.function()));
            }
            queue_end = QueueEnd::Front;
        }
    }

    /// Makes a call on a worker, after what must be replayed. `Err`: the worker is lost.
    async fn call_on(
        &mut self,
        lease: Lease,
        call: &Call,
    ) -> Result<Result<Outcome, LibraryError>, Loss> {
        Ok(match self.adopt(lease).await? {
            Ok(lease) => self.make(lease, call.clone()).await?.result,
            Err(error) => Err(error),
        })
    }

    /// One call on a worker that is ready for it.
    async fn make(&mut self, lease: Lease, call: Call) -> Result<Made, Loss> {
        self.state.next_id += 1;
        let deadlines = lease.worker().deadlines;
        let (deadline, limit) = self.deadline(&call, deadlines.worker.control_call).await;
        let function = call.function();
        let spec = CallSpec {
            id: self.state.next_id,
            call,
            deadline,
            limit,
        };
        let mut sink = CallSink {
            function,
            beside: Beside::new(&mut self.urgent, &mut self.state.closing, false),
        };
        let limits = Limits {
            first: (deadline, limit),
            outer: Outer::default(),
            request: None,
            metrics: &self.services.metrics,
        };
        let command = SlotCommand::LibraryCall(Box::new(spec));
        let ended = drive(lease, command, &mut sink, limits).await;
        sink.beside.end(matches!(ended, Ended::Over(_)));
        let over = match ended {
            Ended::Over(over) => over,
            Ended::NotSent(running, error) => {
                return Ok(Made {
                    lease: running.ended(WorkerAfter::Unproven),
                    result: Err(not_sent(error, function)),
                });
            }
            Ended::Lost(lost) => return Err(lost.loss),
        };
        let after = over.after(over.end.is_ok());
        let result = match over.end {
            Ok(CallReply::Outcome(outcome)) => Ok(outcome),
            Err(failure) => Err(explained(&over.running, failure).await),
            other => Err(LibraryError::Internal(format!(
                "the worker answered something else: {other:?}"
            ))),
        };
        let lease = over.running.ended(after);
        Ok(Made { lease, result })
    }

    /// Brings a worker that is new to this handle to where the last one was. The inner error: what
    /// was replayed failed, so the worker is not what the client thinks.
    pub(super) async fn adopt(
        &mut self,
        mut lease: Lease,
    ) -> Result<Result<Lease, LibraryError>, Loss> {
        let known = self.state.worker.as_ref();
        if known.is_some_and(|known| known.is(lease.worker())) {
            return Ok(Ok(lease));
        }
        let reason = known.map(Known::end);
        if self.state.journal.worker_lost() {
            self.state.reset = reason;
        }
        self.state.worker = None;
        let mut replayed = 0;
        // One at a time is copied: they may be large.
        while let Some(call) = self.state.journal.after(replayed).cloned() {
            replayed += 1;
            let made = self.make(lease, call).await?;
            let Some(next) = made.lease else {
                return Err(Loss::tainted());
            };
            if let Err(error) = made.result {
                tracing::error!(model = &*self.order.model, %error, "a handle's state cannot be replayed");
                next.spoil();
                return Ok(Err(error));
            }
            lease = next;
        }
        self.state.worker = Some(Known::of(lease.worker()));
        Ok(Ok(lease))
    }

    /// Asks the disk, which may not answer.
    pub(super) async fn in_folder<T: Send + 'static>(
        &self,
        ask: impl FnOnce(StateFolder) -> Result<T, LibraryError> + Send + 'static,
    ) -> Result<T, LibraryError> {
        let dir = self.services.state_dir.clone();
        let subject = Subject::File(dir.clone());
        apart::ask(subject, DISK_LIMIT, move || ask(StateFolder::new(dir)))
            .await
            .ok_or_else(|| LibraryError::Internal("the state folder does not answer".to_owned()))?
    }

    /// A call with real paths.
    async fn resolve(&self, call: Call) -> Result<Call, LibraryError> {
        match call {
            Call::LoadLora(_) | Call::LoadPromptCache { .. } => {}
            call => return Ok(call),
        }
        self.in_folder(|folder| {
            Ok(match call {
                Call::LoadLora(mut adapter) => {
                    adapter.lora_adapter_path = folder.adapter(&adapter.lora_adapter_path)?;
                    Call::LoadLora(adapter)
                }
                Call::LoadPromptCache { prompt_cache_path } => Call::LoadPromptCache {
                    prompt_cache_path: folder.prompt_cache(&prompt_cache_path)?,
                },
                call => call,
            })
        })
        .await
    }

    /// That of a call whose paths are real: files are read like models.
    async fn deadline(&self, call: &Call, control_call: Duration) -> (Deadline, Duration) {
        let path = match call {
            Call::LoadLora(adapter) => &adapter.lora_adapter_path,
            Call::LoadPromptCache { prompt_cache_path } => prompt_cache_path,
            _ => return (Deadline::ControlCall, control_call),
        };
        let bytes = self.file_bytes(path.into()).await;
        (Deadline::Load, self.services.load_deadline(bytes))
    }

    /// 0 where it is not there, or the disk does not answer.
    pub(super) async fn file_bytes(&self, path: PathBuf) -> u64 {
        let bytes = move |_| Ok(std::fs::metadata(path).map_or(0, |file| file.len()));
        self.in_folder(bytes).await.unwrap_or(0)
    }
}

/// A call that came to its end.
struct Made {
    /// `None`: the worker must not be used again.
    lease: Option<Lease>,
    result: Result<Outcome, LibraryError>,
}
