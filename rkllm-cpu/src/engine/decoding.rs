//! Evaluating tokens: in batches, after a shift of the window where it is full, with the rows a run
//! asked for copied out after each batch. At every return the record in `KvCells` equals llama.cpp's
//! memory.

use llama_cpp_sys_2 as llama;

use super::Engine;
use super::decode_batch::{DecodeBatch, Place};
use crate::log::{MutedEngineLog, Verbosity, error, info, warning};
use crate::model_load::prefill_batch;
use crate::prefix_reuse::discard_count;
use crate::run_state::RunState;
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

/// What a run wants of each token, and what there is of it.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) kind: OutputKind,
    /// Row after row, for the tokens evaluated since it was last emptied.
    pub(crate) rows: Vec<f32>,
    /// Tokens that are evaluated but not wanted: history whose cells were lost.
    pub(crate) skip: usize,
}

impl Output {
    pub(crate) fn new(kind: OutputKind, skip: usize) -> Output {
        Output {
            kind,
            rows: Vec::new(),
            skip,
        }
    }
}

impl Engine {
    /// Evaluates `tokens` after the cells, shifting the window when it is full. The logits of the
    /// last one are then ready to be sampled.
    pub(crate) fn evaluate(
        &mut self,
        slot: usize,
        tokens: &[Token],
        n_keep: usize,
        output: &mut Output,
        state: &RunState,
    ) -> Evaluation {
        let mut rest = tokens;
        while !rest.is_empty() {
            if self.slots[slot].cells.len() + 1 > self.model.max_context
                && !self.shift_window(slot, n_keep)
            {
                warning!(
                    "the context of {} tokens is full and this model cannot shift it",
                    self.model.max_context
                );
                return Evaluation::WindowFull;
            }
            let room = self.model.max_context - self.slots[slot].cells.len();
            // A shifted cache is rotated inside the next decode, which is kept short because it
            // must not be aborted.
            let most = if self.slots[slot].cells.shift_pending() {
                1
            } else {
                prefill_batch()
            };
            // Embedding rows and tokens do not share a batch.
            let alike = rest
                .iter()
                .take_while(|&&t| (t < 0) == (rest[0] < 0))
                .count();
            let (batch, after) = rest.split_at(alike.min(most).min(room));
            match self.decode(slot, batch, output, state) {
                Evaluation::Complete => rest = after,
                other => return other,
            }
        }
        Evaluation::Complete
    }

    fn decode(
        &mut self,
        slot: usize,
        batch: &[Token],
        output: &mut Output,
        state: &RunState,
    ) -> Evaluation {
        let Some(mut arrays) = self.batch_of(slot, batch, output.kind) else {
            return Evaluation::Failed;
        };
        let hidden = output.kind == OutputKind::HiddenStates;
        let indivisible = self.slots[slot].cells.shift_pending();
        let code = self.decode_arrays(&mut arrays, hidden, indivisible, state);
        let evaluation = match code {
            0 => {
                self.slots[slot].cells.decoded(batch);
                self.keep_rows(batch.len(), output)
            }
            2 => {
                if self.model.has_recurrent_state() {
                    self.slots[slot].cells.clear();
                } else {
                    self.slots[slot].cells.decoded_in_part(batch);
                }
                Evaluation::Aborted
            }
            code => {
                error!(
                    "failed to decode {} tokens after {} in the kv cache, llama.cpp code {code}",
                    batch.len(),
                    self.slots[slot].cells.len()
                );
                Evaluation::Failed
            }
        };
        state.set_kv_tokens(slot, self.slots[slot].cells.len());
        evaluation
    }

    /// llama.cpp's code: 0 is done, 2 aborted.
    fn decode_arrays(
        &mut self,
        arrays: &mut DecodeBatch,
        hidden: bool,
        indivisible: bool,
        state: &RunState,
    ) -> i32 {
        let context = self.model.context();
        state.set_indivisible(indivisible);
        let muted = MutedEngineLog::scope();
        // SAFETY: the context is alive and used by this thread only; the batch points into
        // `arrays`, which outlives the call. Positions follow each sequence's last one in the
        // memory, which the cells mirror.
        let code = unsafe {
            llama::llama_set_embeddings(context, hidden);
            let code = llama::llama_decode(context, arrays.raw(self.model.position_parts()));
            llama::llama_set_embeddings(context, false);
            code
        };
        drop(muted);
        state.set_indivisible(false);
        code
    }

    /// Evaluates one token of each of several sequences at once: `steps` are slots, tokens and
    /// `n_keep`s. The logits of the n-th step are then ready to be sampled at n.
    pub(crate) fn evaluate_together(
        &mut self,
        steps: &[(usize, Token, usize)],
        state: &RunState,
    ) -> Evaluation {
        let mut arrays = DecodeBatch::default();
        let mut indivisible = false;
        for &(slot, token, n_keep) in steps {
            if self.slots[slot].cells.len() + 1 > self.model.max_context
                && !self.shift_window(slot, n_keep)
            {
                return Evaluation::WindowFull;
            }
            let cells = &self.slots[slot].cells;
            indivisible |= cells.shift_pending();
            let place = Place {
                sequence: slot,
                position: cells.len(),
                output: true,
            };
            if self.push(&mut arrays, token, place).is_none() {
                return Evaluation::Failed;
            }
        }
        let code = self.decode_arrays(&mut arrays, false, indivisible, state);
        for &(slot, token, _) in steps {
            match code {
                0 => self.slots[slot].cells.decoded(&[token]),
                2 if !self.model.has_recurrent_state() => {
                    self.slots[slot].cells.decoded_in_part(&[token]);
                }
                _ => self.slots[slot].cells.clear(),
            }
            state.set_kv_tokens(slot, self.slots[slot].cells.len());
        }
        match code {
            0 => Evaluation::Complete,
            2 => Evaluation::Aborted,
            code => {
                error!(
                    "failed to decode {} sequences at once, llama.cpp code {code}",
                    steps.len()
                );
                Evaluation::Failed
            }
        }
    }

    fn batch_of(&self, slot: usize, batch: &[Token], kind: OutputKind) -> Option<DecodeBatch> {
        let mut arrays = DecodeBatch::default();
        for (at, &token) in batch.iter().enumerate() {
            let place = Place {
                sequence: slot,
                position: self.slots[slot].cells.len() + at,
                output: kind != OutputKind::Text || at + 1 == batch.len(),
            };
            self.push(&mut arrays, token, place)?;
        }
        Some(arrays)
    }

    /// None, with a line in the log, if the token's embedding row cannot be had.
    fn push(&self, arrays: &mut DecodeBatch, token: Token, place: Place) -> Option<()> {
        if token >= 0 {
            match self.host.embedding(token, self.embeddings.width()) {
                None => arrays.push_token(token, place),
                Some(Ok(row)) => arrays.push_row(&row, place),
                Some(Err(reason)) => {
                    error!("{reason}");
                    return None;
                }
            }
        } else if let Some(row) = self.embeddings.row(token) {
            arrays.push_row(row, place);
        } else {
            error!("the embedding input is no longer there to be evaluated again");
            return None;
        }
        Some(())
    }

    /// Copies the wanted rows of a decoded batch, all of whose tokens had outputs.
    fn keep_rows(&self, decoded: usize, output: &mut Output) -> Evaluation {
        let width = match output.kind {
            OutputKind::Text => return Evaluation::Complete,
            kind => self.output_width(kind),
        };
        let skipped = output.skip.min(decoded);
        output.skip -= skipped;
        let wanted = (decoded - skipped) * width;
        if output.rows.try_reserve_exact(wanted).is_err() {
            error!("failed to allocate {wanted} floats for the output");
            return Evaluation::Failed;
        }
        for index in skipped..decoded {
            let index = index as i32;
            // SAFETY: the batch has just been decoded and had an output for each token; llama.cpp
            // returns NULL or a row of that width, valid until the next decode.
            let row = unsafe {
                let first = if output.kind == OutputKind::HiddenStates {
                    llama::llama_get_embeddings_ith(self.model.context(), index)
                } else {
                    llama::llama_get_logits_ith(self.model.context(), index)
                };
                (!first.is_null()).then(|| std::slice::from_raw_parts(first, width))
            };
            let Some(row) = row else {
                error!("llama.cpp has no output for token {index} of {decoded}");
                return Evaluation::Failed;
            };
            output.rows.extend_from_slice(row);
        }
        Evaluation::Complete
    }

    /// Floats in an output row: embd_size or vocab_size.
    pub(crate) fn output_width(&self, kind: OutputKind) -> usize {
        match kind {
            OutputKind::HiddenStates => self.model.hidden_width(),
            OutputKind::Text | OutputKind::Logits => self.model.vocabulary.len() as usize,
        }
    }

    fn shift_window(&mut self, slot: usize, n_keep: usize) -> bool {
        let held = self.slots[slot].cells.len();
        let keep = n_keep.min(held.saturating_sub(1));
        let discard = discard_count(held, keep);
        if self.verbosity >= Verbosity::DETAILS {
            info!("kv cache shift: {held} tokens, keeping the first {keep}, discarding {discard}");
        }
        self.slots[slot].cells.cut(keep, keep + discard)
    }
}
