//! Every metric's name is in the parts `families`, `now` and `board`. Nothing here invents a value: a counter counts
//! what happened, a gauge is read when a client asks, and what cannot be read is absent.
//!
//! Labels are bounded: models are those of the catalog (empty where a request named none), the rest
//! are names from the source. A token updates nothing here.

mod board;
mod families;
mod figures;
mod labels;
mod now;
mod prefixes;
mod runs;
#[cfg(test)]
mod tests;
mod text_format;

use std::sync::Arc;

use prometheus_client::encoding::text;

use super::changes::Changes;
use families::{Families, Histograms};
pub use figures::{ModelFigures, OwnFigures, PrefixFigures, Readings, RpcRun, Slots};
use labels::{ByCall, ByModel, ByOutcome, ByRun};

/// How the metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFormat {
    /// Prometheus' own text format.
    Prometheus,
    OpenMetrics,
}

const PREFIX: &str = "rkllmd";

/// The daemon's counters and histograms; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Families>, Changes);

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        Self(Arc::new(Families::new()), Changes::default())
    }

    /// What is told of changes, by all layers as well.
    pub fn changes(&self) -> &Changes {
        &self.1
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
        if let Some(sample) = &readings.board {
            text::encode_registry(&mut page, &board::of(sample))?;
        }
        text::encode_registry(&mut page, &now::own(&readings.own))?;
        text::encode_registry(&mut page, &now::process(&readings.process))?;
        text::encode_eof(&mut page)?;
        Ok(match format {
            PageFormat::OpenMetrics => page,
            PageFormat::Prometheus => text_format::of(&page),
        })
    }
}

fn observe(family: &Histograms, model: &str, value: f64) {
    family.get_or_create(&ByModel::new(model)).observe(value);
}
