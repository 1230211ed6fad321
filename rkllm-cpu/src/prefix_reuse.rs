//! What the KV cache physically holds, kept equal to llama.cpp's memory at every return. A run's
//! tokens are matched against it so that only the rest is evaluated; a removal that the model's
//! memory cannot do in part (recurrent state, sliding window) empties it instead, because a cache
//! that disagrees with its record would answer from a context that no caller asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use llama_cpp_sys_2 as llama;

use crate::rounding::Origins;
use crate::vocabulary::Token;

/// The part of llama.cpp's memory interface that keeps the record of one sequence true.
pub(crate) trait Memory {
    /// Removes positions `from..to` (to the end if `None`); false if it cannot.
    fn remove(&mut self, from: usize, to: Option<usize>) -> bool;
    /// Moves positions `from..` down by `by`.
    fn move_down(&mut self, from: usize, by: usize);
    fn can_shift(&self) -> bool;
    /// It can remove a part of what it holds.
    fn can_forget(&self) -> bool;
    fn clear(&mut self);
    /// The first position held by every layer.
    fn begin(&self) -> usize;
    /// One past the last position held.
    fn end(&self) -> usize;
}

pub(crate) struct ContextMemory {
    raw: llama::llama_memory_t,
    sequence: llama::llama_seq_id,
    can_forget: bool,
}

// SAFETY: the memory belongs to a context that is used by one thread at a time, under its lock.
unsafe impl Send for ContextMemory {}

impl ContextMemory {
    /// # Safety
    /// `context` is alive, has a memory, and outlives the result.
    pub(crate) unsafe fn of(
        context: *mut llama::llama_context,
        sequence: usize,
        can_forget: bool,
    ) -> ContextMemory {
        ContextMemory {
            can_forget,
            // SAFETY: the caller vouches for the context.
            raw: unsafe { llama::llama_get_memory(context) },
            sequence: sequence as llama::llama_seq_id,
        }
    }
}

impl Memory for ContextMemory {
    fn remove(&mut self, from: usize, to: Option<usize>) -> bool {
        let to = to.map_or(-1, |to| to as i32);
        // SAFETY: the memory is alive, see `of`.
        unsafe { llama::llama_memory_seq_rm(self.raw, self.sequence, from as i32, to) }
    }

    fn move_down(&mut self, from: usize, by: usize) {
        // SAFETY: the memory is alive, and callers ask `can_shift` first.
        unsafe {
            llama::llama_memory_seq_add(self.raw, self.sequence, from as i32, -1, -(by as i32))
        };
    }

    fn can_shift(&self) -> bool {
        // SAFETY: the memory is alive, see `of`.
        unsafe { llama::llama_memory_can_shift(self.raw) }
    }

    fn can_forget(&self) -> bool {
        self.can_forget
    }

    fn clear(&mut self) {
        // SAFETY: the memory is alive, see `of`.
        // Removing a whole sequence never fails.
        unsafe { llama::llama_memory_seq_rm(self.raw, self.sequence, -1, -1) };
    }

    fn begin(&self) -> usize {
        // SAFETY: the memory is alive, see `of`.
        let first = unsafe { llama::llama_memory_seq_pos_min(self.raw, self.sequence) };
        usize::try_from(first).unwrap_or(0)
    }

    fn end(&self) -> usize {
        // SAFETY: the memory is alive, see `of`.
        let last = unsafe { llama::llama_memory_seq_pos_max(self.raw, self.sequence) };
        usize::try_from(last + 1).unwrap_or(0)
    }
}

/// Which cells a run takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reused {
    All,
    /// Likewise; and what goes on behind all of a prompt takes its cells as they are, as if it had been drawn
    /// there.
    AsTheyAre,
    /// What it would have computed itself, in the same way.
    OfPrompts,
}

pub(crate) struct KvCells<M> {
    memory: M,
    tokens: Vec<Token>,
    origins: Origins,
    /// Their number, readable while a run goes on.
    published: Arc<AtomicUsize>,
    /// Positions were moved and the keys are not rotated yet: llama.cpp does that in its next
    /// decode, which must not be aborted half-way.
    shift_pending: bool,
}

impl<M: Memory> KvCells<M> {
    pub(crate) fn new(memory: M) -> Self {
        KvCells {
            memory,
            tokens: Vec::new(),
            origins: Origins::default(),
            published: Arc::default(),
            shift_pending: false,
        }
    }

    /// Publishes the number of tokens in `counter` from now on.
    pub(crate) fn publish_in(&mut self, counter: Arc<AtomicUsize>) {
        self.published = counter;
        self.publish();
    }

    fn publish(&self) {
        self.published.store(self.tokens.len(), Ordering::Relaxed);
    }

    pub(crate) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn shift_pending(&self) -> bool {
        self.shift_pending
    }

    pub(crate) fn origins(&self) -> Origins {
        self.origins
    }

    /// Keeps the cells that begin `wanted`, at most `most` of them, and removes the others. Returns
    /// how many tokens of `wanted` need no evaluation.
    pub(crate) fn reuse_at_most(&mut self, wanted: &[Token], most: usize, kind: Reused) -> usize {
        let alike = common_prefix(&self.tokens, wanted).min(most);
        let (alike, may_go_on) = match kind {
            Reused::All | Reused::AsTheyAre => (alike, true),
            Reused::OfPrompts => (
                alike.min(self.origins.prompted.min(self.origins.by_all)),
                false,
            ),
        };
        // A memory that would have to begin again goes on where it is.
        let goes_on = may_go_on && alike == self.tokens.len() && !self.memory.can_forget();
        let is_behind = kind == Reused::AsTheyAre && self.is_behind_a_prompt(alike, wanted.len());
        let usable = match goes_on || is_behind {
            true => alike,
            false => self.origins.reusable(alike, wanted.len()),
        };
        self.truncate(usable);
        self.tokens.len()
    }

    /// Whether tokens of which so many are here begin with all of a prompt that was evaluated, and go on.
    pub(crate) fn is_behind_a_prompt(&self, alike: usize, whole: usize) -> bool {
        let prompted = self.origins.prompted;
        (1..whole).contains(&prompted) && alike >= prompted
    }

    /// Records `tokens` as a piece of a prompt, evaluated at once.
    pub(crate) fn read(&mut self, tokens: &[Token], by_all_threads: bool) {
        self.origins
            .read(self.tokens.len(), tokens.len(), by_all_threads);
        self.decoded(tokens);
    }

    /// Records `tokens` as restored, from cells of these origins.
    pub(crate) fn restored(&mut self, tokens: &[Token], origins: Origins) {
        self.decoded(tokens);
        self.origins = origins;
        self.origins.truncate(tokens.len());
    }

    /// Records `tokens` as decoded.
    pub(crate) fn decoded(&mut self, tokens: &[Token]) {
        self.tokens.extend_from_slice(tokens);
        self.publish();
    }

    /// A decode was done, in which llama.cpp rotated what was moved, of every sequence.
    pub(crate) fn rotated(&mut self) {
        self.shift_pending = false;
    }

    /// After a decode that stopped half-way: `attempted` followed the record, and an unknown part
    /// of it is in the memory. Returns how much of it is kept.
    pub(crate) fn decoded_in_part(&mut self, attempted: &[Token]) -> usize {
        let before = self.tokens.len();
        let end = self.memory.end();
        if end < before {
            self.clear();
            return 0;
        }
        let kept = (end - before).min(attempted.len());
        self.tokens.extend_from_slice(&attempted[..kept]);
        self.publish();
        // The memory may hold cells past the last whole micro-batch.
        self.truncate(before + kept);
        kept
    }

    /// Drops `from..to` and closes the gap, so that positions stay without holes. Returns false,
    /// with everything as it was or empty, if the model's memory cannot.
    pub(crate) fn cut(&mut self, from: usize, to: usize) -> bool {
        if from >= to || to > self.tokens.len() {
            return true;
        }
        let reaches_the_end = to == self.tokens.len();
        if !reaches_the_end && !self.memory.can_shift() {
            return false;
        }
        if !self.memory.remove(from, Some(to)) {
            return false;
        }
        if !reaches_the_end {
            self.memory.move_down(to, to - from);
            self.shift_pending = true;
        }
        self.tokens.drain(from..to);
        self.origins.truncate(from);
        self.publish();
        true
    }

    pub(crate) fn truncate(&mut self, length: usize) {
        if length == 0 {
            self.clear();
        } else if length < self.memory.end().max(self.tokens.len()) {
            // Layers with a sliding window give cells behind it to other sequences. What they lack is in
            // the window again once the last positions are removed.
            let is_whole = self.memory.begin() == 0 && self.memory.end() >= self.tokens.len();
            if is_whole && self.memory.remove(length, None) {
                self.tokens.truncate(length);
                self.origins.truncate(length);
                self.publish();
            } else {
                self.clear();
            }
        }
    }

    /// What was moved is still rotated by the next decode, also if it is gone.
    pub(crate) fn clear(&mut self) {
        self.memory.clear();
        self.tokens.clear();
        self.origins = Origins::default();
        self.publish();
    }
}

impl KvCells<ContextMemory> {
    /// llama.cpp's number of the sequence.
    pub(crate) fn number(&self) -> usize {
        self.memory.sequence as usize
    }

    /// Is sequence `number` from now on, and leaves nothing behind. What it holds is still to be restored
    /// there.
    pub(crate) fn move_to(&mut self, number: usize) {
        self.memory.clear();
        self.memory.sequence = number as llama::llama_seq_id;
    }
}

pub(crate) fn common_prefix(left: &[Token], right: &[Token]) -> usize {
    left.iter().zip(right).take_while(|(l, r)| l == r).count()
}

/// How many tokens to discard after the first `keep` to make room in a full window: half of what
/// may go, as llama.cpp does, so that shifts are rare.
pub(crate) fn discard_count(held: usize, keep: usize) -> usize {
    (held.saturating_sub(keep) / 2).max(1)
}

#[cfg(test)]
mod tests;
