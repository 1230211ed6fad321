//! What is counted of answers that lose their worker, and of workers that end.

use super::labels::{ByCause, ByDeadline, ByModel, ByReason};
use super::{Metrics, observe};
use crate::generation::Deadline;
use crate::ipc::Redraws;

impl Metrics {
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

    /// Requests of a model begin that are made in one batch.
    pub fn batch_begins(&self, model: &str, requests: usize) {
        let labels = ByModel::new(model);
        self.0.batches.get_or_create(&labels).inc();
        let batched = self.0.batched_requests.get_or_create(&labels);
        batched.inc_by(requests as u64);
    }

    /// An answer's tokens were looked at, and some drawn again.
    pub fn redrawn(&self, model: &str, took: &Redraws) {
        let families = &self.0;
        let counts = [
            (&families.redraws, Some(took.redraws)),
            (&families.redraw_wasted_tokens, Some(took.wasted_tokens)),
            (&families.redraw_prompt_tokens, took.evaluated_tokens),
            (&families.redraw_logits_runs, Some(took.runs_with_rows)),
        ];
        for (family, count) in counts {
            if let Some(count) = count.filter(|count| *count > 0) {
                let labels = ByModel::new(model);
                family.get_or_create(&labels).inc_by(count.into());
            }
        }
    }

    /// Such an answer has ended, with what it took in all.
    pub fn answer_redrawn(&self, model: &str, took: &Redraws) {
        let families = &self.0;
        let counts = [
            (&families.answer_restarts, Some(took.restarts)),
            (&families.answer_wasted_tokens, Some(took.wasted_tokens)),
            (&families.answer_prompt_tokens, took.evaluated_tokens),
        ];
        for (family, count) in counts {
            if let Some(count) = count {
                observe(family, model, count.into());
            }
        }
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
}
