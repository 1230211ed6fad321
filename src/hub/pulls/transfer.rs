//! One pull: the child process that brings it, from its place among the others until what it has brought is served.

use std::time::Duration;

use tokio::time::timeout;

use super::{Following, News, PullState, Shared, Step};
use crate::children::{Child, ProcessEvent, Watched};
use crate::hub::messages::{TransferCommand, TransferEvent};
use crate::hub::{Job, PullError, Pulled, Told, TransferKind};

/// How long the report of a child's end is waited for.
const EXPLAINED_WITHIN: Duration = Duration::from_secs(5);

fn ended(reason: String) -> PullError {
    PullError::Ended { reason }
}

impl Shared {
    pub(super) async fn transfer(
        &self,
        job: Job,
        following: &Following,
    ) -> Result<Pulled, PullError> {
        let place = self.places.acquire().await;
        let _place = place.map_err(|_| PullError::ShuttingDown)?;
        following.send_modify(|state| state.step = Step::Asking);
        let name = job.asked.clone();
        let mut child = self.child(&name).await?;
        let command = TransferCommand::Pull(Box::new(job));
        let sent = child.connection.send(&command).await;
        sent.map_err(|error| ended(error.to_string()))?;
        // Afterwards the limits of asking and bringing count, which are the transfer's.
        let limit = self.settings().deadlines.models_read;
        let first = timeout(limit, child.connection.next_event()).await;
        let mut first = Some(first.map_err(|_| {
            ended(format!(
                "the files of this machine that it looks up, such as hub.token-file, gave no answer within {} s \
                 (deadlines.models-read)",
                limit.as_secs()
            ))
        })?);
        loop {
            let event = match first.take() {
                Some(event) => event,
                None => child.connection.next_event().await,
            };
            match event {
                Ok(TransferEvent::Told(told)) => {
                    if let Told::File(file) = &told {
                        self.tell(&name, News::Progress(file.clone()));
                    }
                    following.send_modify(|state| state.take_in(told));
                }
                Ok(TransferEvent::Ended(outcome)) => return self.serve_pulled(outcome?).await,
                Ok(TransferEvent::Hello { .. }) => {}
                Err(error) => {
                    let report = timeout(EXPLAINED_WITHIN, child.process.exited()).await;
                    let report = report.ok().flatten().map(|report| report.to_string());
                    return Err(ended(report.unwrap_or_else(|| error.to_string())));
                }
            }
        }
    }

    /// One that has said hello.
    async fn child(&self, name: &str) -> Result<Child<TransferKind>, PullError> {
        let settings = self.settings();
        let watched = Watched {
            model: name.into(),
            variables: Vec::new(),
            kill_wait: settings.deadlines.kill,
        };
        let on_event = |pid: u32, event: ProcessEvent| match event {
            ProcessEvent::Unkillable => {
                tracing::error!(pid, "a transfer hangs in the kernel and is abandoned");
            }
            ProcessEvent::Exited(report) => tracing::debug!(pid, "a transfer ended: {report}"),
        };
        let host = self.host().map_err(|error| ended(error.to_string()))?;
        let begun = async {
            let child = host.child(watched, on_event).await;
            let mut child = child.map_err(|error| ended(error.to_string()))?;
            let met = child.connection.handshake().await;
            met.map_err(|error| ended(error.to_string()))?;
            Ok::<_, PullError>(child)
        };
        let begun = timeout(settings.deadlines.spawn, begun).await;
        begun.map_err(|_| ended("it did not start in time".to_owned()))?
    }

    /// Has it served, and notes what is wrong with it.
    async fn serve_pulled(&self, mut pulled: Pulled) -> Result<Pulled, PullError> {
        let problems = self.serve().await?;
        let own = problems
            .into_iter()
            .filter(|it| it.0.starts_with(&pulled.folder));
        let own = own.map(|(_, problem)| format!("it cannot be used: {problem}"));
        pulled.notes.extend(own);
        Ok(pulled)
    }
}

impl PullState {
    fn take_in(&mut self, told: Told) {
        match told {
            Told::Asking => self.step = Step::Asking,
            Told::Chosen { .. } => self.step = Step::Chosen,
            Told::File(file) => {
                self.step = Step::Bringing;
                self.file = Some(file);
            }
            Told::Installing => self.step = Step::Installing,
        }
    }
}
