//! The counters and histograms with their names and what they mean.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::PREFIX;
use super::labels::{ByCall, ByCause, ByDeadline, ByModel, ByOutcome, ByReason, ByRun};

pub(super) type Counters<L> = Family<L, Counter>;

pub(super) type Histograms = Family<ByModel, Histogram, fn() -> Histogram>;

#[derive(Debug)]
pub(super) struct Families {
    pub(super) registry: Registry,
    pub(super) requests: Counters<ByOutcome>,
    pub(super) queue_wait: Histograms,
    pub(super) time_to_first_token: Histograms,
    pub(super) prompt_tokens: Counters<ByModel>,
    pub(super) completion_tokens: Counters<ByModel>,
    pub(super) rpc_calls: Counters<ByCall>,
    pub(super) rpc_runs: Counters<ByRun>,
    pub(super) rpc_prompt_tokens: Counters<ByRun>,
    pub(super) rpc_completion_tokens: Counters<ByRun>,
    pub(super) worker_exits: Counters<ByCause>,
    pub(super) deadlines_passed: Counters<ByDeadline>,
    pub(super) runs_resumed: Counters<ByModel>,
    pub(super) runs_repeated: Counters<ByModel>,
    pub(super) resumes_refused: Counters<ByReason>,
    pub(super) batches: Counters<ByModel>,
    pub(super) batched_requests: Counters<ByModel>,
    pub(super) redraws: Counters<ByModel>,
    pub(super) redraw_wasted_tokens: Counters<ByModel>,
    pub(super) redraw_prompt_tokens: Counters<ByModel>,
    pub(super) redraw_logits_runs: Counters<ByModel>,
    pub(super) answer_restarts: Histograms,
    pub(super) answer_wasted_tokens: Histograms,
    pub(super) answer_prompt_tokens: Histograms,
    pub(super) resume_gap: Histograms,
    pub(super) resume_overhead: Histograms,
    pub(super) model_load: Histograms,
    pub(super) model_load_failures: Counters<ByModel>,
    pub(super) prefix_hits: Counters<ByModel>,
    pub(super) prefix_loads: Counters<ByModel>,
    pub(super) prefix_loaded_bytes: Counters<ByModel>,
    pub(super) prefix_saves: Counters<ByModel>,
    pub(super) prefix_written_bytes: Counters<ByModel>,
    pub(super) prefix_failures: Counters<ByReason>,
}

impl Families {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running program", version);
        let mut add = Registrar(&mut registry);
        Self {
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
            batches: add.counters(
                "batches",
                "Batches that began, of models with `batch`",
            ),
            batched_requests: add.counters(
                "batched_requests",
                "Requests that these batches began with",
            ),
            redraws: add.counters(
                "redraws",
                "Tokens that were drawn again because their answer's format or a ban does not allow them, with a library that has no hook",
            ),
            redraw_wasted_tokens: add.counters(
                "redraw_wasted_tokens",
                "Tokens that the library made for those answers and that are not part of them",
            ),
            redraw_prompt_tokens: add.counters(
                "redraw_prompt_tokens",
                "Tokens of prompts and answers that were evaluated to draw again and to go on, where the library told their number",
            ),
            redraw_logits_runs: add.counters(
                "redraw_logits_runs",
                "Runs that told the logits of each of their tokens",
            ),
            answer_restarts: add.counts(
                "redraw_restarts_per_answer",
                "Runs of the library behind the first one, of an answer whose tokens are looked at",
            ),
            answer_wasted_tokens: add.counts(
                "redraw_wasted_tokens_per_answer",
                "Tokens that the library made for such an answer and that are not part of it",
            ),
            answer_prompt_tokens: add.counts(
                "redraw_prompt_tokens_per_answer",
                "Tokens of prompt and answer that were evaluated by those runs, where the library told their number",
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

    /// A histogram per model, of numbers.
    fn counts(&mut self, name: &str, help: &str) -> Histograms {
        let family = Histograms::new_with_constructor(count_buckets);
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

fn count_buckets() -> Histogram {
    Histogram::new([
        0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0,
    ])
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
