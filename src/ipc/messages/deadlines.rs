//! The waits that a worker times itself, and what it tells of one that has passed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::generation::Deadline;
use crate::ipc::LoadDeadline;

/// Assumed where a prompt's tokens cannot be counted; short for any tokenizer, so deadlines err on
/// the long side.
const BYTES_PER_TOKEN: usize = 3;

/// However slow a library says it is, and however long the prompt.
pub const LONGEST_PREFILL: Duration = Duration::from_secs(7 * 24 * 3600);

/// The waits that the worker's main thread times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerDeadlines {
    pub library_open: Duration,
    pub load: LoadDeadline,
    pub prefill_base: Duration,
    pub prefill_per_token: Duration,
    pub inter_token: Duration,
    pub control_call: Duration,
    pub abort_to_finish: Duration,
    pub unload: Duration,
    /// While a call is in progress the worker says at least this often that it is scheduled.
    pub heartbeat: Duration,
}

impl WorkerDeadlines {
    /// For the daemon, which does not see what the slots of a worker do together and lets it speak first:
    /// what one of them does may take that many times as long, and where they share a pool each may have to
    /// evaluate all that this holds.
    pub fn shared_by(self, slots: u8, pool_tokens: Option<u32>) -> Self {
        let slots = u32::from(slots);
        let again = pool_tokens.map_or(Duration::ZERO, |tokens| {
            let evaluated = self.prefill_per_token.saturating_mul(tokens);
            self.prefill_base.saturating_add(evaluated)
        });
        let shared = |limit: Duration| {
            let shared = limit.saturating_add(again).saturating_mul(slots);
            // A clock cannot be asked for what lies further away, unless the limit itself does.
            shared.min(LONGEST_PREFILL.max(limit))
        };
        Self {
            prefill_base: shared(self.prefill_base),
            prefill_per_token: self.prefill_per_token.saturating_mul(slots),
            inter_token: shared(self.inter_token),
            ..self
        }
    }

    /// How long the first token may take, at `per_token` for each token of the prompt. Where the
    /// prompt's tokens are unknown, three bytes count as one.
    pub fn prefill(
        &self,
        per_token: Duration,
        prompt_bytes: usize,
        prompt_tokens: Option<u32>,
    ) -> Duration {
        let tokens = prompt_tokens
            .unwrap_or_else(|| u32::try_from(prompt_bytes / BYTES_PER_TOKEN).unwrap_or(u32::MAX));
        let limit = self
            .prefill_base
            .saturating_add(per_token.saturating_mul(tokens));
        // A clock cannot be asked for what lies further away than this.
        limit.min(LONGEST_PREFILL)
    }
}

/// A deadline that passed in a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedDeadline {
    pub deadline: Deadline,
    pub limit: Duration,
    pub call: String,
}
