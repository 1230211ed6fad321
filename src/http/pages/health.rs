use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

/// The process lives and answers.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether the process lives
///
/// Says nothing about models; see `/v1/ready`.
#[utoipa::path(get, path = "/health", tag = "daemon",
    responses((status = 200, description = "The process answers", body = Health)))]
pub(crate) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}
