//! `GET /metrics`: what was counted, and what is read only now.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};

use crate::aside::aside;
use crate::generation::GenerationError;
use crate::http::HttpState;
use crate::http::request::access::Caller;
use crate::http::request::error::RequestError;
use crate::http::response::error_body::ErrorBody;
use crate::http::response::model_view::ModelState;
use crate::http::transport::accept;
use crate::telemetry::{self, ModelFigures, OwnFigures, PageFormat, Readings};

/// What a model that has been used takes of the page, about.
const MODEL_BYTES: usize = 16 * 1024;

/// Counters and gauges for Prometheus
///
/// In Prometheus' text format, or in that of OpenMetrics where `Accept` prefers it. A figure that cannot
/// be read is absent.
#[utoipa::path(get, path = "/metrics", tag = "daemon",
    responses(
        (status = 200, description = "The metrics", content(
            (String = "text/plain"),
            (String = "application/openmetrics-text"))),
        (status = 500, description = "A metric has no text form", body = ErrorBody)))]
pub(crate) async fn metrics(
    State(state): State<Arc<HttpState>>,
    headers: HeaderMap,
) -> Result<Response, RequestError> {
    let (format, media_type) = negotiated(&headers);
    let engine = &state.engine;
    let mut readings = Readings::now(engine.readers().as_ref()).await;
    let statuses = engine.status().snapshot();
    let models: Vec<ModelFigures> = engine
        .catalog()
        .models()
        .iter()
        .map(|model| {
            let queue = engine.queue(&model.id);
            ModelFigures {
                model: Arc::clone(&model.id),
                phase: ModelState::of(statuses.get(&model.id), &Caller::Stranger).phase,
                slots: statuses.get(&model.id).and_then(|status| status.slots),
                queue_length: queue.waiting,
                queue_capacity: queue.capacity,
                memory_bytes: statuses
                    .get(&model.id)
                    .and_then(|status| status.memory)
                    .map(|memory| memory.by_kind().collect())
                    .unwrap_or_default(),
            }
        })
        .collect();
    readings.own = OwnFigures {
        requests_memory_bytes: state.accountant.used_bytes(),
        requests_memory_refusals: state.accountant.refused(),
        tensors_memory_bytes: state.rpc.tensors.used_bytes(),
        tensors_memory_refusals: state.rpc.tensors.refused(),
        response_write_failures: state.kept_responses.disk_failures(),
        log_entries_dropped: telemetry::log_entries_dropped(),
        prefixes: engine
            .supervisor()
            .and_then(|supervisor| supervisor.prefixes().figures()),
    };
    readings.board = engine.board();
    let metrics = engine.metrics();
    let page = aside(models.len() * MODEL_BYTES, || {
        metrics.render(&models, &readings, format)
    });
    let page = page.map_err(|error| RequestError::Generation {
        error: GenerationError::Internal(error.to_string()),
        prompt_param: "",
    })?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::VARY, HeaderValue::from_name(header::ACCEPT)),
    ];
    Ok((headers, page).into_response())
}

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// An earlier draft, of which this page says the same.
const OPEN_METRICS_DRAFT: &str = "application/openmetrics-text; version=0.0.1; charset=utf-8";

/// OpenMetrics where it is asked for by name and no less than Prometheus' text; a client that accepts
/// neither gets that as well, which a person can read.
fn negotiated(headers: &HeaderMap) -> (PageFormat, &'static str) {
    let prometheus = (PageFormat::Prometheus, PROMETHEUS);
    let text = accept::wish(headers, ("text", "plain"), |_| true);
    let open = accept::wish(headers, ("application", "openmetrics-text"), |range| {
        matches!(range.parameter("version"), None | Some("1.0.0" | "0.0.1"))
    });
    let Some(open) = open else { return prometheus };
    let preferred = text.is_none_or(|text| {
        let first = open.by_name && (!text.by_name || open.place < text.place);
        open.quality > text.quality || open.quality == text.quality && first
    });
    match open.range.parameter("version") {
        _ if !preferred => prometheus,
        Some("0.0.1") => (PageFormat::OpenMetrics, OPEN_METRICS_DRAFT),
        _ => (PageFormat::OpenMetrics, OPEN_METRICS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_goes_to_clients_that_ask_for_it() {
        for (accept, expected) in [
            ("", PROMETHEUS),
            ("*/*", PROMETHEUS),
            ("text/plain", PROMETHEUS),
            ("text/plain;version=0.0.4", PROMETHEUS),
            ("text/html, */*;q=0.8", PROMETHEUS),
            ("application/json", PROMETHEUS),
            ("application/openmetrics-text", OPEN_METRICS),
            ("application/openmetrics-text; version=1.0.0", OPEN_METRICS),
            (
                "application/openmetrics-text;version=0.0.1",
                OPEN_METRICS_DRAFT,
            ),
            ("application/openmetrics-text;version=2.0.0", PROMETHEUS),
            ("application/openmetrics-text;q=0, */*", PROMETHEUS),
            (
                "application/openmetrics-text;q=0.3,text/plain;q=0.4",
                PROMETHEUS,
            ),
            ("application/openmetrics-text, */*", OPEN_METRICS),
            ("text/plain, application/openmetrics-text", PROMETHEUS),
            ("application/openmetrics-text, text/plain", OPEN_METRICS),
            ("text/plain;q=0, */*", OPEN_METRICS),
            // Prometheus 2.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                 version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OPEN_METRICS,
            ),
            // Prometheus 3.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
                 escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                OPEN_METRICS,
            ),
            // One that was told to prefer the text format.
            (
                "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,\
                 */*;q=0.1",
                PROMETHEUS,
            ),
        ] {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(negotiated(&headers).1, expected, "{accept}");
        }
    }
}
