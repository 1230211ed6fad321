//! Handles of the vendor's API, opened through the supervisor with real worker processes and the
//! fake runtime.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rkllmd::admission::{Admission, EmbeddingError, EmbeddingRequest};
use rkllmd::generation::{ClientKey, ModelId};
use rkllmd::library_calls::{
    Call, CallState, CallbackResult, CrossAttnParam, ExtendParam, InferMode, InferParam, Input,
    LibraryError, LoraAdapter, Param, PooledRows, Pooling, PromptCacheParam, RowSelection,
    RunRequest, Tensor, WantedRow,
};
use rkllmd::models::Catalog;
use rkllmd::reader::Readers;
use rkllmd::settings::Settings;
use rkllmd::supervisor::{
    HandleReset, LibraryHandle, RunEvent, RunServices, RunStream, Supervisor,
};
use rkllmd::telemetry::{Metrics, PageFormat};

use crate::daemon_support::{PATIENCE, fake_runtime};

pub const MODEL: &str = "m";

/// Who opens the handles of a test.
pub fn client() -> ClientKey {
    ClientKey::new("a client")
}

/// Who asks beside it.
pub fn another_client() -> ClientKey {
    ClientKey::new("another")
}

/// A supervisor with the models of a test.
pub struct TestSupervisor {
    pub supervisor: Supervisor,
    pub admission: Admission,
    pub metrics: Metrics,
    pub folder: tempfile::TempDir,
}

/// What a run gave.
#[derive(Debug, Default)]
pub struct Given {
    pub reset: Option<HandleReset>,
    pub results: Vec<CallbackResult>,
}

impl TestSupervisor {
    /// One model, `MODEL`, that is `scenario`.
    pub fn new(family: &str, scenario: &str) -> Self {
        Self::with(family, &[(MODEL, scenario)], |_| {})
    }

    pub fn with(family: &str, models: &[(&str, &str)], change: impl FnOnce(&mut Settings)) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_rkllmd"));
        Self::with_workers_of(program, family, models, change)
    }

    /// As `with`, with another program's workers.
    pub fn with_workers_of(
        workers: PathBuf,
        family: &str,
        models: &[(&str, &str)],
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let models_dir = folder.path().join("models");
        let adapters = folder.path().join("state/adapters");
        fs::create_dir_all(&models_dir).expect("a folder");
        fs::create_dir_all(&adapters).expect("a folder");
        fs::write(adapters.join("style.rkllm"), "an adapter").expect("an adapter");
        for (name, scenario) in models {
            fs::write(models_dir.join(format!("{name}.rkllm")), scenario).expect("a model");
        }
        let mut settings = Settings::default();
        settings.models.dir = models_dir.clone();
        // What the fake runtime writes down it writes beside its models.
        settings.confinement.worker_writes = vec![models_dir.clone()];
        settings.models.minimum_residency = Duration::ZERO;
        settings.runtime.npu_library = fake_runtime(family);
        settings.library.state_dir = folder.path().join("state");
        settings.recovery.backoff_first = Duration::from_millis(10);
        change(&mut settings);
        let metrics = Metrics::new();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_rkllmd"));
        let catalog = Catalog::scan_apart(&settings, Some(program.clone())).expect("a catalog");
        let readers = Readers::start_with_readers_of(program, &settings, metrics.clone());
        let (supervisor, _status) =
            Supervisor::start_with_workers_of(workers, &settings, &catalog, metrics.clone())
                .expect("a supervisor");
        let services = RunServices {
            supervisor: supervisor.clone(),
            readers: readers.expect("readers"),
            metrics: metrics.clone(),
        };
        let installed = catalog.models().iter().map(|model| model.id.clone());
        let admission = Admission::start(services, installed, settings.queue.clone());
        Self {
            supervisor,
            admission,
            metrics,
            folder,
        }
    }

    pub async fn open(&self) -> LibraryHandle {
        self.open_with(Param::default()).await.expect("a handle")
    }

    pub async fn open_with(&self, param: Param) -> Result<LibraryHandle, LibraryError> {
        let opened = self
            .supervisor
            .open_handle(client(), ModelId::from(MODEL), param);
        in_time(opened).await
    }

    /// A row of hidden states for each input, as a client of the HTTP API gets them.
    pub async fn pooled(
        &self,
        inputs: Vec<Input>,
        pooling: Pooling,
    ) -> Result<PooledRows, EmbeddingError> {
        let request = EmbeddingRequest {
            adapter: None,
            model: ModelId::from(MODEL),
            client: another_client(),
            inputs,
            wanted: WantedRow::HiddenState(pooling),
            least_columns: None,
            total_deadline: None,
            keep_alive: None,
            account: None,
        };
        in_time(self.admission.embed(request)).await
    }

    /// Orders a fault that waits for this file.
    pub fn order(&self, file: &str) {
        fs::write(self.folder.path().join("models").join(file), "").expect("a file");
    }

    /// Waits until so many requests wait for a worker.
    pub async fn until_waiting(&self, count: usize) {
        in_time(async {
            while self.supervisor.waiting().await != count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// The value of a series, by the beginning of its line.
    pub fn series(&self, beginning: &str) -> Option<f64> {
        let text = self
            .metrics
            .render(&[], &Default::default(), PageFormat::OpenMetrics)
            .expect("metrics");
        let line = text.lines().find(|line| line.starts_with(beginning))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Waits until a series has this value.
    pub async fn until_series(&self, beginning: &str, value: f64) {
        in_time(async {
            while self.series(beginning) != Some(value) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

pub async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("it ends in time")
}

/// A run to its end.
pub async fn run(handle: &LibraryHandle, request: RunRequest) -> Result<Given, LibraryError> {
    let stream = in_time(handle.run(request, None)).await?;
    rest(stream).await
}

pub async fn rest(mut stream: RunStream) -> Result<Given, LibraryError> {
    let mut given = Given::default();
    loop {
        match in_time(stream.next()).await.expect("an end") {
            RunEvent::Started { handle_reset } => given.reset = handle_reset,
            RunEvent::Result(result) => given.results.push(result),
            RunEvent::Ended { code, .. } => {
                assert_eq!(code, 0);
                assert!(
                    in_time(stream.next()).await.is_none(),
                    "nothing after the end"
                );
                return Ok(given);
            }
            RunEvent::Failed(error) => return Err(error),
        }
    }
}

pub async fn call(handle: &LibraryHandle, call: Call) -> Result<(), LibraryError> {
    in_time(handle.call(call, None)).await.map(|_| ())
}

pub fn prompt(text: &str) -> RunRequest {
    RunRequest {
        inputs: vec![Input::prompt(text)],
        ..RunRequest::default()
    }
}

pub fn matrices(text: &str, mode: InferMode, rows: RowSelection) -> RunRequest {
    RunRequest {
        inputs: vec![Input::prompt(text)],
        infer: InferParam {
            mode,
            ..InferParam::default()
        },
        rows,
        ..RunRequest::default()
    }
}

pub fn keeping(text: &str) -> RunRequest {
    let mut request = prompt(text);
    request.infer.keep_history = 1;
    request
}

/// A template that leaves a prompt as it is.
pub fn raw_template() -> Call {
    template("", "", "")
}

pub fn template(system: &str, prefix: &str, postfix: &str) -> Call {
    Call::SetChatTemplate {
        system_prompt: system.to_owned(),
        prompt_prefix: prefix.to_owned(),
        prompt_postfix: postfix.to_owned(),
    }
}

/// A tensor with its values in memory, wherever they came from.
#[derive(Debug, PartialEq)]
pub struct WholeTensor {
    pub num_tokens: usize,
    pub shape: [usize; 2],
    pub data: Vec<f32>,
}

impl From<&Tensor> for WholeTensor {
    fn from(tensor: &Tensor) -> Self {
        Self {
            num_tokens: tensor.num_tokens,
            shape: tensor.shape,
            data: tensor.values.to_vec().expect("all values"),
        }
    }
}

impl Given {
    /// The text of the first sequence.
    pub fn text(&self) -> String {
        let texts = self.results.iter().filter_map(|result| {
            let first = result.results.first()?;
            first.text.as_deref()
        });
        texts.collect()
    }

    /// The hidden states of a sequence.
    pub fn hidden(&self, slot: usize) -> WholeTensor {
        let mut found = self
            .results
            .iter()
            .filter_map(|result| result.results.get(slot)?.last_hidden_layer.as_ref());
        found.next().expect("hidden states").into()
    }

    pub fn logits(&self) -> WholeTensor {
        let mut found = self
            .results
            .iter()
            .filter_map(|result| result.results.first()?.logits.as_ref());
        found.next().expect("logits").into()
    }

    pub fn states(&self) -> Vec<CallState> {
        self.results.iter().map(|result| result.state).collect()
    }
}

pub fn lora(name: &str) -> Call {
    Call::LoadLora(LoraAdapter {
        lora_adapter_path: "style.rkllm".to_owned(),
        lora_adapter_name: name.to_owned(),
        scale: 0.5,
    })
}

pub fn tools() -> Call {
    Call::SetFunctionTools {
        system_prompt: "Use them.".to_owned(),
        tools: "[{\"name\":\"clock\"}]".to_owned(),
        tool_response_str: "tool_response".to_owned(),
    }
}

pub fn cross_attention() -> Call {
    Call::SetCrossAttnParams(CrossAttnParam {
        encoder_k_cache: vec![1.5; 4],
        encoder_v_cache: vec![2.5; 4],
        encoder_mask: vec![3.5; 2],
        encoder_pos: vec![4; 2],
        num_tokens: 2,
    })
}

pub fn saving(text: &str, cache: &str) -> RunRequest {
    let mut request = prompt(text);
    request.infer.prompt_cache_params = Some(PromptCacheParam {
        save_prompt_cache: 1,
        prompt_cache_path: cache.to_owned(),
    });
    request
}

pub fn cross_attending() -> Param {
    Param {
        extend_param: ExtendParam {
            use_cross_attn: Some(1),
            ..ExtendParam::default()
        },
        ..Param::default()
    }
}
