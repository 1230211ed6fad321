//! `GET /slots`: what the slots of loaded models do. Never what they hold: a prompt is its client's own.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::{Extension, Json};

use super::named::NamedByQuery;
use crate::http::HttpState;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::installed::installed;
use crate::http::response::error_body::ErrorBody;
use crate::http::response::model_view::SlotState;

/// What the slots of loaded models do
///
/// Of one model, or of all. A model that is not loaded has none.
#[utoipa::path(get, path = "/slots", tag = "llama-server", params(NamedByQuery),
    responses(
        (status = 200, description = "The slots", body = [SlotState]),
        (status = 404, description = "There is no such model", body = ErrorBody)))]
pub(crate) async fn slots(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    query: Result<Query<NamedByQuery>, QueryRejection>,
) -> Result<Json<Vec<SlotState>>, RequestError> {
    let name = NamedByQuery::name(query)?;
    let one = name.map(|name| installed(&state, &context, Some(&name)));
    let one = one.transpose()?;
    let models = match one {
        Some(model) => vec![model],
        None => state.engine.catalog().models().to_vec(),
    };
    let statuses = state.engine.status().snapshot();
    let mut slots = Vec::new();
    for model in models.iter().filter(|model| context.caller.may_use(model)) {
        let status = statuses.get(&model.id);
        slots.extend(
            status
                .into_iter()
                .flat_map(|status| SlotState::all_of(&model.id, status)),
        );
    }
    context.ended();
    Ok(Json(slots))
}
