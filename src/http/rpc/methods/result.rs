//! What a run gives: each callback as a notification, or all of them as one result.

use serde::Serialize;
use utoipa::ToSchema;

use super::handle_reset::HandleReset;
use super::tensor::{JsonTensor, TensorForm};
use crate::http::rpc::protocol::{ErrorKind, RpcError};
use crate::library_calls::{CallState, CallbackResult, PerfStat, SlotResult};

/// `rkllm.result`: one call of the callback, for one sequence.
#[derive(Serialize, ToSchema)]
pub(crate) struct ResultNotification<'a> {
    handle: &'a str,
    run: u64,
    state: CallState,
    /// The sequence, from 0; always 0 where `n_batch` is 1.
    batch_slot: u32,
    /// Whole characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_hidden_layer: Option<JsonTensor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<JsonTensor>,
    /// With `RKLLM_RUN_FINISH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    perf: Option<PerfStat>,
}

impl<'a> ResultNotification<'a> {
    pub fn of(
        handle: &'a str,
        run: u64,
        state: CallState,
        slot: SlotResult,
        form: TensorForm,
    ) -> Self {
        let tensor = |tensor: Option<_>| tensor.map(|tensor| JsonTensor::of(&tensor, form));
        Self {
            handle,
            run,
            state,
            batch_slot: slot.batch_slot,
            text: slot.text,
            token_id: slot.token_id,
            last_hidden_layer: tensor(slot.last_hidden_layer),
            logits: tensor(slot.logits),
            perf: slot.perf,
        }
    }
}

/// `rkllm.ended`: a run that was answered at once is over.
#[derive(Serialize, ToSchema)]
pub(crate) struct EndedNotification<'a> {
    pub handle: &'a str,
    pub run: u64,
    /// What `rkllm_run` returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub return_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle_reset: Option<HandleReset>,
    /// Why it failed, as an error of JSON-RPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub error: Option<RpcError>,
}

/// A run that is over.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct RunResult {
    pub run: u64,
    /// What `rkllm_run` returned: 0.
    pub return_code: i32,
    /// One for each sequence.
    pub results: Vec<SequenceResult>,
    /// There once, after the handle lost its history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle_reset: Option<HandleReset>,
    #[serde(skip)]
    collected_bytes: usize,
    /// Of text and ids: a run that generates without end ends here.
    #[serde(skip)]
    limit_bytes: usize,
}

/// What a run gave for one sequence.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct SequenceResult {
    batch_slot: u32,
    /// State of the last callback.
    state: Option<CallState>,
    text: String,
    /// Of every callback that had one.
    token_ids: Vec<i32>,
    /// The first that came; with `stream` it is in a notification instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_hidden_layer: Option<JsonTensor>,
    /// Likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<JsonTensor>,
    /// Absent where the library told none.
    #[serde(skip_serializing_if = "Option::is_none")]
    perf: Option<PerfStat>,
}

impl RunResult {
    /// An empty one, which may come to hold so many bytes of texts and ids.
    pub fn new(run: u64, limit_bytes: usize) -> Self {
        Self {
            run,
            limit_bytes,
            ..Self::default()
        }
    }

    /// About how many bytes it is without its tensors.
    pub fn size(&self) -> usize {
        self.collected_bytes
    }

    /// Adds a callback.
    pub fn add(
        &mut self,
        callback: &CallbackResult,
        form: TensorForm,
        tensors: bool,
    ) -> Result<(), RpcError> {
        for (index, slot) in callback.results.iter().enumerate() {
            if self.results.len() <= index {
                self.results.push(SequenceResult {
                    batch_slot: slot.batch_slot,
                    ..SequenceResult::default()
                });
            }
            let sequence = &mut self.results[index];
            sequence.state = Some(callback.state);
            if let Some(text) = &slot.text {
                sequence.text.push_str(text);
                self.collected_bytes += text.len();
            }
            // A sequence that has ended says so with a negative id.
            if let Some(id) = slot.token_id.filter(|id| *id >= 0) {
                sequence.token_ids.push(id);
                self.collected_bytes += size_of::<i32>();
            }
            if tensors {
                let first = |kept: &mut Option<JsonTensor>, tensor: &Option<_>| {
                    if kept.is_none() {
                        *kept = tensor.as_ref().map(|tensor| JsonTensor::of(tensor, form));
                    }
                };
                first(&mut sequence.last_hidden_layer, &slot.last_hidden_layer);
                first(&mut sequence.logits, &slot.logits);
            }
            sequence.perf = slot.perf.or(sequence.perf);
        }
        let limit = self.limit_bytes;
        if self.collected_bytes > limit {
            return Err(RpcError::new(
                ErrorKind::TooLarge,
                format!(
                    "the run gave more than {limit} bytes (rpc.result-limit-bytes) and was \
                     aborted; use rkllm.run_async, or set max_new_tokens"
                ),
            )
            .with("limit_bytes", limit));
        }
        Ok(())
    }
}
