//! `GET /metrics`: what was counted, and what is read only now.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::HttpState;
use super::error_body::ErrorBody;
use super::model_view::ModelState;
use super::request_error::RequestError;
use crate::board::NpuLoad;
use crate::generation::GenerationError;
use crate::telemetry::{MEDIA_TYPE, ModelFigures};

/// Counters and gauges for Prometheus
///
/// In the OpenMetrics text format. A figure that cannot be read is absent.
#[utoipa::path(get, path = "/metrics", tag = "daemon",
    responses(
        (status = 200, description = "The metrics",
            body = String, content_type = "application/openmetrics-text"),
        (status = 500, description = "A metric has no text form", body = ErrorBody)))]
pub(crate) async fn metrics(State(state): State<Arc<HttpState>>) -> Result<Response, RequestError> {
    let npu = NpuLoad::read().await;
    let engine = &state.engine;
    let statuses = engine.status().snapshot();
    let models: Vec<ModelFigures> = engine
        .catalog()
        .models()
        .iter()
        .map(|model| {
            let queue = engine.queue(&model.id);
            ModelFigures {
                model: Arc::clone(&model.id),
                phase: ModelState::of(statuses.get(&model.id)).phase,
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
    let page =
        engine
            .metrics()
            .render(&models, &npu)
            .map_err(|error| RequestError::Generation {
                error: GenerationError::Internal(error.to_string()),
                prompt_param: "",
            })?;
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))];
    Ok((headers, page).into_response())
}
