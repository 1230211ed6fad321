//! `POST /api/pull`: a model comes from the hub that the settings name, for an administrator who may see how it
//! goes. What fails before anything has come is answered with its status; a stream says it in its last line.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::error::{self, OllamaError};
use super::refused::NamedModel;
use crate::http::HttpState;
use crate::http::dialects::ended;
use crate::http::dialects::installing;
use crate::http::dialects::permission::may_load;
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::parsed::parsed;
use crate::http::response::ndjson;
use crate::http::response::notices::add_notices;
use crate::http::transport::connection::Upgrades;
use crate::hub::{FileProgress, PullError, PullState, Pulled, Reference, Step};
use crate::printable::printable;

/// A model that is to be brought.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PullRequest {
    /// `OWNER/NAME` of a repository of the hub, with `@REVISION` and `:FILE` or `:VARIANT` behind it where that
    /// is wanted.
    #[schema(required, nullable = false, min_length = 1)]
    model: Option<String>,
    /// The older name of `model`.
    name: Option<String>,
    /// Not applied: hubs are known by their certificates, also where a client would do without, as some always say.
    insecure: Option<bool>,
    /// Whether to answer with a stream of lines. Default true.
    stream: Option<bool>,
}

/// How it goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct PullProgress {
    /// `pulling manifest`, `pulling DIGEST`, `verifying sha256 digest`, `writing manifest`, notes that begin with
    /// `note: `, and `success` once the model is served.
    #[schema(example = "success")]
    status: String,
    /// Of the file that comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// Its bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    /// Those of them that have come.
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<u64>,
}

impl PullProgress {
    fn of(status: &str) -> Self {
        Self {
            status: status.to_owned(),
            ..Self::default()
        }
    }

    fn of_file(file: &FileProgress) -> Self {
        let digits = file.digest.rsplit(':').next().unwrap_or_default();
        let short: String = digits.chars().take(12).collect();
        Self {
            status: format!("pulling {short}"),
            digest: Some(file.digest.clone()),
            total: Some(file.total),
            completed: Some(file.completed),
        }
    }
}

/// Install a model
///
/// It is brought from the hub that the settings name, verified, and served without a reload. A pull ends when
/// no client reads how it goes any more; what has come is kept for the next one. Unless `stream` is false the
/// answer is a stream of lines.
#[utoipa::path(post, path = "/api/pull", tag = "ollama", request_body(content = PullRequest),
    responses(
        (status = 200, description = "It is served, or is on its way", content(
            (PullProgress = "application/json"),
            (PullProgress = "application/x-ndjson"))),
        (status = 400, description = "The request is wrong, nothing is pulled here, or no file of the repository suits this machine", body = OllamaError),
        (status = 403, description = "The key may not install models, nor may a page of another site", body = OllamaError),
        (status = 404, description = "The hub has no such repository, revision or file", body = OllamaError),
        (status = 409, description = "Another model is in its place, or another process is pulling it", body = OllamaError),
        (status = 413, description = "The body is too large", body = OllamaError),
        (status = 500, description = "It could not be written", body = OllamaError),
        (status = 502, description = "The hub did not give it, or not whole", body = OllamaError),
        (status = 503, description = "The hub has too much to do, see Retry-After", body = OllamaError),
        (status = 507, description = "There is no room for it", body = OllamaError)))]
pub(crate) async fn pull(
    State(state): State<Arc<HttpState>>,
    Extension(upgrades): Extension<Upgrades>,
    request: Request,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    let pulled = pulling(&state, &context, request, &upgrades).await;
    ended(&context, pulled)
}

async fn pulling(
    state: &Arc<HttpState>,
    context: &Arc<RequestContext>,
    request: Request,
    upgrades: &Upgrades,
) -> Result<Response, RequestError> {
    may_load(state, context, &request)?;
    let path = request.uri().path().to_owned();
    let Asked {
        name,
        stream,
        not_applied,
    } = parsed(state, context, request, asked).await?;
    let pulls = installing::pulls(state, context, &name, path)?;
    // Who leaves does not wait for it.
    context.client_bound().bind();
    let mut follower = pulls.pull(&name)?;
    context.audit("pulls a model", &name);
    if !stream {
        let mut closing = upgrades.closing();
        tokio::select! {
            outcome = outcome(&mut follower) => outcome?,
            _ = closing.wait_for(|closing| *closing) => return Err(PullError::ShuttingDown.into()),
        };
        let mut response = Json(PullProgress::of("success")).into_response();
        add_notices(&mut response, &not_applied, &[]);
        return Ok(response);
    }
    let first = timeout(state.http.header_delay, begun(&mut follower)).await;
    if let Ok(Some(error)) = first {
        return Err(error.into());
    }
    let lines = Lines {
        follower,
        closing: upgrades.closing(),
        keep_alive: state.http.keep_alive,
        waiting: VecDeque::new(),
        last: None,
        told_step: Step::Waiting,
        has_begun: false,
        has_ended: false,
    };
    let body = Body::from_stream(stream::unfold(lines, Lines::next));
    let mut response = ndjson::response(body);
    add_notices(&mut response, &not_applied, &[]);
    Ok(response)
}

struct Asked {
    name: String,
    stream: bool,
    not_applied: Vec<&'static str>,
}

fn asked(_: &HttpState, _: &RequestContext, body: &[u8]) -> Result<Asked, RequestError> {
    let asked: PullRequest = fields(body)?;
    let name = NamedModel::new(asked.model, asked.name).into_name();
    let name = name.ok_or_else(|| RequestError::missing("model"))?;
    Reference::parse(&name)?;
    // Done securely, a pull is none the worse for it.
    let not_applied = (asked.insecure == Some(true)).then_some("insecure");
    Ok(Asked {
        name,
        stream: asked.stream != Some(false),
        not_applied: not_applied.into_iter().collect(),
    })
}

/// The end of a pull.
async fn outcome(follower: &mut watch::Receiver<PullState>) -> Result<Pulled, PullError> {
    let state = follower.wait_for(|state| state.outcome.is_some()).await;
    let outcome = state.ok().and_then(|state| state.outcome.clone());
    outcome.unwrap_or_else(|| Err(gone()))
}

/// Waits until something comes; gives why nothing does.
async fn begun(follower: &mut watch::Receiver<PullState>) -> Option<PullError> {
    let is_begun = |state: &PullState| {
        state.outcome.is_some() || matches!(state.step, Step::Bringing | Step::Installing)
    };
    let state = follower.wait_for(is_begun).await.ok()?;
    match &state.outcome {
        // Else it is the stream's to tell, however late this looks.
        Some(Err(error)) if state.file.is_none() => Some(error.clone()),
        Some(_) | None => None,
    }
}

/// Its task has ended without a word.
fn gone() -> PullError {
    PullError::Ended {
        reason: "nothing is known of why".to_owned(),
    }
}

/// The lines of a stream.
struct Lines {
    follower: watch::Receiver<PullState>,
    closing: watch::Receiver<bool>,
    keep_alive: Duration,
    waiting: VecDeque<Bytes>,
    /// Of a file, as it was told last.
    last: Option<PullProgress>,
    told_step: Step,
    has_begun: bool,
    has_ended: bool,
}

/// What a stream has waited for.
enum Happened {
    Something,
    /// For so long that its reader is to hear of it.
    Nothing,
    End(PullError),
}

impl Lines {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            if let Some(line) = self.waiting.pop_front() {
                return Some((Ok(line), self));
            }
            if self.has_ended {
                return None;
            }
            if !std::mem::replace(&mut self.has_begun, true) {
                self.say(&PullProgress::of("pulling manifest"));
                self.observe();
                continue;
            }
            let happened = tokio::select! {
                changed = self.follower.changed() => match changed {
                    Ok(()) => Happened::Something,
                    Err(_) => Happened::End(gone()),
                },
                _ = self.closing.wait_for(|closing| *closing) => {
                    Happened::End(PullError::ShuttingDown)
                }
                () = tokio::time::sleep(self.keep_alive) => Happened::Nothing,
            };
            match happened {
                Happened::Something => self.observe(),
                Happened::End(error) => self.fail(error),
                Happened::Nothing => {
                    // Said once more: between a hub and its next try nothing comes.
                    let last = self.last.clone();
                    self.say(&last.unwrap_or_else(|| PullProgress::of("pulling manifest")));
                }
            }
        }
    }

    /// Tells what has changed.
    fn observe(&mut self) {
        let state = self.follower.borrow_and_update().clone();
        if let Some(file) = &state.file {
            let line = PullProgress::of_file(file);
            // A file that had to be begun anew is silent until it is where it was.
            let is_behind = self
                .last
                .as_ref()
                .is_some_and(|last| last.digest == line.digest && last.completed >= line.completed);
            if !is_behind {
                self.say(&line);
                self.last = Some(line);
            }
        }
        if state.step == Step::Installing && self.told_step != Step::Installing {
            self.say(&PullProgress::of("verifying sha256 digest"));
            self.say(&PullProgress::of("writing manifest"));
        }
        self.told_step = state.step;
        match state.outcome {
            Some(Ok(pulled)) => {
                for note in &pulled.notes {
                    self.say(&PullProgress::of(&format!("note: {}", printable(note))));
                }
                self.say(&PullProgress::of("success"));
                self.has_ended = true;
            }
            Some(Err(error)) => self.fail(error),
            None => {}
        }
    }

    fn say(&mut self, line: &PullProgress) {
        let text = serde_json::to_string(line).ok();
        let lines = text.map(|text| Bytes::from(text + "\n"));
        self.waiting.extend(lines);
    }

    fn fail(&mut self, error: PullError) {
        let text = error::text(&RequestError::from(error));
        self.waiting.push_back(Bytes::from(text + "\n"));
        self.has_ended = true;
    }
}
