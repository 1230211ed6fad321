//! What the supervisor lets others see: a snapshot per model, replaced as a whole at each change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::children::memory::ProcessMemory;
use crate::generation::{Abilities, Fingerprint, ModelId, Repeats, RunExtensions};
use crate::ipc::LoadFigures;
use crate::models::{InstalledModel, SlotPlan};
use crate::process_figures::ask_load_figures;
use crate::telemetry::Slots;

use super::keepers::Kept;

/// Where a model's worker is in its life.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// No worker; one is started on first use.
    Unloaded,
    /// The process is starting.
    Spawning,
    /// The library is being read, opened and probed.
    OpeningLibrary,
    /// The runtime is loading the model file.
    Loading,
    /// Loaded and waiting for work.
    Ready,
    /// Loaded and generating.
    Running,
    /// The worker is ending.
    Unloading,
    /// It could not be loaded, or its workers die again and again; nothing is tried before
    /// `retry_at`.
    Failed { reason: String, retry_at: Instant },
    /// The worker is still there although it was killed: only a reboot frees the NPU.
    Unkillable { reason: String },
}

impl Phase {
    /// The phase's name in the API.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unloaded => "unloaded",
            Self::Spawning => "spawning",
            Self::OpeningLibrary => "opening-library",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Unloading => "unloading",
            Self::Failed { .. } => "failed",
            Self::Unkillable { .. } => "unkillable",
        }
    }

    pub fn is_loaded(&self) -> bool {
        matches!(self, Self::Ready | Self::Running)
    }

    pub fn is_loading(&self) -> bool {
        matches!(self, Self::Spawning | Self::OpeningLibrary | Self::Loading)
    }
}

/// What is known about a loaded model's runtime; parsed from the library's bytes, the probe and the
/// lines the runtime printed while loading. Absent: it did not say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuntimeFacts {
    /// File the library was opened from.
    pub library_path: Option<String>,
    /// Version string found in that file.
    pub library_version: Option<String>,
    /// ABI family used to talk to it.
    pub abi_family: Option<String>,
    /// Runtime version as printed while loading.
    pub runtime_version: Option<String>,
    pub driver_version: Option<String>,
    pub platform: Option<String>,
    /// Version of the toolkit that converted the model.
    pub toolkit_version: Option<String>,
    /// Largest context the model file allows, in tokens.
    pub max_context_limit: Option<u32>,
    pub npu_core_num: Option<u32>,
    pub target_platform: Option<String>,
    pub model_dtype: Option<String>,
    /// Context the model was loaded with, in tokens.
    pub context_length: Option<u32>,
    /// Handles of the worker: answers that it makes at the same time.
    pub slots: Option<u8>,
    /// Tokens that they hold together at most, where they share their room.
    pub pool_tokens: Option<u32>,
    /// They are sequences of one handle, whose runs begin together (`batch`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_batch: bool,
    /// Whether sampling values and the token budget can differ from run to run (1.3.0 and later).
    pub per_run_parameters: Option<bool>,
    /// What its runs can be told beside their parameters.
    pub run_extensions: Option<RunExtensions>,
    /// Tells the model's file, as the worker has opened it, from every other.
    pub model_file: Option<String>,
    /// By their names, why adapters of the model cannot be used.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unusable_adapters: BTreeMap<String, String>,
}

impl RuntimeFacts {
    /// What is known of what it can do for one run.
    pub fn abilities(&self) -> Abilities {
        Abilities {
            per_run_parameters: self.per_run_parameters,
            run_extensions: self.run_extensions,
            tokens_agree: None,
            is_batch: self.is_batch,
        }
    }

    /// What an answer is made with, which repeats or need not; `None`: the runtime has not told of itself.
    pub fn fingerprint(&self, repeats: bool, adapter: Option<&str>) -> Option<Fingerprint> {
        let (file, library) = (self.model_file.as_ref()?, self.library_version.as_ref()?);
        let mut made_with = [env!("CARGO_PKG_VERSION"), library.as_str(), file.as_str()].join("\n");
        if let Some(stamp) = adapter {
            made_with += &format!("\n{stamp}");
        }
        let digest = Sha256::digest(made_with);
        let of: String = digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let repeats = match repeats {
            true => Repeats::Always,
            false => Repeats::NotSurely { slots: self.slots },
        };
        Some(Fingerprint {
            of: of.into(),
            repeats,
        })
    }
}

/// One model as seen from outside.
#[derive(Clone, Debug)]
pub struct ModelStatus {
    pub phase: Phase,
    /// When the phase began.
    pub since: Instant,
    /// The worker's process id while there is one.
    pub pid: Option<u32>,
    pub facts: Option<Arc<RuntimeFacts>>,
    /// Why no worker of this model can be started before the machine was rebooted.
    pub blocked: Option<String>,
    /// The worker's memory as it was measured last.
    pub memory: Option<ProcessMemory>,
    /// The slots that it is loaded with next, by its settings and the memory there is.
    pub plan: Option<SlotPlan>,
    /// Of the worker that is loaded.
    pub slots: Option<Slots>,
    /// Of the last answer, as the runtime measured it; without the first token.
    pub decode_tokens_per_second: Option<f64>,
    /// What keeps it loaded.
    pub kept: Kept,
}

/// Measured figures of a worker that is loading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadProgress {
    pub elapsed: Duration,
    /// Bytes the process has read so far (`rchar` of /proc/PID/io).
    pub read_bytes: Option<u64>,
    /// Resident memory of the process (/proc/PID/statm), file mappings included.
    pub resident_bytes: Option<u64>,
}

/// All models, by id.
pub type StatusSnapshot = Arc<BTreeMap<ModelId, ModelStatus>>;

/// Read access to the snapshots.
#[derive(Clone, Debug)]
pub struct StatusBoard {
    snapshot: watch::Receiver<StatusSnapshot>,
}

impl StatusBoard {
    pub fn new(snapshot: watch::Receiver<StatusSnapshot>) -> Self {
        Self { snapshot }
    }

    pub fn snapshot(&self) -> StatusSnapshot {
        self.snapshot.borrow().clone()
    }

    pub fn model(&self, id: &str) -> Option<ModelStatus> {
        self.snapshot.borrow().get(id).cloned()
    }

    /// Waits for the next change. Returns false once the supervisor has ended.
    pub async fn changed(&mut self) -> bool {
        self.snapshot.changed().await.is_ok()
    }
}

impl ModelStatus {
    /// Whether its worker, if there is one, has the adapter that `model` is made with, if it is made with one.
    pub fn has_adapter_of(&self, model: &InstalledModel) -> bool {
        let Some(adapter) = model.adapter() else {
            return true;
        };
        let is_told =
            |facts: &Arc<RuntimeFacts>| facts.unusable_adapters.contains_key(&*adapter.name);
        model.adapter_problem().is_none() && !self.facts.as_ref().is_some_and(is_told)
    }

    /// Measures the worker's progress now; `None` where the model is not loading.
    pub async fn load_progress(&self) -> Option<LoadProgress> {
        if !self.phase.is_loading() {
            return None;
        }
        let figures = match self.pid {
            Some(pid) => ask_load_figures(pid).await.unwrap_or_default(),
            None => LoadFigures::default(),
        };
        Some(LoadProgress {
            elapsed: self.since.elapsed(),
            read_bytes: figures.read_bytes,
            resident_bytes: figures.resident_bytes,
        })
    }
}
