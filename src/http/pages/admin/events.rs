//! `GET /v1/admin/events`: what changes in the daemon, as it happens. It begins with how everything is, so that
//! nothing is missed between a look and this. A client that reads slowly is told how much it has missed, and goes on.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::ToSchema;

use super::requests::{self, LiveRequest};
use crate::generation::ModelId;
use crate::http::HttpState;
use crate::http::request::access::{self, Rule};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::id;
use crate::http::response::error_body::ErrorBody;
use crate::http::response::sse;
use crate::http::transport::connection::Upgrades;
use crate::telemetry::{Followed, Next, log_entries_dropped};

static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How everything is: the data of the first event.
#[derive(Serialize, ToSchema)]
pub(crate) struct DaemonSnapshot {
    models: Vec<ModelNow>,
    requests: Vec<LiveRequest>,
    /// How many keys there are; null where there never was a file of them.
    #[schema(required)]
    keys: Option<usize>,
    /// How many entries the log has lost, in all, because they were not read.
    log_entries_lost: u64,
    /// How many events there were behind `Last-Event-ID`. Null where that was not sent, or is of another start of the
    /// daemon, so that it is not known.
    #[schema(required)]
    missed: Option<u64>,
}

/// How a model is.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelNow {
    /// Its id.
    #[schema(value_type = String)]
    model: ModelId,
    /// As `/v1/ready` calls it.
    #[schema(example = "ready")]
    state: &'static str,
    /// Process id of its worker; null where there is none.
    #[schema(required)]
    pid: Option<u32>,
    /// How many requests wait for it.
    waiting: usize,
}

/// Who follows.
struct Follower {
    first: Option<Bytes>,
    changes: Followed,
    state: Arc<HttpState>,
    /// Keeps the connection watched, so that who leaves frees its place.
    context: Arc<RequestContext>,
    rule: Rule,
    closing: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if let Some(first) = self.first.take() {
            return Some((Ok(first), self));
        }
        let event = tokio::select! {
            next = self.changes.next() => event(next?),
            // The daemon ends; a client that comes back finds the next one.
            _ = self.closing.wait_for(|closing| *closing) => return None,
            () = access::shut_out(&self.state.keys, self.rule, &self.context.caller) => return None,
            () = tokio::time::sleep(self.state.http.keep_alive) => Bytes::from_static(b": \n\n"),
        };
        Some((Ok(event), self))
    }
}

fn event(next: Next) -> Bytes {
    match next {
        Next::Change(change) => {
            let data = serde_json::to_string(&change.change).unwrap_or_default();
            text(Some(change.number), change.change.name(), &data)
        }
        Next::Missed(count) => text(None, "dropped", &json!({"dropped": count}).to_string()),
    }
}

/// Numbers begin anew with the daemon, so ids tell one start from another.
fn text(number: Option<u64>, name: &str, data: &str) -> Bytes {
    let id = number.map_or_else(String::new, |number| {
        format!("id: {}-{number}\n", id::of_this_start())
    });
    Bytes::from(format!("{id}event: {name}\ndata: {data}\n\n"))
}

/// How many there were behind the one that a client has seen last.
fn missed(headers: &HeaderMap, last: u64) -> Option<u64> {
    let seen = headers.get(&LAST_EVENT_ID)?.to_str().ok()?;
    let (start, number) = seen.rsplit_once('-')?;
    if start != id::of_this_start() {
        return None;
    }
    last.checked_sub(number.parse().ok()?)
}

fn snapshot(state: &HttpState, missed: Option<u64>) -> DaemonSnapshot {
    let statuses = state.engine.status().snapshot();
    let catalog = state.engine.catalog();
    let models = catalog.models().iter().map(|model| {
        let status = statuses.get(&model.id);
        ModelNow {
            model: ModelId::clone(&model.id),
            state: status.map_or("unloaded", |status| status.phase.name()),
            pid: status.and_then(|status| status.pid),
            waiting: state.engine.queue(&model.id).waiting,
        }
    });
    DaemonSnapshot {
        models: models.collect(),
        requests: requests::all(state),
        keys: state.keys.get().map(|keyring| keyring.keys().count()),
        log_entries_lost: log_entries_dropped(),
        missed,
    }
}

/// Follow what changes
///
/// The first event, `snapshot`, tells how everything is, and how many events there were behind `Last-Event-ID`. Then
/// come `model_state`, `worker_started`, `worker_ended`, `queue`, `request_began`, `request_waits`, `request_runs`,
/// `request_ended`, `keys`, `reloaded` and `log_lost`, each with an id, and `dropped` where the client was more than
/// `admin.event-buffer` events behind. What changes while the snapshot is made may be in it and be told again.
#[utoipa::path(get, path = "/v1/admin/events", tag = "admin",
    responses(
        (status = 200, description = "Events with a name and JSON, of which the first is a DaemonSnapshot",
            content_type = "text/event-stream", body = DaemonSnapshot),
        (status = 429, description = "As many follow already as may; see Retry-After", body = ErrorBody)))]
pub(crate) async fn follow_events(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    Extension(rule): Extension<Rule>,
    Extension(upgrades): Extension<Upgrades>,
    headers: HeaderMap,
) -> Result<Response, RequestError> {
    let place = Arc::clone(&state.event_streams).try_acquire_owned();
    let place = place.map_err(|_| RequestError::TooManyEventStreams {
        most: state.admin.max_event_streams,
    })?;
    context.client_bound().bind();
    // Before the look at how everything is.
    let changes = state.engine.metrics().changes();
    let (last, changes) = changes.follow(state.admin.event_buffer);
    let snapshot = snapshot(&state, missed(&headers, last));
    let data = serde_json::to_string(&snapshot).unwrap_or_default();
    let follower = Follower {
        first: Some(text(Some(last), "snapshot", &data)),
        changes,
        state,
        context,
        rule,
        closing: upgrades.closing(),
        _place: place,
    };
    let body = Body::from_stream(stream::unfold(follower, Follower::next));
    Ok(sse::response(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_missed_is_told_where_it_is_known() {
        let start = id::of_this_start();
        for (seen, expected) in [
            (format!("{start}-7"), Some(3)),
            (format!("{start}-10"), Some(0)),
            // No such event was.
            (format!("{start}-11"), None),
            ("other-7".to_owned(), None),
            ("7".to_owned(), None),
            (format!("{start}-x"), None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(&LAST_EVENT_ID, seen.parse().unwrap());
            assert_eq!(missed(&headers, 10), expected, "{seen}");
        }
        assert_eq!(missed(&HeaderMap::new(), 10), None);
    }
}
