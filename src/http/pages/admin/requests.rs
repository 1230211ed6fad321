//! `/v1/admin/requests`: what models are asked now, and by whom; each can be aborted. Never what is asked.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::generation::{ModelId, RequestId};
use crate::http::HttpState;
use crate::http::request::context::{LiveView, RequestContext, Stage};
use crate::http::request::error::{RequestError, quote};
use crate::http::request::live::AbortedOne;
use crate::http::response::error_body::ErrorBody;

/// A client that reads has been told by then that its request was aborted.
const GRACE: Duration = Duration::from_secs(2);

/// The requests that models serve now, the oldest one first.
#[derive(Serialize, ToSchema)]
pub(crate) struct RequestList {
    requests: Vec<LiveRequest>,
}

/// A request for an answer, embeddings or judgements, or a run or the load of a JSON-RPC handle.
#[derive(Serialize, ToSchema)]
pub(crate) struct LiveRequest {
    /// As `x-request-id` tells its client; of a run `run-` and digits.
    id: String,
    /// Name of its key; null where none was asked for.
    #[schema(required)]
    key: Option<String>,
    /// Where it comes from: an address, or a user of this machine; of a run with a key the key.
    client: String,
    /// What it asks, by which the dialect is known; of a run its method.
    #[schema(example = "/v1/chat/completions")]
    path: String,
    /// Id of the model; null until the request was read.
    #[schema(required, value_type = Option<String>)]
    model: Option<ModelId>,
    /// `preparing` while it is read and its prompt is made, `waiting`, `running`, or `in_turns`: embeddings and
    /// judgements wait and are made in turns.
    #[schema(example = "running")]
    state: &'static str,
    /// How many requests are served before it, if none comes and all cost as much; null where it does not wait,
    /// and of a run.
    #[schema(required)]
    position: Option<usize>,
    /// When its header had arrived.
    #[schema(example = "2026-01-01T00:00:00Z")]
    since: String,
    /// Milliseconds since then.
    age_ms: u64,
    /// Milliseconds in its state.
    state_ms: u64,
}

/// It is aborted.
#[derive(Serialize, ToSchema)]
pub(crate) struct Aborted {
    /// Id of the request.
    id: String,
    /// Always true.
    #[schema(example = true)]
    aborted: bool,
}

/// Those of all listeners.
pub(super) fn all(state: &HttpState) -> Vec<LiveRequest> {
    let mut queues: HashMap<ModelId, Vec<Option<RequestId>>> = HashMap::new();
    let contexts = state.live.all();
    let runs = state.live.all_runs();
    let requests = contexts.iter().map(|it| (it.arrived(), it.view()));
    let runs = runs.iter().map(|run| (run.arrived(), run.view()));
    let mut views: Vec<_> = requests.chain(runs).collect();
    views.sort_by_key(|(arrived, _)| *arrived);
    let views = views.into_iter().map(|(_, view)| view);
    views
        .map(|view| {
            let position = match (&view.model, view.stage) {
                (Some(model), Stage::Waiting) => {
                    let queue = queues.entry(ModelId::clone(model));
                    let queue = queue.or_insert_with(|| state.engine.waiting(model));
                    queue.iter().position(|id| id.as_ref() == Some(&view.id))
                }
                _ => None,
            };
            told(view, position)
        })
        .collect()
}

fn told(view: LiveView, position: Option<usize>) -> LiveRequest {
    let since = Timestamp::now().checked_sub(view.age);
    LiveRequest {
        id: view.id.to_string(),
        key: view.key,
        client: view.client,
        path: view.path,
        model: view.model,
        state: match view.stage {
            Stage::Preparing => "preparing",
            Stage::Waiting => "waiting",
            Stage::Running => "running",
            Stage::InTurns => "in_turns",
        },
        position,
        since: since.map_or_else(|_| String::new(), |since| since.to_string()),
        age_ms: milliseconds(view.age),
        state_ms: milliseconds(view.stage_age),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Drops what its client does not read the end of.
async fn give_up(aborted: Weak<RequestContext>) {
    tokio::time::sleep(GRACE).await;
    if let Some(aborted) = aborted.upgrade() {
        aborted.client_bound().give_up();
    }
}

/// List what models are asked now
///
/// Requests for answers, embeddings and judgements, from all listeners, and runs and loads of JSON-RPC's handles. How
/// many tokens an answer has so far is not counted where others could see it.
#[utoipa::path(get, path = "/v1/admin/requests", tag = "admin",
    responses((status = 200, description = "The requests", body = RequestList)))]
pub(crate) async fn list_requests(State(state): State<Arc<HttpState>>) -> Json<RequestList> {
    Json(RequestList {
        requests: all(&state),
    })
}

/// Abort a request
///
/// Its client is told `aborted_by_administrator`, as an error's answer or, once its stream has begun, as the last
/// event; of a run or a load the answer of its call, or `rkllm.ended`. What it had, be it in the queue or of a worker, is
/// free at once.
#[utoipa::path(delete, path = "/v1/admin/requests/{id}", tag = "admin",
    params(("id" = String, Path, description = "Its `x-request-id`, or of a run the id that is listed")),
    responses(
        (status = 200, description = "It is aborted", body = Aborted),
        (status = 404, description = "No such request is served now", body = ErrorBody)))]
pub(crate) async fn abort_request(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Aborted>, RequestError> {
    // What is no UTF-8 is the id of no request.
    let id = id.map_or_else(|_| String::new(), |Path(id)| id);
    let Some(aborted) = state.live.abort(&id) else {
        return Err(RequestError::UnknownRequest { id: quote(&id) });
    };
    match aborted {
        AbortedOne::Request(aborted) => {
            context.audit("aborted a request", &aborted.id.0);
            tokio::spawn(give_up(Arc::downgrade(&aborted)));
        }
        // One that does not read is no hindrance: its run has ended before it is told.
        AbortedOne::Run(aborted) => context.audit("aborted a run", &aborted.id.0),
    }
    Ok(Json(Aborted { id, aborted: true }))
}
