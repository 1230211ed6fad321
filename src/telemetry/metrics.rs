//! Every metric's name is in this file, and nothing here invents a value: a counter counts what
//! happened, a gauge is read when it is asked for, and what cannot be read is absent.
//!
//! Labels are bounded: models are those of the catalog (empty where a request named none), the rest
//! are names from the source. A token updates nothing here.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::own_process::OwnProcess;
use crate::board::NpuLoad;

/// What `Metrics::render` gives, as its media type.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const PREFIX: &str = "rkllmd";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByModel {
    model: String,
}

impl ByModel {
    fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    model: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCall {
    method: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRun {
    model: String,
    method: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCause {
    model: String,
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    model: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDeadline {
    deadline: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPhase {
    model: String,
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    model: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCore {
    core: usize,
}

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

/// One model as it is when the metrics are asked for.
#[derive(Clone, Debug)]
pub struct ModelFigures {
    pub model: Arc<str>,
    /// The phase's name in the API.
    pub phase: &'static str,
    /// Requests in the model's queue.
    pub queue_length: usize,
    /// Requests the queue holds at most.
    pub queue_capacity: usize,
    /// Bytes that the worker holds, by kind, as they were measured last.
    pub memory_bytes: Vec<(&'static str, u64)>,
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
    pub fn deadline_passed(&self, deadline: &'static str) {
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

    /// Everything in the OpenMetrics text format, with what is read only now: `models`, `npu` and
    /// this process's own figures.
    ///
    /// # Errors
    ///
    /// A metric has no text form, which its definition here would be to blame for.
    pub fn render(
        &self,
        models: &[ModelFigures],
        npu: &NpuLoad,
    ) -> Result<String, std::fmt::Error> {
        let mut page = String::new();
        text::encode_registry(&mut page, &self.0.registry)?;
        text::encode_registry(&mut page, &models_now(models))?;
        text::encode_registry(&mut page, &npu_now(npu))?;
        text::encode_registry(&mut page, &process_now(&OwnProcess::read()))?;
        text::encode_eof(&mut page)?;
        Ok(page)
    }
}

fn models_now(models: &[ModelFigures]) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let phase = Family::<ByPhase, Gauge>::default();
    let length = Family::<ByModel, Gauge>::default();
    let capacity = Family::<ByModel, Gauge>::default();
    let memory = Family::<ByKind, Gauge>::default();
    for figures in models {
        let model = figures.model.to_string();
        let phase_labels = ByPhase {
            model,
            phase: figures.phase,
        };
        phase.get_or_create(&phase_labels).set(1);
        let labels = ByModel::new(&figures.model);
        length
            .get_or_create(&labels)
            .set(gauge(figures.queue_length));
        capacity
            .get_or_create(&labels)
            .set(gauge(figures.queue_capacity));
        for &(kind, bytes) in &figures.memory_bytes {
            let labels = ByKind {
                model: figures.model.to_string(),
                kind,
            };
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            memory.get_or_create(&labels).set(bytes);
        }
    }
    registry.register(
        "worker_phase",
        "1 for the phase that the model's worker is in, as /v1/ready names it",
        phase,
    );
    registry.register("queue_length", "Requests waiting for the model", length);
    registry.register(
        "queue_capacity",
        "Requests that may wait for the model",
        capacity,
    );
    registry.register_with_unit(
        "worker_memory",
        "What the model's worker holds: kind anonymous, shared or npu, file mappings apart",
        Unit::Bytes,
        memory,
    );
    registry
}

fn npu_now(npu: &NpuLoad) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let load = Family::<ByCore, Gauge<f64, AtomicU64>>::default();
    for (core, &share) in npu.cores.iter().enumerate() {
        load.get_or_create(&ByCore { core }).set(share);
    }
    registry.register(
        "npu_load_ratio",
        "Busy share of the NPU core in the driver's last second, 0 to 1",
        load,
    );
    registry
}

/// The names and units that Prometheus's own client libraries use.
fn process_now(process: &OwnProcess) -> Registry {
    let mut registry = Registry::with_prefix("process");
    let mut number = |name: &str, help: &str, value: Option<u64>| {
        if let Some(value) = value {
            registry.register(name, help, ConstGauge::new(value));
        }
    };
    number("threads", "Threads", process.threads);
    number("open_fds", "Open file descriptors", process.open_fds);
    number(
        "max_fds",
        "File descriptors that may be open",
        process.max_fds,
    );
    let mut bytes = |name: &str, help: &str, value: Option<u64>| {
        if let Some(value) = value {
            registry.register_with_unit(name, help, Unit::Bytes, ConstGauge::new(value));
        }
    };
    bytes("resident_memory", "Resident memory", process.resident_bytes);
    bytes("virtual_memory", "Virtual memory", process.virtual_bytes);
    if let Some(seconds) = process.cpu_seconds {
        let counter = ConstCounter::new(seconds);
        registry.register_with_unit("cpu", "User and system CPU time", Unit::Seconds, counter);
    }
    if let Some(seconds) = process.start_time_seconds {
        let help = "When the process started, since the epoch";
        registry.register_with_unit("start_time", help, Unit::Seconds, ConstGauge::new(seconds));
    }
    registry
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

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(metrics: &Metrics, models: &[ModelFigures]) -> Vec<String> {
        let npu = NpuLoad {
            cores: vec![0.25, 1.0],
        };
        let page = metrics.render(models, &npu).unwrap();
        assert!(page.ends_with("# EOF\n"));
        page.lines().map(str::to_owned).collect()
    }

    fn run(prompt_tokens: u64, completion_tokens: u64) -> RpcRun {
        RpcRun {
            model: "a".into(),
            method: "rkllm.run",
            outcome: "complete",
            prompt_tokens,
            completion_tokens,
        }
    }

    type Move = (fn(&Metrics), &'static str);

    /// Each method, and the sample it makes.
    const MOVES: [Move; 18] = [
        (
            |m| m.request_ended("a", "complete"),
            r#"rkllmd_requests_total{model="a",outcome="complete"} 1"#,
        ),
        (
            |m| m.queue_wait("a", 0.5),
            r#"rkllmd_queue_wait_seconds_sum{model="a"} 0.5"#,
        ),
        (
            |m| m.time_to_first_token("a", 0.5),
            r#"rkllmd_time_to_first_token_seconds_sum{model="a"} 0.5"#,
        ),
        (
            |m| m.tokens("a", 0, 7),
            r#"rkllmd_completion_tokens_total{model="a"} 7"#,
        ),
        (
            |m| m.tokens("a", 7, 0),
            r#"rkllmd_prompt_tokens_total{model="a"} 7"#,
        ),
        (
            |m| m.rpc_call_ended("rkllm.init", "complete"),
            r#"rkllmd_rpc_calls_total{method="rkllm.init",outcome="complete"} 1"#,
        ),
        (
            |m| m.rpc_run_ended(&run(0, 0)),
            r#"rkllmd_rpc_runs_total{model="a",method="rkllm.run",outcome="complete"} 1"#,
        ),
        (
            |m| m.rpc_run_ended(&run(7, 0)),
            r#"rkllmd_rpc_prompt_tokens_total{model="a",method="rkllm.run",outcome="complete"} 7"#,
        ),
        (
            |m| m.rpc_run_ended(&run(0, 7)),
            r#"rkllmd_rpc_completion_tokens_total{model="a",method="rkllm.run",outcome="complete"} 7"#,
        ),
        (
            |m| m.worker_exited("a", "sigsegv"),
            r#"rkllmd_worker_exits_total{model="a",cause="sigsegv"} 1"#,
        ),
        (
            |m| m.deadline_passed("prefill"),
            r#"rkllmd_deadlines_passed_total{deadline="prefill"} 1"#,
        ),
        (
            |m| m.run_resumed("a"),
            r#"rkllmd_runs_resumed_total{model="a"} 1"#,
        ),
        (
            |m| m.run_repeated("a"),
            r#"rkllmd_runs_repeated_total{model="a"} 1"#,
        ),
        (
            |m| m.resume_refused("a", "poison"),
            r#"rkllmd_resumes_refused_total{model="a",reason="poison"} 1"#,
        ),
        (
            |m| m.resume_gap("a", 0.5),
            r#"rkllmd_resume_gap_seconds_sum{model="a"} 0.5"#,
        ),
        (
            |m| m.resume_overhead("a", 0.5),
            r#"rkllmd_resume_overhead_seconds_sum{model="a"} 0.5"#,
        ),
        (
            |m| m.model_loaded("a", 0.5),
            r#"rkllmd_model_load_seconds_sum{model="a"} 0.5"#,
        ),
        (
            |m| m.load_failed("a"),
            r#"rkllmd_model_load_failures_total{model="a"} 1"#,
        ),
    ];

    fn samples(metrics: &Metrics) -> Vec<String> {
        let given = ["rkllmd_build", "rkllmd_npu"];
        let own = |line: &String| {
            line.starts_with("rkllmd_") && !given.iter().any(|name| line.starts_with(name))
        };
        lines(metrics, &[]).into_iter().filter(own).collect()
    }

    #[test]
    fn every_method_moves_its_own_series_and_no_other() {
        for (act, expected) in MOVES {
            let metrics = Metrics::new();
            assert_eq!(
                samples(&metrics),
                [""; 0],
                "a fresh daemon has counted nothing"
            );
            act(&metrics.clone());
            let name = expected.split('{').next().unwrap();
            let base = name.trim_end_matches("_sum");
            let moved = samples(&metrics);
            assert!(moved.iter().any(|line| line == expected), "{moved:#?}");
            // A run's tokens come with the run.
            let is_own = |line: &String| {
                line.starts_with(base)
                    || (base.starts_with("rkllmd_rpc_")
                        && line.starts_with("rkllmd_rpc_runs_total"))
            };
            assert!(moved.iter().all(is_own), "{moved:#?}");
        }
    }

    #[test]
    fn figures_of_now_are_what_they_are_now() {
        let metrics = Metrics::new();
        let mut figures = ModelFigures {
            model: "a\"b".into(),
            phase: "loading",
            queue_length: 3,
            queue_capacity: 64,
            memory_bytes: vec![("anonymous", 4096), ("npu", 1 << 30)],
        };
        let before = lines(&metrics, std::slice::from_ref(&figures));
        for line in [
            r#"rkllmd_worker_phase{model="a\"b",phase="loading"} 1"#,
            r#"rkllmd_queue_length{model="a\"b"} 3"#,
            r#"rkllmd_queue_capacity{model="a\"b"} 64"#,
            r#"rkllmd_worker_memory_bytes{model="a\"b",kind="anonymous"} 4096"#,
            r#"rkllmd_worker_memory_bytes{model="a\"b",kind="npu"} 1073741824"#,
            r#"rkllmd_npu_load_ratio{core="0"} 0.25"#,
            r#"rkllmd_npu_load_ratio{core="1"} 1.0"#,
        ] {
            assert!(
                before.iter().any(|l| l == line),
                "{line} is not in {before:#?}"
            );
        }
        figures.phase = "ready";
        let after = lines(&metrics, &[figures]).join("\n");
        assert!(
            after.contains(r#"phase="ready"} 1"#) && !after.contains("loading"),
            "{after}"
        );
        let no_models = lines(&metrics, &[]).join("\n");
        assert!(!no_models.contains("rkllmd_queue_length{"), "{no_models}");
    }

    #[test]
    fn the_readme_names_each_of_them_and_none_is_there_twice() {
        let metrics = Metrics::new();
        for (act, _) in MOVES {
            act(&metrics);
        }
        let model = ModelFigures {
            model: "a".into(),
            phase: "ready",
            queue_length: 0,
            queue_capacity: 0,
            memory_bytes: vec![("anonymous", 1)],
        };
        let shown: Vec<String> = lines(&metrics, &[model])
            .iter()
            .filter_map(|line| line.strip_prefix("# TYPE rkllmd_")?.split_once(' '))
            .map(|(name, kind)| match kind {
                "counter" => format!("rkllmd_{name}_total"),
                "info" => format!("rkllmd_{name}_info"),
                _ => format!("rkllmd_{name}"),
            })
            .collect();
        let readme: Vec<&str> = include_str!("../../README.md")
            .split('`')
            .filter(|text| text.starts_with("rkllmd_"))
            .collect();
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        assert_eq!(
            sorted(shown),
            sorted(readme.into_iter().map(str::to_owned).collect())
        );
    }
}
