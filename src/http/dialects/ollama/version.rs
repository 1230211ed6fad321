//! `GET /` and `GET /api/version`: by what a client knows that it has found such a server.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

/// The release of Ollama whose API this is, as far as it goes. Clients compare it with what they need.
const API_VERSION: &str = "0.12.6";

/// Which API this is, and whose.
#[derive(Serialize, ToSchema)]
pub(crate) struct VersionAnswer {
    /// The release of Ollama whose API is spoken.
    #[schema(example = "0.12.6")]
    version: &'static str,
    /// The daemon's own version.
    #[schema(example = "0.1.0")]
    rkllmd: &'static str,
}

/// Whether an Ollama runs
#[utoipa::path(get, path = "/", tag = "ollama",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")))]
pub(crate) async fn root() -> &'static str {
    "Ollama is running"
}

/// Which version of Ollama's API is spoken
#[utoipa::path(get, path = "/api/version", tag = "ollama",
    responses((status = 200, description = "The version", body = VersionAnswer)))]
pub(crate) async fn version() -> Json<VersionAnswer> {
    Json(VersionAnswer {
        version: API_VERSION,
        rkllmd: env!("CARGO_PKG_VERSION"),
    })
}
