//! One decode: the next tokens of one sequence, or of several at once. At every return the record in
//! `KvCells` equals llama.cpp's memory.

use std::ptr;
use std::sync::Arc;

use llama_cpp_sys_2 as llama;

use super::Computing;
use super::decode_batch::{DecodeBatch, Position};
use crate::embedding_rows::EmbeddingRows;
use crate::host_callbacks::HostCallbacks;
use crate::log::{MutedEngineLog, error};
use crate::run_state::{RunState, should_abort};
use crate::vocabulary::Token;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Evaluation {
    Complete,
    Aborted,
    /// The window is full and the model cannot shift it.
    WindowFull,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputKind {
    /// Only what the sampler needs.
    Text,
    HiddenStates,
    Logits,
}

/// One sequence's part of a decode: what follows its cells.
pub(crate) struct Part<'a> {
    pub(crate) sequence: usize,
    pub(crate) tokens: &'a [Token],
    /// They were not drawn.
    pub(crate) of_prompt: bool,
    /// Where rows of all tokens are wanted, those from this position on: llama.cpp rounds a row by how many are
    /// computed with it.
    pub(crate) rows_from: usize,
}

/// What is the same for all of a decode.
pub(crate) struct How<'a> {
    pub(crate) kind: OutputKind,
    pub(crate) adapter: u64,
    /// By all threads, also where fewer would be faster: rounding depends on their number.
    pub(crate) by_all_threads: bool,
    /// The runs that may end the decode half-way.
    pub(crate) abort: &'a [&'a RunState],
}

/// Where tokens become what llama.cpp reads, unless it looks them up itself.
#[derive(Clone)]
pub(crate) struct Inputs {
    /// The rows behind negative tokens.
    pub(crate) rows: Arc<EmbeddingRows>,
    pub(crate) host: HostCallbacks,
}

impl Computing {
    /// Evaluates the parts at once. The logits of each part's last token are then ready to be
    /// sampled, at its index among all tokens; with hidden states or logits those of every token.
    pub(crate) fn decode(
        &mut self,
        parts: &[Part<'_>],
        inputs: &Inputs,
        how: How<'_>,
    ) -> Evaluation {
        let mut tokens = Vec::new();
        let mut places = Vec::new();
        for part in parts {
            let held = self.held(part.sequence);
            tokens.extend_from_slice(part.tokens);
            places.extend((0..part.tokens.len()).map(|at| Position {
                sequence: self.number(part.sequence),
                position: held + at,
                output: at + 1 == part.tokens.len()
                    || (how.kind != OutputKind::Text && held + at >= part.rows_from),
            }));
        }
        let Some(mut arrays) = inputs.arrays_of(&tokens, &places) else {
            return Evaluation::Failed;
        };
        for part in parts {
            self.will_write(part.sequence, part.tokens.len());
        }
        let rotates = self.shift_pending();
        let recurrent = self.weights.has_recurrent_state();
        let how = match recurrent && parts.len() > 1 {
            // llama.cpp moves the states of sequences that are in no part inside such a decode, which must
            // not be torn in half.
            true => How { abort: &[], ..how },
            false => how,
        };
        let by_all = how.by_all_threads || self.threads.all_take_part();
        let code = self.decode_arrays(&mut arrays, how);
        if rotates {
            self.give_back_rotated();
        }
        for part in parts {
            let cells = self.cells(part.sequence);
            match code {
                0 if part.of_prompt && parts.len() == 1 => cells.read(part.tokens, by_all),
                0 => cells.decoded(part.tokens),
                2 if !recurrent => {
                    cells.decoded_in_part(part.tokens);
                }
                _ => cells.clear(),
            }
        }
        match code {
            0 => {
                for sequence in &mut self.sequences {
                    sequence.cells.rotated();
                }
                Evaluation::Complete
            }
            2 => Evaluation::Aborted,
            code => {
                error!(
                    "failed to decode {} tokens of {} sequences, llama.cpp code {code}",
                    tokens.len(),
                    parts.len()
                );
                Evaluation::Failed
            }
        }
    }

    /// llama.cpp's code: 0 is done, 2 aborted.
    fn decode_arrays(&mut self, arrays: &mut DecodeBatch, how: How<'_>) -> i32 {
        self.use_adapter(how.adapter);
        // llama.cpp rotates a shifted cache in its next decode, which must not be torn in half.
        let abort = if self.shift_pending() { &[] } else { how.abort };
        let hidden = how.kind == OutputKind::HiddenStates;
        let context = self.raw();
        let muted = MutedEngineLog::scope();
        let batch = arrays.raw(self.weights.position_parts());
        // SAFETY: the context is alive and used by this thread only; the batch points into
        // `arrays`, which outlives the call. Positions follow each sequence's last one in the
        // memory, which the cells mirror. The runs outlive the decode, after which they are not asked
        // any more.
        let code = unsafe {
            let runs = ptr::from_ref(&abort).cast_mut().cast();
            llama::llama_set_abort_callback(context, Some(should_abort), runs);
            llama::llama_set_embeddings(context, hidden);
            let decode = || llama::llama_decode(context, batch);
            let code = match how.by_all_threads {
                true => self.threads.step_with_all(context, decode),
                false => self.threads.step(context, decode),
            };
            llama::llama_set_embeddings(context, false);
            llama::llama_set_abort_callback(context, None, ptr::null_mut());
            code
        };
        drop(muted);
        code
    }

    /// The next decode rotates cells of some sequence.
    pub(crate) fn shift_pending(&self) -> bool {
        let mut sequences = self.sequences.iter();
        sequences.any(|sequence| sequence.cells.shift_pending())
    }

    /// Appends the outputs of tokens `from..to` of the last decode, all of which had some. False, with
    /// a line in the log, if they cannot be had.
    pub(crate) fn append_rows(
        &self,
        kind: OutputKind,
        [from, to]: [usize; 2],
        rows: &mut Vec<f32>,
    ) -> bool {
        let width = self.output_width(kind);
        let wanted = (to - from) * width;
        if rows.try_reserve_exact(wanted).is_err() {
            error!("failed to allocate {wanted} floats for the output");
            return false;
        }
        for index in from..to {
            // SAFETY: the batch has just been decoded and had an output for each token; llama.cpp
            // returns NULL or a row of that width, valid until the next decode.
            let row = unsafe {
                let first = if kind == OutputKind::HiddenStates {
                    llama::llama_get_embeddings_ith(self.raw(), index as i32)
                } else {
                    llama::llama_get_logits_ith(self.raw(), index as i32)
                };
                (!first.is_null()).then(|| std::slice::from_raw_parts(first, width))
            };
            let Some(row) = row else {
                error!("llama.cpp has no output for token {index} of {to}");
                return false;
            };
            rows.extend_from_slice(row);
        }
        true
    }

    /// Floats in an output row: embd_size or vocab_size.
    fn output_width(&self, kind: OutputKind) -> usize {
        match kind {
            OutputKind::HiddenStates => self.weights.hidden_width(),
            OutputKind::Text | OutputKind::Logits => self.weights.vocabulary.len() as usize,
        }
    }
}

impl Inputs {
    /// Either tokens or embedding rows, at a place each. None, with a line in the log, if a row
    /// cannot be had.
    fn arrays_of(&self, tokens: &[Token], places: &[Position]) -> Option<DecodeBatch> {
        let mut arrays = DecodeBatch::default();
        if tokens.iter().any(|&token| token < 0) {
            for (&token, &place) in tokens.iter().zip(places) {
                let Some(row) = self.rows.row(token) else {
                    error!("the embedding input is no longer there to be evaluated again");
                    return None;
                };
                arrays.push_row(row, place);
            }
            return Some(arrays);
        }
        let width = self.rows.width();
        match self.host.embeddings(tokens, width) {
            None => {
                for (&token, &place) in tokens.iter().zip(places) {
                    arrays.push_token(token, place);
                }
            }
            Some(Ok(rows)) => {
                for (row, &place) in rows.chunks_exact(width).zip(places) {
                    arrays.push_row(row, place);
                }
            }
            Some(Err(reason)) => {
                error!("{reason}");
                return None;
            }
        }
        Some(arrays)
    }
}
