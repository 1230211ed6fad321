//! Every metric's name is in this file or its part `now`. Nothing here invents a value: a counter counts
//! what happened, a gauge is read when a client asks, and what cannot be read is absent.
//!
//! Labels are bounded: models are those of the catalog (empty where a request named none), the rest
//! are names from the source. A token updates nothing here.

mod labels;
mod now;
#[cfg(test)]
mod tests;
mod text_format;

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use labels::{ByCall, ByCause, ByDeadline, ByModel, ByOutcome, ByReason, ByRun};

use super::own_process::OwnProcess;
use crate::board::NpuLoad;
use crate::generation::Deadline;
use crate::reader::{ReaderFigures, Readers};

/// How the metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFormat {
    /// Prometheus' own text format.
    Prometheus,
    OpenMetrics,
}

const PREFIX: &str = "rkllmd";

type Counters<L> = Family<L, Counter>;
type Histograms = Family<ByModel, Histogram, fn() -> Histogram>;

/// The daemon's counters and histograms; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    requests: Counters<ByOutcome>,
    queue_wait: Histograms,
    time_to_first_token: Histograms,
    prompt_tokens: Counters<ByModel>,
    completion_tokens: Counters<ByModel>,
    rpc_calls: Counters<ByCall>,
    rpc_runs: Counters<ByRun>,
    rpc_prompt_tokens: Counters<ByRun>,
    rpc_completion_tokens: Counters<ByRun>,
    worker_exits: Counters<ByCause>,
    deadlines_passed: Counters<ByDeadline>,
    runs_resumed: Counters<ByModel>,
    runs_repeated: Counters<ByModel>,
    resumes_refused: Counters<ByReason>,
    resume_gap: Histograms,
    resume_overhead: Histograms,
    model_load: Histograms,
    model_load_failures: Counters<ByModel>,
    prefix_hits: Counters<ByModel>,
    prefix_loads: Counters<ByModel>,
    prefix_loaded_bytes: Counters<ByModel>,
    prefix_saves: Counters<ByModel>,
    prefix_written_bytes: Counters<ByModel>,
    prefix_failures: Counters<ByReason>,
}

/// A run of the vendor's functions that ended.
#[derive(Clone, Debug)]
pub struct RpcRun {
    pub model: Arc<str>,
    /// The method's name.
    pub method: &'static str,
    /// `complete`, `cancelled` or the error's stable name.
    pub outcome: &'static str,
    /// Tokens that the library evaluated; 0 where it did not tell.
    pub prompt_tokens: u64,
    /// Tokens that the library handed over.
    pub completion_tokens: u64,
}

/// Slots of a worker.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    pub all: u8,
    pub in_use: u8,
}

/// One model as it is when the metrics are asked for.
#[derive(Clone, Debug)]
pub struct ModelFigures {
    pub model: Arc<str>,
    /// The phase's name in the API.
    pub phase: &'static str,
    /// Slots of the worker that is loaded, and how many of them are in use.
    pub slots: Option<Slots>,
    /// Requests in the model's queue.
    pub queue_length: usize,
    /// Requests the queue holds at most.
    pub queue_capacity: usize,
    /// Bytes that the worker holds, by kind, as they were measured last.
    pub memory_bytes: Vec<(&'static str, u64)>,
}

/// What the daemon holds and had to drop, as it is when the metrics are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnFigures {
    /// Bytes charged to requests and answers.
    pub requests_memory_bytes: u64,
    /// How often there was no memory for a request.
    pub requests_memory_refusals: u64,
    /// Bytes of tensors in files that wait for their readers.
    pub tensors_memory_bytes: u64,
    /// How often there was no memory for a tensor.
    pub tensors_memory_refusals: u64,
    /// Log entries that were dropped because they were not read.
    pub log_entries_dropped: u64,
    /// `None`: none are kept.
    pub prefixes: Option<PrefixFigures>,
}

/// Prefixes of conversations on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixFigures {
    pub files: usize,
    pub bytes: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running program", version);
        let mut add = Registrar(&mut registry);
        let inner = Inner {
            requests: add.counters(
                "requests",
                "Generation requests that ended, by outcome: complete, cancelled (the client left) or the code of the error",
            ),
            queue_wait: add.histograms(
                "queue_wait",
                "From a request's entering the queue to its being handed to a worker",
                queue_wait_buckets,
            ),
            time_to_first_token: add.histograms(
                "time_to_first_token",
                "From a request's header to the first text of its answer",
                first_token_buckets,
            ),
            prompt_tokens: add.counters(
                "prompt_tokens",
                "Prompt tokens of complete answers, cached ones included, where their number is known",
            ),
            completion_tokens: add.counters(
                "completion_tokens",
                "Tokens generated for complete answers",
            ),
            rpc_calls: add.counters(
                "rpc_calls",
                "Calls over JSON-RPC that ended, by method (`other`: none of that name) and outcome: complete, cancelled (the client left) or the name of the error",
            ),
            rpc_runs: add.counters(
                "rpc_runs",
                "Runs over JSON-RPC that ended, by method and outcome",
            ),
            rpc_prompt_tokens: add.counters(
                "rpc_prompt_tokens",
                "Prompt tokens that runs over JSON-RPC evaluated, where the library told their number: runs of one sequence that ended by themselves",
            ),
            rpc_completion_tokens: add.counters(
                "rpc_completion_tokens",
                "Tokens that runs over JSON-RPC generated, those of broken runs included",
            ),
            worker_exits: add.counters("worker_exits", "Worker processes that ended, by cause"),
            deadlines_passed: add.counters("deadlines_passed", "Waits that took too long, by deadline"),
            runs_resumed: add.counters(
                "runs_resumed",
                "Answers that went on with another worker after theirs had died",
            ),
            runs_repeated: add.counters(
                "runs_repeated",
                "Requests run again because their worker died before the first token",
            ),
            resumes_refused: add.counters(
                "resumes_refused",
                "Answers that ended with their worker because they could not be resumed, by reason",
            ),
            resume_gap: add.histograms(
                "resume_gap",
                "From a worker's exit to the next token of the answer it was serving",
                resume_gap_buckets,
            ),
            resume_overhead: add.histograms(
                "resume_overhead",
                "What of a resume gap is neither the next worker's start and load nor its prefill",
                resume_overhead_buckets,
            ),
            model_load: add.histograms(
                "model_load",
                "From starting a worker to its model being loaded",
                model_load_buckets,
            ),
            model_load_failures: add.counters("model_load_failures", "Loads that failed"),
            prefix_hits: add.counters(
                "prefix_hits",
                "Runs that were spared evaluation by a prefix of their prompt that was loaded",
            ),
            prefix_loads: add.counters("prefix_loads", "Prefixes of conversations that were loaded"),
            prefix_loaded_bytes: add.counters("prefix_loaded_bytes", "Bytes of those"),
            prefix_saves: add.counters("prefix_saves", "Prefixes of conversations that were written"),
            prefix_written_bytes: add.counters("prefix_written_bytes", "Bytes of those"),
            prefix_failures: add.counters(
                "prefix_failures",
                "Prefixes of conversations that the library did not save or load, by what it was to do",
            ),
            registry,
        };
        Self(Arc::new(inner))
    }

    /// A generation request ended. `outcome`: `complete`, `cancelled` or the error's stable code.
    pub fn request_ended(&self, model: &str, outcome: &'static str) {
        let model = model.to_owned();
        let labels = ByOutcome { model, outcome };
        self.0.requests.get_or_create(&labels).inc();
    }

    /// A request was handed to a worker `seconds` after it had entered the queue.
    pub fn queue_wait(&self, model: &str, seconds: f64) {
        observe(&self.0.queue_wait, model, seconds);
    }

    /// The first text of an answer is there, `seconds` after its request's header.
    pub fn time_to_first_token(&self, model: &str, seconds: f64) {
        observe(&self.0.time_to_first_token, model, seconds);
    }

    /// Tokens of a complete answer; 0 where a number is not known.
    pub fn tokens(&self, model: &str, prompt: u64, completion: u64) {
        let families = [
            (&self.0.prompt_tokens, prompt),
            (&self.0.completion_tokens, completion),
        ];
        for (family, tokens) in families {
            // No series for a model whose prompts were never counted.
            if tokens > 0 {
                family.get_or_create(&ByModel::new(model)).inc_by(tokens);
            }
        }
    }

    /// A call over JSON-RPC ended. `method`: a name from the source, or `other`. `outcome`:
    /// `complete`, `cancelled` or the error's stable name.
    pub fn rpc_call_ended(&self, method: &'static str, outcome: &'static str) {
        let labels = ByCall { method, outcome };
        self.0.rpc_calls.get_or_create(&labels).inc();
    }

    /// A run over JSON-RPC ended, be it with its call or after it.
    pub fn rpc_run_ended(&self, run: &RpcRun) {
        let labels = ByRun {
            model: run.model.to_string(),
            method: run.method,
            outcome: run.outcome,
        };
        self.0.rpc_runs.get_or_create(&labels).inc();
        let families = [
            (&self.0.rpc_prompt_tokens, run.prompt_tokens),
            (&self.0.rpc_completion_tokens, run.completion_tokens),
        ];
        for (family, tokens) in families {
            if tokens > 0 {
                family.get_or_create(&labels).inc_by(tokens);
            }
        }
    }

    /// A worker process ended.
    pub fn worker_exited(&self, model: &str, cause: &'static str) {
        let model = model.to_owned();
        let labels = ByCause { model, cause };
        self.0.worker_exits.get_or_create(&labels).inc();
    }

    /// A wait took longer than its deadline allows.
    pub fn deadline_passed(&self, deadline: Deadline) {
        let deadline = deadline.name();
        let labels = ByDeadline { deadline };
        self.0.deadlines_passed.get_or_create(&labels).inc();
    }

    /// An answer goes on with another worker.
    pub fn run_resumed(&self, model: &str) {
        self.0
            .runs_resumed
            .get_or_create(&ByModel::new(model))
            .inc();
    }

    /// A request is run again; nothing of its answer had been made.
    pub fn run_repeated(&self, model: &str) {
        self.0
            .runs_repeated
            .get_or_create(&ByModel::new(model))
            .inc();
    }

    /// An answer ended because it could not go on with another worker.
    pub fn resume_refused(&self, model: &str, reason: &'static str) {
        let model = model.to_owned();
        let labels = ByReason { model, reason };
        self.0.resumes_refused.get_or_create(&labels).inc();
    }

    /// From a worker's exit to the next token of the answer it was serving.
    pub fn resume_gap(&self, model: &str, seconds: f64) {
        observe(&self.0.resume_gap, model, seconds);
    }

    /// What of a resume gap is neither the next worker's start and load nor its prefill: the
    /// daemon's own share, and waits for the model's turn.
    pub fn resume_overhead(&self, model: &str, seconds: f64) {
        observe(&self.0.resume_overhead, model, seconds);
    }

    /// A model was loaded.
    pub fn model_loaded(&self, model: &str, seconds: f64) {
        observe(&self.0.model_load, model, seconds);
    }

    /// A model could not be loaded.
    pub fn load_failed(&self, model: &str) {
        let family = &self.0.model_load_failures;
        family.get_or_create(&ByModel::new(model)).inc();
    }

    /// A prefix was loaded.
    pub fn prefix_loaded(&self, model: &str, bytes: u64) {
        let labels = ByModel::new(model);
        self.0.prefix_loads.get_or_create(&labels).inc();
        let family = &self.0.prefix_loaded_bytes;
        family.get_or_create(&labels).inc_by(bytes);
    }

    /// One that was loaded has spared evaluation.
    pub fn prefix_hit(&self, model: &str) {
        let labels = ByModel::new(model);
        self.0.prefix_hits.get_or_create(&labels).inc();
    }

    /// A prefix was written.
    pub fn prefix_written(&self, model: &str, bytes: u64) {
        let labels = ByModel::new(model);
        self.0.prefix_saves.get_or_create(&labels).inc();
        let family = &self.0.prefix_written_bytes;
        family.get_or_create(&labels).inc_by(bytes);
    }

    /// The library did not do it. `what`: `save` or `load`.
    pub fn prefix_failed(&self, model: &str, what: &'static str) {
        let model = model.to_owned();
        let labels = ByReason {
            model,
            reason: what,
        };
        self.0.prefix_failures.get_or_create(&labels).inc();
    }

    /// Everything in the OpenMetrics text format, with what was read only now.
    ///
    /// # Errors
    ///
    /// A metric has no text form. Its definition here would be to blame.
    pub fn render(
        &self,
        models: &[ModelFigures],
        readings: &Readings,
        format: PageFormat,
    ) -> Result<String, std::fmt::Error> {
        let mut page = String::new();
        text::encode_registry(&mut page, &self.0.registry)?;
        text::encode_registry(&mut page, &now::models(models))?;
        text::encode_registry(&mut page, &now::readers(&readings.readers))?;
        text::encode_registry(&mut page, &now::npu(&readings.npu))?;
        text::encode_registry(&mut page, &now::own(&readings.own))?;
        text::encode_registry(&mut page, &now::process(&readings.process))?;
        text::encode_eof(&mut page)?;
        Ok(match format {
            PageFormat::OpenMetrics => page,
            PageFormat::Prometheus => text_format::of(&page),
        })
    }
}

/// What the kernel, and the daemon itself, tell when the metrics are asked for.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    pub npu: NpuLoad,
    pub process: OwnProcess,
    pub readers: ReaderFigures,
    pub own: OwnFigures,
}

impl Readings {
    /// Reads them.
    pub async fn now(readers: Option<&Readers>) -> Self {
        let held = async {
            match readers {
                Some(readers) => readers.figures().await,
                None => ReaderFigures::default(),
            }
        };
        let (npu, process, readers) = tokio::join!(NpuLoad::read(), OwnProcess::now(), held);
        Self {
            npu,
            process,
            readers,
            own: OwnFigures::default(),
        }
    }
}

struct Registrar<'a>(&'a mut Registry);

impl Registrar<'_> {
    /// A counter per label set; `_total` is appended to its name.
    fn counters<L>(&mut self, name: &str, help: &str) -> Counters<L>
    where
        L: EncodeLabelSet + Clone + Eq + std::hash::Hash + std::fmt::Debug + Send + Sync + 'static,
    {
        let family = Counters::default();
        self.0.register(name, help, family.clone());
        family
    }

    /// A histogram per model; `_seconds` is appended to its name.
    fn histograms(&mut self, name: &str, help: &str, new: fn() -> Histogram) -> Histograms {
        let family = Histograms::new_with_constructor(new);
        self.0
            .register_with_unit(name, help, Unit::Seconds, family.clone());
        family
    }
}

fn observe(family: &Histograms, model: &str, seconds: f64) {
    family.get_or_create(&ByModel::new(model)).observe(seconds);
}

fn queue_wait_buckets() -> Histogram {
    Histogram::new([
        0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
    ])
}

fn first_token_buckets() -> Histogram {
    Histogram::new([
        0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
    ])
}

fn resume_gap_buckets() -> Histogram {
    Histogram::new([
        0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
    ])
}

fn resume_overhead_buckets() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0, 60.0, 300.0,
    ])
}

fn model_load_buckets() -> Histogram {
    Histogram::new([
        0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
    ])
}
