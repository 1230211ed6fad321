//! `GET /v1/admin/logs`: the newest events of the log, as far as they are kept in memory.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::{Deserialize, Serialize};
use tracing::Level;
use utoipa::{IntoParams, ToSchema};

use crate::http::request::error::{RequestError, quote};
use crate::http::request::id;
use crate::http::response::error_body::ErrorBody;
use crate::telemetry::{LogQuery, LoggedEvent, log_entries_dropped, recent_log};

/// So many are told unless others are asked for.
const USUAL: usize = 100;
const MOST: usize = 10_000;

/// Which of them are asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogsQuery {
    /// This level and graver ones: `error`, `warn`, `info`, `debug` or `trace`. Default: all.
    #[param(required = false, value_type = String, pattern = "^(error|warn|info|debug|trace)$")]
    level: Option<String>,
    /// Only events behind the one of this number, the first of them; without it the newest.
    #[param(required = false, value_type = u64, minimum = 0)]
    after: Option<String>,
    /// How many at most, up to 10000. Default 100.
    #[param(required = false, value_type = u32, minimum = 1, maximum = 10_000)]
    limit: Option<String>,
}

/// What there is of the log.
#[derive(Serialize, ToSchema)]
pub(crate) struct LogPage {
    /// Names this start of the daemon, as the ids of `/v1/admin/events` begin: numbers begin anew with the next one.
    start: &'static str,
    /// In their order.
    events: Vec<LogEvent>,
    /// Number of the last event there was; 0: there was none.
    last: u64,
    /// How many behind `after` are not kept any more.
    gone: u64,
    /// How many entries the log itself has lost, in all, because they were not read.
    log_entries_lost: u64,
}

/// One event, as it is in the log.
#[derive(Serialize, ToSchema)]
pub(crate) struct LogEvent {
    /// One more than that of the event before it.
    number: u64,
    /// In UTC.
    #[schema(example = "2026-01-01T00:00:00Z")]
    time: String,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    #[schema(example = "info")]
    level: String,
    /// The part of the program that says it.
    target: &'static str,
    /// What it says.
    message: String,
    /// What it says it of.
    fields: BTreeMap<&'static str, String>,
}

impl LogEvent {
    fn of(event: &LoggedEvent) -> Self {
        Self {
            number: event.number,
            time: event.time.to_string(),
            level: event.level.as_str().to_lowercase(),
            target: event.target,
            message: event.message.clone(),
            fields: event.fields.iter().cloned().collect(),
        }
    }
}

impl LogsQuery {
    fn read(self) -> Result<LogQuery, RequestError> {
        let level = match self.level.as_deref() {
            None | Some("trace") => Level::TRACE,
            Some("debug") => Level::DEBUG,
            Some("info") => Level::INFO,
            Some("warn") => Level::WARN,
            Some("error") => Level::ERROR,
            Some(_) => {
                let must = "must be `error`, `warn`, `info`, `debug` or `trace`";
                return Err(RequestError::out_of_range("level", must));
            }
        };
        let after = self.after.map(|after| {
            let must = "must be the number of an event";
            // As the document has it, which knows no larger ones.
            let number = after
                .parse()
                .ok()
                .filter(|&number| i64::try_from(number).is_ok());
            number.ok_or_else(|| RequestError::out_of_range("after", must))
        });
        let most = self.limit.map(|limit| {
            let limit = limit
                .parse()
                .ok()
                .filter(|limit| (1..=MOST).contains(limit));
            limit.ok_or_else(|| RequestError::out_of_range("limit", "must be from 1 to 10000"))
        });
        Ok(LogQuery {
            level,
            after: after.transpose()?,
            most: most.transpose()?.unwrap_or(USUAL),
        })
    }
}

/// What is wrong with a query that cannot be read.
fn refused(reason: &str) -> RequestError {
    let is_twice = |name: &&str| reason.contains(&format!("duplicate field `{name}`"));
    match ["level", "after", "limit"].into_iter().find(is_twice) {
        Some(name) => RequestError::out_of_range(name, "must not be there twice"),
        None => RequestError::WrongType {
            param: "query".to_owned(),
            reason: quote(reason),
        },
    }
}

/// Read the newest of the log
///
/// What `log.filter` lets through, within `admin.recent-log-bytes`. A client that asks again with `after` set to the
/// number of the last event has read misses nothing, or is told how much, as long as `start` stays the same.
#[utoipa::path(get, path = "/v1/admin/logs", tag = "admin", params(LogsQuery),
    responses(
        (status = 200, description = "The events", body = LogPage),
        (status = 400, description = "The query is wrong; `param` says where", body = ErrorBody)))]
pub(crate) async fn recent_logs(
    query: Result<Query<LogsQuery>, QueryRejection>,
) -> Result<Json<LogPage>, RequestError> {
    let Query(query) = query.map_err(|rejection| refused(&rejection.body_text()))?;
    let extract = recent_log().extract(query.read()?);
    Ok(Json(LogPage {
        start: id::of_this_start(),
        events: extract
            .events
            .iter()
            .map(|event| LogEvent::of(event))
            .collect(),
        last: extract.last,
        gone: extract.gone,
        log_entries_lost: log_entries_dropped(),
    }))
}
