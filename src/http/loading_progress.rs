//! Follows models while they load: measured bytes and elapsed time about four times a second, and
//! each model's last event is the state it reached. With nothing loading there is one event per
//! model, then the end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use utoipa::ToSchema;

use super::HttpState;
use super::error_body::ErrorBody;
use super::model_view::ModelState;
use super::readiness::OneModel;
use super::request_context::RequestContext;
use super::request_error::RequestError;
use super::sse;
use crate::models::InstalledModel;
use crate::supervisor::StatusBoard;

const INTERVAL: Duration = Duration::from_millis(250);

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
}

impl Follower {
    /// One event for each followed model; those that stopped loading are followed no longer.
    fn observe(&mut self) {
        let statuses = self.board.snapshot();
        let waiting = &mut self.waiting;
        self.followed.retain(|model| {
            let status = statuses.get(&model.id);
            let progress = status.and_then(|status| status.load_progress());
            let event = LoadingEvent {
                model: Arc::clone(&model.id),
                state: ModelState::of(status),
                elapsed_ms: progress
                    .and_then(|progress| u64::try_from(progress.elapsed.as_millis()).ok()),
                read_bytes: progress.and_then(|progress| progress.read_bytes),
                resident_bytes: progress.and_then(|progress| progress.resident_bytes),
                file_bytes: model.size_bytes,
            };
            if let Ok(json) = serde_json::to_string(&event) {
                waiting.push_back(format!("data: {json}\n\n").into());
            }
            progress.is_some()
        });
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
                tokio::select! {
                    changed = self.board.changed() => if !changed { return None },
                    () = tokio::time::sleep(INTERVAL) => {}
                }
            }
            self.started = true;
            self.observe();
        }
    }
}

/// Progress of models that are being loaded, as server-sent events
///
/// An event about every 250 ms for each model that is being loaded, until it is ready or failed.
/// With nothing loading the state of each model is reported once.
#[utoipa::path(get, path = "/v1/loading/progress", tag = "daemon", params(OneModel),
    responses(
        (status = 200, description = "`data:` lines, each a LoadingEvent",
            content_type = "text/event-stream", body = LoadingEvent),
        (status = 403, description = "The key may not use this model", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody)))]
pub(crate) async fn loading_progress(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    query: Result<Query<OneModel>, QueryRejection>,
) -> Result<Response, RequestError> {
    let one = OneModel::is_named(&query);
    let mut followed = OneModel::select(query, &state.engine.catalog())?;
    if let (true, [model]) = (one, &followed[..]) {
        context.caller.check_model(model)?;
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
    };
    Ok(sse::response(Body::from_stream(stream::unfold(
        follower,
        Follower::next,
    ))))
}
