//! What `/metrics` tells about calls and runs. Each is counted once, with the first that happens: it
//! ended, or it was dropped because no client waits for it any more.

use super::definitions;
use crate::generation::ModelId;
use crate::http::rpc::protocol::RpcError;
use crate::library_calls::CallbackResult;
use crate::telemetry::{Metrics, RpcRun};

/// What was given up.
const CANCELLED: &str = "cancelled";

fn outcome<T>(result: &Result<T, RpcError>) -> &'static str {
    match result {
        Ok(_) => "complete",
        // Of what goes when a client leaves, its connection may be the first.
        Err(error) if error.is_cancelled() => CANCELLED,
        Err(error) => error.name(),
    }
}

/// A call; counted when this is dropped.
pub(super) struct CountedCall {
    metrics: Metrics,
    method: &'static str,
    outcome: &'static str,
}

impl CountedCall {
    /// `name` is the client's.
    pub fn new(metrics: &Metrics, name: &str) -> Self {
        let method = definitions()
            .iter()
            .find(|definition| definition.name == name)
            .map_or("other", |definition| definition.name);
        Self {
            metrics: metrics.clone(),
            method,
            outcome: CANCELLED,
        }
    }

    pub fn ended<T>(mut self, result: &Result<T, RpcError>) {
        self.outcome = outcome(result);
    }

    pub fn refused(mut self, error: &RpcError) {
        self.outcome = error.name();
    }
}

impl Drop for CountedCall {
    fn drop(&mut self) {
        self.metrics.rpc_call_ended(self.method, self.outcome);
    }
}

/// A run; counted when this is dropped.
pub(super) struct CountedRun {
    metrics: Metrics,
    run: RpcRun,
}

impl CountedRun {
    pub fn new(metrics: &Metrics, model: &ModelId, method: &'static str) -> Self {
        Self {
            metrics: metrics.clone(),
            run: RpcRun {
                model: ModelId::clone(model),
                method,
                outcome: CANCELLED,
                prompt_tokens: 0,
                completion_tokens: 0,
            },
        }
    }

    /// Counts a callback's tokens.
    pub fn add(&mut self, callback: &CallbackResult) {
        for slot in &callback.results {
            // A negative id: the sequence has ended.
            let is_token = slot.token_id.is_some_and(|id| id >= 0);
            self.run.completion_tokens += u64::from(is_token);
        }
        // With several sequences no document says whether a figure is one's or all's.
        if let [only] = callback.results.as_slice()
            && let Some(perf) = only.perf
        {
            self.run.prompt_tokens = u64::try_from(perf.prefill_tokens).unwrap_or(0);
        }
    }

    /// How it ended, if that is not said again.
    pub fn ended<T>(&mut self, result: &Result<T, RpcError>) {
        self.run.outcome = outcome(result);
    }
}

impl Drop for CountedRun {
    fn drop(&mut self) {
        self.metrics.rpc_run_ended(&self.run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::rpc::protocol::ErrorKind;

    #[test]
    fn what_could_not_be_told_to_a_client_that_left_is_cancelled() {
        let gone = RpcError::cancelled("the client is gone");
        assert_eq!(outcome::<()>(&Err(gone)), CANCELLED);
        let slow = RpcError::new(ErrorKind::SlowReader, "the client did not read");
        assert_eq!(outcome::<()>(&Err(slow)), "slow_reader");
    }
}
