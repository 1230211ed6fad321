//! `GET /v1/status`: the board, and what the daemon does on it, for administrators.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::readiness::ModelReadiness;
use crate::board::{BoardReadings, BoardSample};
use crate::confinement::Landlock;
use crate::http::HttpState;
use crate::http::request::access::Caller;
use crate::http::request::context::RequestContext;
use crate::http::response::model_view::SlotState;
use crate::models::InstalledModel;
use crate::settings::ConfinementSettings;
use crate::supervisor::{ModelStatus, StatusSnapshot};

/// The answer of `/v1/status`. What is not known is null.
#[derive(Serialize, ToSchema)]
pub(crate) struct DaemonStatus {
    versions: Versions,
    /// What the board's sensors told last. Null before the first look, and where `board.interval` is 0.
    board: Option<BoardStatus>,
    confinement: ConfinementStatus,
    /// The installed models.
    models: Vec<ModelOverview>,
}

/// What runs here.
#[derive(Serialize, ToSchema)]
pub(crate) struct Versions {
    /// The daemon's.
    #[schema(example = "0.1.0")]
    daemon: &'static str,
    /// Release of the board's kernel.
    kernel: Option<String>,
    /// Version of the NPU's kernel driver.
    npu_driver: Option<String>,
    /// The libraries of models that are or were loaded.
    #[schema(value_type = Vec<String>)]
    libraries: BTreeSet<String>,
}

impl Versions {
    fn of(board: Option<&BoardReadings>, statuses: &StatusSnapshot) -> Self {
        let facts = statuses.values().filter_map(|status| status.facts.as_ref());
        let identity = board.map(|board| &board.identity);
        Self {
            daemon: env!("CARGO_PKG_VERSION"),
            kernel: identity.and_then(|identity| identity.kernel.clone()),
            npu_driver: identity.and_then(|identity| identity.npu_driver.clone()),
            libraries: facts
                .filter_map(|facts| facts.library_version.clone())
                .collect(),
        }
    }
}

/// Who reaches nothing but its own files. Readers never do.
#[derive(Serialize, ToSchema)]
pub(crate) struct ConfinementStatus {
    /// Version of the kernel's Landlock that is used. Null: it has none, and the other walls stand.
    #[schema(example = 6)]
    landlock: Option<u8>,
    /// Why there is none.
    reason: Option<&'static str>,
    /// Whether workers are confined that are loaded from now on.
    workers: bool,
    /// Whether pulls are.
    pulls: bool,
}

impl ConfinementStatus {
    fn of(wanted: &ConfinementSettings) -> Self {
        let landlock = Landlock::of_this_machine();
        let version = landlock.version();
        Self {
            landlock: version,
            reason: match landlock {
                Landlock::There(_) => None,
                Landlock::Missing(reason) => Some(reason),
            },
            workers: wanted.workers && version.is_some(),
            pulls: wanted.pulls && landlock.lets_folders_move(),
        }
    }
}

/// The board at the last look at its sensors.
#[derive(Serialize, ToSchema)]
pub(crate) struct BoardStatus {
    /// Milliseconds since that look.
    age_ms: u64,
    /// Reads of sensors that took too long, since the start.
    read_timeouts: u64,
    #[serde(flatten)]
    readings: BoardReadings,
}

impl BoardStatus {
    fn of(sample: &BoardSample) -> Self {
        Self {
            age_ms: u64::try_from(sample.taken.elapsed().as_millis()).unwrap_or(u64::MAX),
            read_timeouts: sample.read_timeouts,
            readings: sample.readings.clone(),
        }
    }
}

/// A model, its queue, and what its worker does.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelOverview {
    #[serde(flatten)]
    readiness: ModelReadiness,
    /// The slots of its worker; none while it is not loaded.
    slots: Vec<SlotState>,
    /// Tokens a second of its last answer.
    decode_tokens_per_second: Option<f64>,
    /// What its worker holds, in bytes, by kind: `anonymous`, `shared`, `npu`.
    #[schema(value_type = Option<std::collections::HashMap<String, u64>>)]
    memory_bytes: Option<BTreeMap<&'static str, u64>>,
}

impl ModelOverview {
    fn of(
        state: &HttpState,
        model: &InstalledModel,
        status: Option<&ModelStatus>,
        caller: &Caller,
    ) -> Self {
        let slots = status.map(|status| SlotState::all_of(&model.id, status).collect());
        let memory = status.and_then(|status| status.memory.as_ref());
        Self {
            readiness: ModelReadiness::of(state, model, status, caller),
            slots: slots.unwrap_or_default(),
            decode_tokens_per_second: status.and_then(|status| status.decode_tokens_per_second),
            memory_bytes: memory.map(|memory| memory.by_kind().collect()),
        }
    }
}

/// The board and the models
///
/// What the board's sensors told at the last look, each model with its queue and slots, who is confined to its
/// own files, and the versions of what runs. Nothing is read for it but what is known already.
#[utoipa::path(get, path = "/v1/status", tag = "daemon",
    responses((status = 200, description = "How everything is", body = DaemonStatus)))]
pub(crate) async fn status(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
) -> Json<DaemonStatus> {
    let board = state.engine.board();
    let board = board.as_deref();
    let statuses = state.engine.status().snapshot();
    let catalog = state.engine.catalog();
    let models = catalog.models().iter();
    Json(DaemonStatus {
        versions: Versions::of(board.map(|sample| &sample.readings), &statuses),
        board: board.map(BoardStatus::of),
        confinement: ConfinementStatus::of(&state.confinement),
        models: models
            .map(|model| {
                let status = statuses.get(&model.id);
                ModelOverview::of(&state, model, status, &context.caller)
            })
            .collect(),
    })
}
