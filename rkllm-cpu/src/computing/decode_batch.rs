//! The arrays behind one `llama_batch`. Tokens and embedding rows are never mixed in one; the arrays
//! live as long as the batch that points into them.

use llama_cpp_sys_2 as llama;

use crate::vocabulary::Token;

#[derive(Default)]
pub(crate) struct DecodeBatch {
    tokens: Vec<Token>,
    rows: Vec<f32>,
    positions: Vec<llama::llama_pos>,
    sequences: Vec<llama::llama_seq_id>,
    outputs: Vec<i8>,
    sequence_counts: Vec<i32>,
    sequence_pointers: Vec<*mut llama::llama_seq_id>,
}

/// One position of a sequence.
#[derive(Clone, Copy)]
pub(crate) struct Position {
    pub(crate) sequence: usize,
    pub(crate) position: usize,
    /// Logits (and the hidden state, where those are on) are wanted for it.
    pub(crate) output: bool,
}

impl DecodeBatch {
    pub(crate) fn len(&self) -> usize {
        self.positions.len()
    }

    pub(crate) fn push_token(&mut self, token: Token, place: Position) {
        self.tokens.push(token);
        self.push_position(place);
    }

    pub(crate) fn push_row(&mut self, row: &[f32], place: Position) {
        self.rows.extend_from_slice(row);
        self.push_position(place);
    }

    fn push_position(&mut self, place: Position) {
        self.positions.push(place.position as llama::llama_pos);
        self.sequences.push(place.sequence as llama::llama_seq_id);
        self.outputs.push(i8::from(place.output));
    }

    /// `position_parts`: numbers a position has for an embedding row (4 with mrope, where text has
    /// three equal ones and a zero); llama.cpp writes them out itself for tokens.
    pub(crate) fn raw(&mut self, position_parts: usize) -> llama::llama_batch {
        let count = self.len();
        self.sequence_counts = vec![1; count];
        self.sequence_pointers = self.sequences.iter_mut().map(|s| s as *mut _).collect();
        let embeds = !self.rows.is_empty();
        if embeds && position_parts == 4 {
            let plain = self.positions[..count].to_vec();
            self.positions.extend_from_slice(&plain);
            self.positions.extend_from_slice(&plain);
            self.positions.extend(std::iter::repeat_n(0, count));
        }
        llama::llama_batch {
            n_tokens: count as i32,
            token: if embeds {
                std::ptr::null_mut()
            } else {
                self.tokens.as_mut_ptr()
            },
            embd: if embeds {
                self.rows.as_mut_ptr()
            } else {
                std::ptr::null_mut()
            },
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.sequence_counts.as_mut_ptr(),
            seq_id: self.sequence_pointers.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        }
    }
}
