//! Follows models while they load: measured bytes and elapsed time about four times a second, and
//! each model's last event is the state it reached. One that was asked for by name and is not loaded is
//! waited for. With nothing loading there is one event per model otherwise, then the end.
//!
//! A browser's `EventSource` asks again whenever a stream has ended, and says which event it saw last.
//! The last one of all bears an id; a client that comes back with that is told that there is no more.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::http::HttpState;
use crate::http::pages::readiness::OneModel;
use crate::http::request::access::Caller;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::response::error_body::ErrorBody;
use crate::http::response::model_view::ModelState;
use crate::http::response::sse;
use crate::http::transport::connection::Upgrades;
use crate::models::InstalledModel;
use crate::supervisor::{Phase, StatusBoard};

const INTERVAL: Duration = Duration::from_millis(250);

/// Id of the event after which nothing follows.
const END: &str = "end";
/// Its line.
const LAST: &str = "id: end\n";
static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// One event of the stream.
#[derive(Serialize, ToSchema)]
pub(crate) struct LoadingEvent {
    /// Id of the model.
    #[schema(value_type = String)]
    model: Arc<str>,
    #[serde(flatten)]
    state: ModelState,
    /// Milliseconds since the phase began; only while loading.
    #[serde(skip_serializing_if = "Option::is_none")]
    elapsed_ms: Option<u64>,
    /// Bytes the worker has read so far, by system calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    read_bytes: Option<u64>,
    /// The worker's resident memory, file mappings included.
    #[serde(skip_serializing_if = "Option::is_none")]
    resident_bytes: Option<u64>,
    /// Size of the model file.
    file_bytes: u64,
}

/// The models that are still followed.
struct Follower {
    board: StatusBoard,
    followed: Vec<Arc<InstalledModel>>,
    waiting: VecDeque<Bytes>,
    started: bool,
    caller: Caller,
    awaited: Awaited,
    /// A comment goes into a stream that was silent so long.
    keep_alive: Duration,
    closing: watch::Receiver<bool>,
}

/// Whether a model that is not loaded is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    No,
    Yes,
    /// It was reported as this.
    As(&'static str),
}

impl Follower {
    /// One event for each followed model; those that stopped loading are followed no longer.
    async fn observe(&mut self) {
        let statuses = self.board.snapshot();
        let mut still_followed = Vec::new();
        let mut events = Vec::new();
        for model in std::mem::take(&mut self.followed) {
            let status = statuses.get(&model.id);
            let phase = status.map_or(&Phase::Unloaded, |status| &status.phase);
            let is_to_come = matches!(phase, Phase::Unloaded | Phase::Unloading);
            let known = self.awaited;
            let awaited = is_to_come && known != Awaited::No;
            if awaited {
                self.awaited = Awaited::As(phase.name());
                if known == self.awaited {
                    still_followed.push(model);
                    continue;
                }
            }
            let progress = match status {
                Some(status) => status.load_progress().await,
                None => None,
            };
            let event = LoadingEvent {
                model: Arc::clone(&model.id),
                state: ModelState::of(status, &self.caller),
                elapsed_ms: progress
                    .and_then(|progress| u64::try_from(progress.elapsed.as_millis()).ok()),
                read_bytes: progress.and_then(|progress| progress.read_bytes),
                resident_bytes: progress.and_then(|progress| progress.resident_bytes),
                file_bytes: model.facts.size_bytes,
            };
            events.extend(serde_json::to_string(&event).ok());
            if progress.is_some() || awaited {
                still_followed.push(model);
            }
        }
        self.followed = still_followed;
        let count = events.len();
        for (index, event) in events.into_iter().enumerate() {
            let is_last = self.followed.is_empty() && index + 1 == count;
            let id = if is_last { LAST } else { "" };
            self.waiting
                .push_back(format!("{id}data: {event}\n\n").into());
        }
    }

    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some((Ok(event), self));
            }
            if self.followed.is_empty() {
                return None;
            }
            if self.started {
                let is_silent = matches!(self.awaited, Awaited::As(_));
                let pause = if is_silent { self.keep_alive } else { INTERVAL };
                tokio::select! {
                    changed = self.board.changed() => if !changed { return None },
                    // The daemon ends; a client that comes back finds the next one.
                    _ = self.closing.wait_for(|closing| *closing) => return None,
                    () = tokio::time::sleep(pause) => if is_silent {
                        self.waiting.push_back(Bytes::from_static(b": \n\n"));
                        continue;
                    }
                }
            }
            self.started = true;
            self.observe().await;
        }
    }
}

/// Progress of models that are being loaded, as server-sent events
///
/// An event about every 250 ms for each model that is being loaded, until it is ready or failed. One that
/// is named by `model` and is not loaded is waited for; without a name, and with nothing loading, the
/// state of each model is reported once. The last event has the id `end`: an `EventSource` that comes
/// back with it as `Last-Event-ID` gets 204 and asks no more.
#[utoipa::path(get, path = "/v1/loading/progress", tag = "daemon", params(OneModel),
    responses(
        (status = 200, description = "`data:` lines, each a LoadingEvent",
            content_type = "text/event-stream", body = LoadingEvent),
        (status = 204, description = "`Last-Event-ID` is that of the last event: there is no more"),
        (status = 400, description = "The query is wrong; `param` says where", body = ErrorBody),
        (status = 403, description = "The key may not use this model", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody)))]
pub(crate) async fn loading_progress(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    Extension(upgrades): Extension<Upgrades>,
    headers: HeaderMap,
    query: Result<Query<OneModel>, QueryRejection>,
) -> Result<Response, RequestError> {
    let one = OneModel::is_named(&query);
    let mut followed = OneModel::select(query, &state.engine.catalog())?;
    if let (true, [model]) = (one, &followed[..]) {
        context.caller.check_model(model)?;
    }
    if headers.get(&LAST_EVENT_ID).is_some_and(|id| id == END) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    followed.retain(|model| context.caller.may_use(model));
    let board = state.engine.status();
    let statuses = board.snapshot();
    let loading = |model: &Arc<InstalledModel>| {
        statuses
            .get(&model.id)
            .is_some_and(|status| status.phase.is_loading())
    };
    if followed.iter().any(loading) {
        followed.retain(loading);
    }
    let follower = Follower {
        board,
        followed,
        waiting: VecDeque::new(),
        started: false,
        caller: context.caller.clone(),
        awaited: if one { Awaited::Yes } else { Awaited::No },
        keep_alive: state.http.keep_alive,
        closing: upgrades.closing(),
    };
    Ok(sse::response(Body::from_stream(stream::unfold(
        follower,
        Follower::next,
    ))))
}
