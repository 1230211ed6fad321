//! What the API shows of an installed model and its worker. What is not known is absent.

use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;

use crate::generation::ModelId;
use crate::http::request::access::Caller;
use crate::http::response::clock;
use crate::http::status::whole_seconds;
use crate::models::{InstalledModel, ModelKind, SlotPlan, TemplateState};
use crate::supervisor::{ModelStatus, Phase, RuntimeFacts};

/// Where a model's worker is in its life.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelState {
    /// `unloaded`, `spawning`, `opening-library`, `loading`, `ready`, `running`, `unloading`,
    /// `failed` or `unkillable`.
    #[schema(example = "ready")]
    pub phase: &'static str,
    /// Milliseconds since the phase began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Why it failed or cannot be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Seconds until loading is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// When a loaded model is unloaded unless it is used again, or where it is used now: if that ended
    /// now. Absent where no time unloads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-11-29T15:04:05.123456789Z")]
    pub expires_at: Option<String>,
}

/// When a loaded model is unloaded, as things are now; `None`: no time unloads it.
pub(crate) fn expires_at(status: &ModelStatus) -> Option<String> {
    let now = Instant::now();
    let until = status.phase.is_loaded().then(|| status.kept.until(now))?;
    Some(clock::in_future(
        until.time()?.saturating_duration_since(now),
    ))
}

impl ModelState {
    /// A model without a status has never been touched.
    pub fn of(status: Option<&ModelStatus>, caller: &Caller) -> Self {
        let Some(status) = status else {
            return Self {
                phase: Phase::Unloaded.name(),
                since_ms: None,
                reason: None,
                retry_after: None,
                expires_at: None,
            };
        };
        let (reason, retry_after) = match &status.phase {
            Phase::Failed { reason, retry_at } => {
                let wait = retry_at.checked_duration_since(Instant::now());
                (
                    Some(caller.may_read(reason.clone())),
                    wait.map(whole_seconds),
                )
            }
            Phase::Unkillable { reason } => (Some(caller.may_read(reason.clone())), None),
            _ => (None, None),
        };
        Self {
            phase: status.phase.name(),
            since_ms: u64::try_from(status.since.elapsed().as_millis()).ok(),
            reason,
            retry_after,
            expires_at: expires_at(status),
        }
    }
}

/// One slot of a loaded model.
#[derive(Serialize, ToSchema)]
pub(crate) struct SlotState {
    /// Its number among the model's, from 0.
    id: u8,
    /// Id of the model.
    #[schema(value_type = String)]
    model: ModelId,
    /// Context in tokens, where the runtime told.
    #[serde(skip_serializing_if = "Option::is_none")]
    n_ctx: Option<u32>,
    /// Whether a request has it.
    is_processing: bool,
}

impl SlotState {
    pub fn all_of(model: &ModelId, status: &ModelStatus) -> impl Iterator<Item = Self> {
        let facts = status.facts.as_deref();
        let n_ctx = facts.and_then(|facts| facts.context_length);
        let slots = status.slots.into_iter();
        let slots = slots.flat_map(|slots| (0..slots.all).map(move |id| (id, slots.is_busy(id))));
        slots.map(move |(id, is_processing)| Self {
            id,
            model: Arc::clone(model),
            n_ctx,
            is_processing,
        })
    }
}

/// Whether a model is loaded, in the words of llama.cpp's server.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LoadStatus {
    /// `unloaded`, `loading` or `loaded`; one whose worker is ending is `unloaded` already.
    #[schema(example = "loaded")]
    pub value: &'static str,
    /// There where it could not be loaded, or cannot be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = true)]
    pub failed: Option<bool>,
}

impl LoadStatus {
    pub fn of(status: Option<&ModelStatus>) -> Self {
        let phase = status.map_or(&Phase::Unloaded, |status| &status.phase);
        Self {
            value: match phase {
                phase if phase.is_loaded() => "loaded",
                phase if phase.is_loading() => "loading",
                _ => "unloaded",
            },
            failed: matches!(phase, Phase::Failed { .. } | Phase::Unkillable { .. })
                .then_some(true),
        }
    }
}

/// What the runtime said about itself and the model while loading it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Runtime {
    /// Version string found in the library's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    library_version: Option<String>,
    /// ABI family used to talk to the library.
    #[serde(skip_serializing_if = "Option::is_none")]
    abi_family: Option<String>,
    /// Version the runtime printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime_version: Option<String>,
    /// Version of the NPU's kernel driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    driver_version: Option<String>,
    /// The SoC the runtime found.
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
    /// Version of the toolkit that converted the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    toolkit_version: Option<String>,
    /// Largest context the model file allows, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_context_limit: Option<u32>,
    /// NPU cores the model was converted for.
    #[serde(skip_serializing_if = "Option::is_none")]
    npu_core_num: Option<u32>,
    /// The SoC the model was converted for.
    #[serde(skip_serializing_if = "Option::is_none")]
    target_platform: Option<String>,
    /// Quantisation, such as `W8A8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    model_dtype: Option<String>,
    /// Context the model was loaded with, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u32>,
    /// Answers that the model makes at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<u8>,
    /// Tokens that all slots hold together at most; absent where each has a context of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_tokens: Option<u32>,
    /// Whether sampling values and the token budget can differ from request to request.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_run_parameters: Option<bool>,
}

impl Runtime {
    /// All facts but the library's path, which is the host's own business.
    pub fn of(facts: &RuntimeFacts) -> Self {
        Self {
            library_version: facts.library_version.clone(),
            abi_family: facts.abi_family.clone(),
            runtime_version: facts.runtime_version.clone(),
            driver_version: facts.driver_version.clone(),
            platform: facts.platform.clone(),
            toolkit_version: facts.toolkit_version.clone(),
            max_context_limit: facts.max_context_limit,
            npu_core_num: facts.npu_core_num,
            target_platform: facts.target_platform.clone(),
            model_dtype: facts.model_dtype.clone(),
            context_length: facts.context_length,
            slots: facts.slots,
            pool_tokens: facts.pool_tokens,
            per_run_parameters: facts.per_run_parameters,
        }
    }
}

/// From where it is known how a model writes thoughts and calls: `model.toml`, `response_template` (of its
/// tokenizer_config.json), `template` (what its template writes of a conversation), a family that the template speaks of, `generic` (it is told a form in words) or
/// `none`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Replies {
    /// Where it is known from how thoughts are marked.
    #[schema(example = "template")]
    thoughts: String,
    /// Where it is known from how calls are written.
    #[schema(example = "template")]
    calls: String,
    /// Why what was found is not used, so that all of a reply is content.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// Why thoughts or calls may be content all the same; absent where nothing is known to be amiss.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

/// What the daemon adds to OpenAI's description of a model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelDetails {
    /// Other names the model answers to.
    aliases: Vec<String>,
    /// The model file's kind: `rkllm` (NPU) or `gguf` (CPU).
    #[schema(example = "rkllm")]
    kind: &'static str,
    /// Size of the model file.
    size_bytes: u64,
    /// Context in tokens: what it is loaded with, else what it is set to be loaded with.
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u32>,
    /// Whether a chat template is installed; without one only `/v1/completions` answers.
    has_chat_template: bool,
    /// Whether answers can be kept to a format (`response_format` and its like, `tool_choice`): the bytes of its
    /// tokens are known, by its GGUF file or the `tokenizer.json` beside it.
    keeps_formats: bool,
    /// How its replies are read; absent without a chat template.
    #[serde(skip_serializing_if = "Option::is_none")]
    replies: Option<Replies>,
    /// The slots that it is loaded with next, and by what formula.
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<SlotPlan>,
    state: ModelState,
    /// Known once the model was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<Runtime>,
}

impl ModelDetails {
    pub fn of(model: &InstalledModel, status: Option<&ModelStatus>, caller: &Caller) -> Self {
        let facts = status.and_then(|status| status.facts.as_deref());
        Self {
            aliases: model.facts.aliases.clone(),
            kind: match model.facts.kind {
                ModelKind::Rkllm => "rkllm",
                ModelKind::Gguf => "gguf",
            },
            size_bytes: model.facts.size_bytes,
            context_length: facts
                .and_then(|facts| facts.context_length)
                .or(model.facts.context_length),
            has_chat_template: matches!(model.template, TemplateState::Usable { .. }),
            keeps_formats: model.keeps_formats(),
            replies: model.reply.as_ref().map(|reply| Replies {
                thoughts: reply.found.reasoning_from.to_string(),
                calls: reply.found.calls_from.to_string(),
                problem: reply.unused.as_ref().map(ToString::to_string),
                notes: reply.found.notes.iter().map(ToString::to_string).collect(),
            }),
            slots: status.and_then(|status| status.plan),
            state: ModelState::of(status, caller),
            runtime: facts.map(Runtime::of),
        }
    }
}
