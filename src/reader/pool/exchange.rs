//! One question to a reader and its answer, within a deadline; what it means if none comes.

use std::time::Duration;

use tokio::time::timeout;

use super::Readers;
use super::calls::CONSTRAINING;
use crate::children::{Child, ChildProcess, ConnectionError, EndReason};
use crate::generation::{Deadline, ModelId};
use crate::ipc::{
    FrameError, ModelLocation, RawPath, ReaderCommand, ReaderEvent, ReaderWork, TemplateState,
};
use crate::reader::{ModelReport, ReaderError, ReaderKind};
use crate::reply::FoundFormat;

/// How long the end of a process is waited for to explain it.
const EXPLAINED_WITHIN: Duration = Duration::from_secs(1);

/// Rust's own behind what a process dies of, which tells nothing.
const ADVICE: &str = "note: run with `RUST_BACKTRACE";

/// What is at a location.
#[derive(Debug)]
pub(crate) enum LocationAnswer {
    Model(Box<OpenedModel>),
    Folders(Vec<RawPath>),
    Nothing,
    /// To be asked again with this template file.
    NeedsFile(String),
    /// It was not read within the time it had; by the process, if one was started.
    Late(Option<ChildProcess>),
    Unusable {
        file: Option<RawPath>,
        problem: String,
    },
}

#[derive(Debug)]
pub(crate) struct OpenedModel {
    pub report: ModelReport,
    pub template: TemplateState,
    /// How the model replies, as its template tells.
    pub replies: Option<FoundFormat>,
}

impl Readers {
    pub(super) async fn open(
        &self,
        model: &ModelId,
        child: &mut Child<ReaderKind>,
        location: &ModelLocation,
        work: ReaderWork,
    ) -> Result<LocationAnswer, ReaderError> {
        let kind = ("reading", Deadline::ReaderOpen);
        let command = ReaderCommand::Open {
            location: location.clone(),
            limits: self.shared.limits().reader,
            work,
        };
        let json = match self.exchange(model, child, &command, kind).await? {
            ReaderEvent::Facts { json } => json,
            ReaderEvent::Folders(folders) => return Ok(LocationAnswer::Folders(folders)),
            ReaderEvent::Nothing => return Ok(LocationAnswer::Nothing),
            ReaderEvent::NeedsFile { name } => return Ok(LocationAnswer::NeedsFile(name)),
            ReaderEvent::Unusable { file, problem } => {
                return Ok(LocationAnswer::Unusable { file, problem });
            }
            _ => {
                return Err(ReaderError::Unusable {
                    model: model.to_string(),
                    reason: "an answer to another question".to_owned(),
                });
            }
        };
        let report = serde_json::from_str(&json).map_err(|error| ReaderError::Unusable {
            model: model.to_string(),
            reason: error.to_string(),
        })?;
        // What the template does to the process is the template's fault.
        let mut event = self.next_event(model, child, kind).await;
        let mut replies = None;
        if let Ok(ReaderEvent::Replies { json }) = &event {
            replies = serde_json::from_str(json).ok();
            event = self.next_event(model, child, kind).await;
        }
        let template = match event {
            Ok(ReaderEvent::Template(state)) => state,
            Ok(_) => TemplateState::Broken {
                reason: "an answer to another question".to_owned(),
            },
            Err(error) => TemplateState::Broken {
                reason: error.to_string(),
            },
        };
        Ok(LocationAnswer::Model(Box::new(OpenedModel {
            report,
            template,
            replies,
        })))
    }

    pub(super) async fn exchange(
        &self,
        model: &ModelId,
        child: &mut Child<ReaderKind>,
        command: &ReaderCommand,
        kind: (&'static str, Deadline),
    ) -> Result<ReaderEvent, ReaderError> {
        let limit = self.shared.limits().of(kind.1);
        match timeout(limit, child.connection.send(command)).await {
            Ok(Ok(())) => self.next_event(model, child, kind).await,
            // Before anything of it was sent.
            Ok(Err(ConnectionError::Frame(FrameError::TooLarge(bytes)))) => {
                Err(ReaderError::TooLarge { bytes })
            }
            Ok(Err(error)) => Err(self.ended(model, child, kind.0, error).await),
            Err(_) => Err(self.too_late(model, kind)),
        }
    }

    async fn next_event(
        &self,
        model: &ModelId,
        child: &mut Child<ReaderKind>,
        kind: (&'static str, Deadline),
    ) -> Result<ReaderEvent, ReaderError> {
        let limit = self.shared.limits().of(kind.1);
        match timeout(limit, child.connection.next_event()).await {
            Ok(Ok(ReaderEvent::TooLarge { bytes })) => Err(ReaderError::TooLarge { bytes }),
            Ok(Ok(event)) => Ok(event),
            Ok(Err(error)) => Err(self.ended(model, child, kind.0, error).await),
            Err(_) => {
                child.process.kill(EndReason::Deadline(kind.1));
                Err(self.too_late(model, kind))
            }
        }
    }

    pub(super) fn too_late(
        &self,
        model: &ModelId,
        (doing, deadline): (&'static str, Deadline),
    ) -> ReaderError {
        self.shared.metrics.deadline_passed(deadline);
        let limit = self.shared.limits().of(deadline);
        tracing::error!(
            model = &**model,
            deadline = deadline.name(),
            limit_ms = limit.as_millis(),
            "a reader did not answer in time"
        );
        ReaderError::DeadlineExceeded {
            model: model.to_string(),
            doing,
            deadline,
            limit,
        }
    }

    pub(super) async fn ended(
        &self,
        model: &ModelId,
        child: &Child<ReaderKind>,
        doing: &'static str,
        error: ConnectionError,
    ) -> ReaderError {
        let mut reason = match timeout(EXPLAINED_WITHIN, child.process.exited()).await {
            Ok(Some(report)) => report.to_string(),
            _ => error.to_string(),
        };
        // Before a request is in there, nothing that it printed is a client's.
        if !["rendering", "tokenizing", CONSTRAINING].contains(&doing)
            && let lines = child.lines.peek().await
            && let Some(line) = lines.iter().rfind(|line| !line.starts_with(ADVICE))
        {
            reason = format!("{reason}: {line}");
        }
        ReaderError::Ended {
            model: model.to_string(),
            doing,
            reason,
        }
    }
}
