//! The callback of a raw run: copy, push, return. What the library hands over is copied before the
//! callback returns and never looked at afterwards; a tensor that a client asked for is the only
//! thing copied whole, and its size is checked first.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};

use rkllm_sys::{CallError, CallState, Flow, Matrix, ReleaseBuffer, ResultSink, ResultView};

use super::known_shape::KnownShape;
use super::run_progress::RunProgress;
use super::slot_events::SlotEvents;
use super::utf8_assembly::Utf8Assembly;
use crate::ipc::{RawSlot, SlotEvent, WireTensor, write_tensor};
use crate::library_calls::{self, CallFailure, CallbackThread, PerfStat, RowSelection};

/// Tensors up to this size travel in the frame, larger ones as memory files.
const INLINE_BYTES: usize = 64 * 1024;

/// What the callbacks of a raw run left behind.
#[derive(Debug, Default)]
pub struct RawRecord {
    /// Why our side broke the run off.
    pub failure: Option<CallFailure>,
    pub reported_error: bool,
    /// `None`: the library has not called back.
    pub called_back: Option<CallbackThread>,
    finished: bool,
}

pub type SharedRawRecord = Arc<Mutex<RawRecord>>;

pub struct RawSink {
    pub run: u64,
    /// The thread that calls `rkllm_run`.
    pub caller: ThreadId,
    pub progress: Arc<RunProgress>,
    pub record: SharedRawRecord,
    pub events: SlotEvents,
    /// Asks the library to end the run.
    pub abort: Box<dyn Fn() -> Result<(), CallError> + Send>,
    pub release: Option<ReleaseBuffer>,
    pub rows: RowSelection,
    /// Learns from the results.
    pub shape: KnownShape,
    /// End the run once it has given logits.
    pub abort_after_logits: bool,
    /// All tensors of a callback together.
    pub tensor_limit_bytes: u64,
    /// The library was asked to end the run: what still comes does not show that it does.
    pub ended: bool,
    /// The run is for hidden states, before which the library calls back once without any. Until
    /// they are there it may still be at work on the input.
    pub awaits_matrix: bool,
    /// One for each sequence.
    pub texts: Vec<Utf8Assembly>,
}

impl ResultSink for RawSink {
    fn on_result(&mut self, result: ResultView<'_>) -> Flow {
        self.on_results(&[result])
    }

    fn on_results(&mut self, results: &[ResultView<'_>]) -> Flow {
        let Some(first) = results.first() else {
            return Flow::Continue;
        };
        let state = state(first.state);
        let has_matrix = results
            .iter()
            .any(|result| result.hidden_states.is_some() || result.logits.is_some());
        self.awaits_matrix &= !has_matrix && state == library_calls::CallState::Normal;
        if !self.awaits_matrix && !self.ended {
            self.progress.count_token();
        }
        let record = Arc::clone(&self.record);
        let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
        let is_caller = thread::current().id() == self.caller;
        record.called_back = Some(CallbackThread::and(record.called_back, is_caller));
        // What comes after FINISH is no part of the run; what comes after our end is of no use.
        if record.finished || record.failure.is_some() {
            if !record.finished && state != library_calls::CallState::Finish {
                self.end();
            }
            return Flow::Continue;
        }
        record.finished = state == library_calls::CallState::Finish;
        record.reported_error |= state == library_calls::CallState::Error;
        let has_logits = results.iter().any(|result| result.logits.is_some());
        let mut tensors = Tensors {
            files: Vec::new(),
            left_bytes: self.tensor_limit_bytes,
        };
        let slots = results
            .iter()
            .enumerate()
            .map(|(index, result)| self.slot(index, result, record.finished, &mut tensors))
            .collect();
        match slots {
            Ok(results) => {
                let run = self.run;
                let event = SlotEvent::RawResult {
                    run,
                    state,
                    results,
                };
                self.events.deliver(&self.progress, event, tensors.files);
            }
            Err(failure) => {
                record.failure = Some(failure);
                self.end();
            }
        }
        let is_over = self.ended || (has_logits && self.abort_after_logits);
        if !record.finished && (is_over || self.progress.abort_requested()) {
            self.end();
        }
        match self.release {
            // Large buffers stay allocated otherwise (docs/vendor-library.md §4).
            Some(release) if has_matrix => Flow::ReleaseBuffer(release),
            _ => Flow::Continue,
        }
    }
}

/// What a callback hands over beside its event.
struct Tensors {
    files: Vec<OwnedFd>,
    /// What its tensors may still take.
    left_bytes: u64,
}

impl RawSink {
    fn slot(
        &mut self,
        index: usize,
        result: &ResultView<'_>,
        is_last: bool,
        tensors: &mut Tensors,
    ) -> Result<RawSlot, CallFailure> {
        let mut text = result.text.map(|bytes| match self.texts.get_mut(index) {
            Some(assembly) => assembly.push(bytes).text.into_owned(),
            None => String::from_utf8_lossy(bytes).into_owned(),
        });
        if is_last && let Some(assembly) = self.texts.get_mut(index) {
            let rest = assembly.finish();
            if !rest.is_empty() {
                text.get_or_insert_default().push_str(&rest);
            }
        }
        self.shape
            .learn(result.hidden_states.as_ref(), result.logits.as_ref());
        let mut tensor = |what, matrix: Option<Matrix<'_>>| {
            matrix
                .map(|matrix| self.tensor(what, &matrix, tensors))
                .transpose()
        };
        Ok(RawSlot {
            hidden_states: tensor("last_hidden_layer", result.hidden_states)?,
            logits: tensor("logits", result.logits)?,
            text,
            token_id: result.token_id,
            perf: result.perf.map(|perf| PerfStat {
                prefill_time_ms: perf.prefill_time_ms,
                prefill_tokens: perf.prefill_tokens,
                generate_time_ms: perf.generate_time_ms,
                generate_tokens: perf.generate_tokens,
                memory_usage_mb: perf.memory_usage_mb,
            }),
        })
    }

    fn tensor(
        &self,
        what: &str,
        matrix: &Matrix<'_>,
        tensors: &mut Tensors,
    ) -> Result<WireTensor, CallFailure> {
        let (values, columns) = (matrix.values, matrix.columns);
        let num_tokens = values.len() / columns.max(1);
        let pooled;
        let chosen = match self.rows {
            RowSelection::All => values,
            RowSelection::Last => &values[values.len() - columns.min(values.len())..],
            RowSelection::Mean => {
                pooled = mean(values, columns);
                &pooled
            }
        };
        let bytes = size_of_val(chosen) as u64;
        if bytes > tensors.left_bytes {
            let given = self.tensor_limit_bytes - tensors.left_bytes;
            return Err(CallFailure::TooLarge {
                what: what.to_owned(),
                bytes: bytes.saturating_add(given),
                limit_bytes: self.tensor_limit_bytes,
            });
        }
        tensors.left_bytes -= bytes;
        let data = if size_of_val(chosen) <= INLINE_BYTES {
            Some(chosen.to_vec())
        } else {
            let file = write_tensor(chosen).map_err(|error| CallFailure::Other {
                reason: format!("handing over {what} of {bytes} bytes: {error}"),
            })?;
            tensors.files.push(file);
            None
        };
        Ok(WireTensor {
            num_tokens: num_tokens as u64,
            rows: (chosen.len() / columns.max(1)) as u64,
            columns: columns as u64,
            data,
        })
    }

    /// Again with each callback: an abort may have been missed.
    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.progress.set_complete();
        }
        if let Err(error) = (self.abort)() {
            eprintln!("W rkllmd-worker: ending a run: {error}");
        }
    }
}

fn mean(values: &[f32], columns: usize) -> Vec<f32> {
    let mut sums = vec![0_f64; columns];
    let mut rows = 0_u32;
    for row in values.chunks_exact(columns.max(1)) {
        rows += 1;
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    let rows = f64::from(rows.max(1));
    sums.into_iter().map(|sum| (sum / rows) as f32).collect()
}

fn state(state: CallState) -> library_calls::CallState {
    match state {
        CallState::Normal => library_calls::CallState::Normal,
        CallState::Waiting => library_calls::CallState::Waiting,
        CallState::Finish => library_calls::CallState::Finish,
        CallState::Error => library_calls::CallState::Error,
        CallState::Unknown(number) => library_calls::CallState::Unknown(number),
    }
}
