//! Handles of the vendor's API, opened through the supervisor with real worker processes and the
//! fake runtime.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rkllmd::generation::ModelId;
use rkllmd::library_calls::{
    Call, CallState, CallbackResult, InferMode, InferParam, Input, LibraryError, Param,
    RowSelection, RunRequest, Tensor,
};
use rkllmd::models::Catalog;
use rkllmd::settings::Settings;
use rkllmd::supervisor::{HandleReset, LibraryHandle, RunEvent, RunStream, Supervisor};
use rkllmd::telemetry::Metrics;

use crate::daemon_support::{PATIENCE, fake_runtime};

pub const MODEL: &str = "m";

/// A supervisor with the models of a test.
pub struct Place {
    pub supervisor: Supervisor,
    pub metrics: Metrics,
    pub folder: tempfile::TempDir,
}

/// What a run gave.
#[derive(Debug, Default)]
pub struct Given {
    pub reset: Option<HandleReset>,
    pub results: Vec<CallbackResult>,
}

impl Place {
    /// One model, `MODEL`, that is `scenario`.
    pub fn new(family: &str, scenario: &str) -> Self {
        Self::with(family, &[(MODEL, scenario)], |_| {})
    }

    pub fn with(family: &str, models: &[(&str, &str)], change: impl FnOnce(&mut Settings)) -> Self {
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
        settings.models.minimum_residency = Duration::ZERO;
        settings.runtime.npu_library = fake_runtime(family);
        settings.library.state_dir = folder.path().join("state");
        settings.recovery.backoff_first = Duration::from_millis(10);
        change(&mut settings);
        let catalog = Catalog::scan(&models_dir).expect("a catalog");
        let metrics = Metrics::new();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_rkllmd"));
        let (supervisor, _status) =
            Supervisor::start_with_workers_of(program, &settings, &catalog, metrics.clone())
                .expect("a supervisor");
        Self {
            supervisor,
            metrics,
            folder,
        }
    }

    pub async fn open(&self) -> LibraryHandle {
        self.open_with(Param::default()).await.expect("a handle")
    }

    pub async fn open_with(&self, param: Param) -> Result<LibraryHandle, LibraryError> {
        let opened = self.supervisor.open_handle(ModelId::from(MODEL), param);
        in_time(opened).await
    }

    /// Orders a fault that waits for this file.
    pub fn order(&self, file: &str) {
        fs::write(self.folder.path().join("models").join(file), "").expect("a file");
    }

    /// The value of a series, by the beginning of its line.
    pub fn series(&self, beginning: &str) -> Option<f64> {
        let text = self
            .metrics
            .render(&[], &Default::default())
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
    let stream = in_time(handle.run(request)).await?;
    rest(stream).await
}

pub async fn rest(mut stream: RunStream) -> Result<Given, LibraryError> {
    let mut given = Given::default();
    loop {
        match in_time(stream.next()).await.expect("an end") {
            RunEvent::Started { handle_reset } => given.reset = handle_reset,
            RunEvent::Result(result) => given.results.push(result),
            RunEvent::Ended { code } => {
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
    in_time(handle.call(call)).await.map(|_| ())
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
    pub fn hidden(&self, slot: usize) -> &Tensor {
        let mut found = self
            .results
            .iter()
            .filter_map(|result| result.results.get(slot)?.last_hidden_layer.as_ref());
        found.next().expect("hidden states")
    }

    pub fn logits(&self) -> &Tensor {
        let mut found = self
            .results
            .iter()
            .filter_map(|result| result.results.first()?.logits.as_ref());
        found.next().expect("logits")
    }

    pub fn states(&self) -> Vec<CallState> {
        self.results.iter().map(|result| result.state).collect()
    }
}
