//! What the library's callback hands over, as a view that lives exactly as long as the callback.
//! A field that the library does not fill in some state is `None` in that state and its memory is
//! not read; a state that no header names is passed on by number.

use crate::abi::extension::RKLLMTokenLogprob;
use crate::abi::v1_3_1::{
    LLMCallState, RKLLM_RUN_ERROR, RKLLM_RUN_FINISH, RKLLM_RUN_NORMAL, RKLLM_RUN_WAITING,
    RKLLMPerfStat, RKLLMResult,
};
use crate::run::{RunId, RunMode};
use std::ffi::{CStr, c_int};
use std::slice;

/// Receives the results of one run.
///
/// Called on the thread that called [`Handle::run`](crate::Handle::run) or on one of the
/// library's own, never on two at once, never after `run` has returned. A panic ends the run with
/// [`CallError::SinkPanicked`](crate::CallError::SinkPanicked) and reaches no C code. From inside,
/// [`ControlHandle::abort`](crate::ControlHandle::abort) ends the run.
pub trait ResultSink: Send {
    fn on_result(&mut self, result: ResultView<'_>) -> Flow;

    /// One callback of a model with several sequences: a result for each. `on_result` is not called
    /// for such a model.
    fn on_results(&mut self, results: &[ResultView<'_>]) -> Flow {
        match results {
            [first, ..] => self.on_result(*first),
            [] => Flow::Continue,
        }
    }

    /// How likely the token was whose result comes next, or the next one of the prompt, before any
    /// result; only of a run that asked for it ([`RunExtension`](crate::RunExtension)).
    fn on_logprobs(&mut self, _logprobs: LogprobsView<'_>) {}
}

/// What one row of logits says, valid inside the callback only.
#[derive(Debug, Clone, Copy)]
pub struct LogprobsView<'a> {
    pub of_prompt: bool,
    pub token: LogprobView<'a>,
    top: &'a [RKLLMTokenLogprob],
}

/// A token and how likely it was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogprobView<'a> {
    pub token: i32,
    /// A natural logarithm; `None` where nothing came before the token.
    pub logprob: Option<f32>,
    /// The token's own, which need not be whole characters.
    pub bytes: &'a [u8],
}

impl<'a> LogprobsView<'a> {
    /// # Safety
    /// `token` is NULL or points to a token, and `top` is NULL or to `n_top` of them; they and their bytes
    /// stay valid for `'a`.
    pub(crate) unsafe fn of(
        of_prompt: bool,
        token: *const RKLLMTokenLogprob,
        top: *const RKLLMTokenLogprob,
        n_top: usize,
    ) -> Option<Self> {
        // SAFETY: by this function's contract.
        unsafe {
            Some(Self {
                of_prompt,
                token: LogprobView::of(token.as_ref()?),
                top: match top.is_null() {
                    true => &[],
                    false => slice::from_raw_parts(top, n_top),
                },
            })
        }
    }

    /// The likeliest tokens of the row, from the likeliest on.
    pub fn top(&self) -> impl Iterator<Item = LogprobView<'a>> {
        // SAFETY: what the view was made of is valid for its life.
        self.top.iter().map(|raw| unsafe { LogprobView::of(raw) })
    }
}

impl<'a> LogprobView<'a> {
    /// # Safety
    /// The piece is NULL or has as many bytes as it says, for `'a`.
    unsafe fn of(raw: &RKLLMTokenLogprob) -> Self {
        Self {
            token: raw.token,
            logprob: Some(raw.logprob).filter(|logprob| !logprob.is_nan()),
            bytes: match raw.piece.is_null() {
                true => &[],
                // SAFETY: by this function's contract.
                false => unsafe { slice::from_raw_parts(raw.piece.cast(), raw.piece_len) },
            },
        }
    }
}

/// How the library goes on after a result.
///
/// There is no "pause": after it FINISH never comes, and the next run resumes the paused
/// generation instead of reading its own prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Continue,
    /// Go on, and free the buffer of this result (large ones stay allocated otherwise,
    /// docs/vendor-library.md §4). The token comes from
    /// [`Handle::release_buffer`](crate::Handle::release_buffer).
    ReleaseBuffer(ReleaseBuffer),
}

/// Proof that the library understands [`Flow::ReleaseBuffer`] (1.3.0 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReleaseBuffer(pub(crate) ());

impl Flow {
    pub(crate) fn code(self, understood: bool) -> c_int {
        match self {
            Flow::ReleaseBuffer(_) if understood => 2,
            Flow::ReleaseBuffer(_) | Flow::Continue => 0,
        }
    }
}

/// The state of a run, as the callback is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallState {
    /// A token with its text; or the hidden states or logits asked for.
    Normal,
    /// A token that ends inside a UTF-8 character; the whole character comes with the next
    /// `Normal`.
    Waiting,
    /// The run is over, at its end or after an abort.
    Finish,
    /// The run failed.
    Error,
    /// A state that no header names.
    Unknown(u32),
}

impl CallState {
    pub(crate) fn of(state: LLMCallState) -> Self {
        match state {
            RKLLM_RUN_NORMAL => CallState::Normal,
            RKLLM_RUN_WAITING => CallState::Waiting,
            RKLLM_RUN_FINISH => CallState::Finish,
            RKLLM_RUN_ERROR => CallState::Error,
            other => CallState::Unknown(other),
        }
    }
}

/// One result, valid inside the callback only: copy what you keep.
#[derive(Debug, Clone, Copy)]
pub struct ResultView<'a> {
    pub run: RunId,
    pub state: CallState,
    /// The token's text in `Normal`; empty for a special token that is skipped, `None` where the
    /// library gives no text. Bytes, because nothing guarantees UTF-8.
    pub text: Option<&'a [u8]>,
    /// In `Normal` and `Waiting`.
    pub token_id: Option<i32>,
    /// In `Normal` of a [`RunMode::LastHiddenLayer`] run, when the library has them: a row a
    /// token, a column an embedding dimension.
    pub hidden_states: Option<Matrix<'a>>,
    /// In `Normal` of a [`RunMode::Logits`] run, when the library has them: a row a token, a
    /// column an entry of the vocabulary. The library keeps generating after them.
    pub logits: Option<Matrix<'a>>,
    /// In `Finish` only.
    pub perf: Option<PerfStat>,
}

/// Rows of `f32`, one a token.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    pub values: &'a [f32],
    pub columns: usize,
}

/// The library's own figures of a finished run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PerfStat {
    pub prefill_time_ms: f32,
    /// Prompt tokens that were evaluated.
    pub prefill_tokens: i32,
    pub generate_time_ms: f32,
    /// Tokens after the first, so one less than were generated.
    pub generate_tokens: i32,
    /// Peak resident memory of the whole process (VmHWM): it never falls and is shared by all
    /// models in the process.
    pub memory_usage_mb: f32,
}

impl<'a> ResultView<'a> {
    /// # Safety
    /// `result` must be NULL or point to the result that the library passes to its callback in
    /// `state`, for a run of `mode`, and stay valid for `'a`.
    pub(crate) unsafe fn of(
        result: *const RKLLMResult,
        state: LLMCallState,
        run: RunId,
        mode: RunMode,
    ) -> Self {
        let mut view = ResultView {
            run,
            state: CallState::of(state),
            text: None,
            token_id: None,
            hidden_states: None,
            logits: None,
            perf: None,
        };
        if result.is_null() {
            return view;
        }
        // SAFETY: not NULL and valid by the caller's promise. Only the fields that the library
        // fills in a state are read in it, so a struct that is stale elsewhere does no harm:
        // `text` points to a C string in NORMAL, and the matrices have the size they state in
        // the mode that asks for them.
        unsafe {
            match view.state {
                CallState::Normal => {
                    view.token_id = Some((&raw const (*result).token_id).read());
                    let text = (&raw const (*result).text).read();
                    if !text.is_null() {
                        view.text = Some(CStr::from_ptr(text).to_bytes());
                    }
                    match mode {
                        RunMode::Generate => {}
                        RunMode::LastHiddenLayer => {
                            let hidden = (&raw const (*result).last_hidden_layer).read();
                            view.hidden_states =
                                matrix(hidden.hidden_states, hidden.num_tokens, hidden.embd_size);
                        }
                        RunMode::Logits => {
                            let logits = (&raw const (*result).logits).read();
                            view.logits =
                                matrix(logits.logits, logits.num_tokens, logits.vocab_size);
                        }
                    }
                }
                CallState::Waiting => {
                    view.token_id = Some((&raw const (*result).token_id).read());
                }
                CallState::Finish => {
                    view.perf = Some(PerfStat::of((&raw const (*result).perf).read()));
                }
                CallState::Error | CallState::Unknown(_) => {}
            }
        }
        view
    }
}

impl PerfStat {
    fn of(perf: RKLLMPerfStat) -> Self {
        PerfStat {
            prefill_time_ms: perf.prefill_time_ms,
            prefill_tokens: perf.prefill_tokens,
            generate_time_ms: perf.generate_time_ms,
            generate_tokens: perf.generate_tokens,
            memory_usage_mb: perf.memory_usage_mb,
        }
    }
}

/// # Safety
/// `values` must be NULL or point to `rows` × `columns` floats that stay valid for `'a`.
unsafe fn matrix<'a>(values: *const f32, rows: c_int, columns: c_int) -> Option<Matrix<'a>> {
    if values.is_null() || !values.is_aligned() {
        return None;
    }
    let rows = usize::try_from(rows).ok().filter(|rows| *rows > 0)?;
    let columns = usize::try_from(columns).ok().filter(|n| *n > 0)?;
    let length = rows.checked_mul(columns)?;
    // No allocation is larger than this, so neither is a truthful size.
    if length > isize::MAX as usize / size_of::<f32>() {
        return None;
    }
    // SAFETY: not NULL, aligned, of that many floats by the caller's promise, and small enough.
    let values = unsafe { std::slice::from_raw_parts(values, length) };
    Some(Matrix { values, columns })
}
