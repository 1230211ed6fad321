//! A shared cache in which each sequence has a stream to itself: a token then looks at its own sequence's
//! cells alone, and all at once, where in a mixed cache those of all lie among each other. Each stream could
//! hold a whole context, but is memory only as far as it is written, and what is written stays within the
//! pool: a sequence that claims cells has others give back what they hold no more.

use llama_cpp_sys_2 as llama;

use super::gathering::{self, next_exchange};
use super::{Computing, Sequence};
use crate::cache_memory::CacheMemory;
use crate::log::warning;
use crate::pool::{self, Holding};

pub(super) struct Streams {
    memory: CacheMemory,
    streams: Vec<Stream>,
    /// Of a stream.
    cells: usize,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    /// Cells that have memory.
    written: usize,
    /// Each position lies in the cell of its number. A window that was shifted leaves others.
    is_in_order: bool,
}

impl Streams {
    /// None: the cache has no rows of so many cells for each.
    pub(super) fn new(memory: CacheMemory, count: usize, cells: usize) -> Option<Streams> {
        let stream = Stream {
            written: 0,
            is_in_order: true,
        };
        memory.has(count, cells).then(|| Streams {
            memory,
            streams: vec![stream; count],
            cells,
        })
    }

    /// # Safety
    /// The cache is alive and not being used, and `from` and the cells behind it are free.
    unsafe fn give_back(&mut self, stream: usize, from: usize) {
        // SAFETY: the caller vouches for it.
        unsafe { self.memory.give_back(stream, from, self.cells) };
        let stream = &mut self.streams[stream];
        stream.written = stream.written.min(from);
    }
}

/// What two streams hold changes places: llama.cpp writes cells again in the order in which they lay, so that a
/// window that was shifted stays out of order.
fn exchange_order(streams: &mut [Stream], [one, other]: [usize; 2]) {
    let orders = [one, other].map(|number| streams[number].is_in_order);
    for (number, order) in [other, one].into_iter().zip(orders) {
        streams[number].is_in_order = order;
    }
}

impl Computing {
    /// Its cells came from a state: in which order they lay there is not known.
    pub(super) fn may_lie_in_any_order(&mut self, sequence: usize) {
        let number = self.number(sequence);
        if let Some(streams) = &mut self.streams {
            streams.streams[number].is_in_order = false;
        }
    }

    /// llama.cpp's number of a sequence, which is its stream's if it has one.
    pub(crate) fn number(&self, sequence: usize) -> usize {
        self.sequences[sequence].cells.number()
    }

    /// Cells of a sequence whose memory cannot be given back.
    pub(super) fn kept(&self, sequence: usize) -> usize {
        let cells = &self.sequences[sequence].cells;
        match &self.streams {
            Some(streams) if cells.len() > 0 => {
                let stream = streams.streams[cells.number()];
                match stream.is_in_order && !cells.shift_pending() {
                    true => cells.len(),
                    false => cells.len().max(stream.written),
                }
            }
            _ => cells.len(),
        }
    }

    /// `count` cells are written behind those that a sequence holds.
    pub(super) fn will_write(&mut self, sequence: usize, count: usize) {
        let cells = &self.sequences[sequence].cells;
        let Some(streams) = &mut self.streams else {
            return;
        };
        let stream = &mut streams.streams[cells.number()];
        stream.is_in_order |= cells.len() == 0;
        stream.written = stream.written.max(cells.len() + count);
    }

    /// The memory of all streams stays within the pool when each sequence holds what it claims.
    pub(super) fn give_back_surplus(&mut self, holdings: &[Holding]) {
        let Some(streams) = &mut self.streams else {
            return;
        };
        let claims: Vec<usize> = holdings.iter().map(Holding::claim).collect();
        let numbers: Vec<usize> = (self.sequences.iter())
            .map(|sequence| sequence.cells.number())
            .collect();
        let written: Vec<usize> = (numbers.iter())
            .map(|&number| streams.streams[number].written)
            .collect();
        for giving in pool::give_back(&claims, &written, self.capacity) {
            // SAFETY: the context is alive and used by this thread only; a sequence claims all cells that
            // it holds, up to the last one.
            unsafe { streams.give_back(numbers[giving], claims[giving]) };
        }
    }

    /// A sequence that holds nothing has no memory from now on.
    pub(super) fn give_back_all(&mut self, sequence: usize) {
        let number = self.number(sequence);
        let is_empty = self.held(sequence) == 0;
        if let Some(streams) = self.streams.as_mut().filter(|_| is_empty) {
            // SAFETY: the context is alive and used by this thread only; the stream holds nothing.
            unsafe { streams.give_back(number, 0) };
        }
    }

    /// After a decode in which llama.cpp rotated the keys of windows that were shifted: it did that to the free
    /// cells of all streams as well.
    pub(super) fn give_back_rotated(&mut self) {
        let Some(streams) = &mut self.streams else {
            return;
        };
        let is_moved = |it: &&Sequence| it.cells.shift_pending() && it.cells.len() > 0;
        for sequence in self.sequences.iter().filter(is_moved) {
            streams.streams[sequence.cells.number()].is_in_order = false;
        }
        for stream in 0..streams.streams.len() {
            let written = streams.streams[stream].written;
            // SAFETY: the context is alive and used by this thread only; behind what was written there is
            // nothing.
            unsafe { streams.give_back(stream, written) };
        }
    }

    /// They are evaluated together, in this order.
    pub(crate) fn lie_side_by_side(&self, sequences: &[usize]) -> bool {
        let number = |&sequence: &usize| self.number(sequence);
        let mut pairs = sequences.windows(2);
        self.streams.is_none() || pairs.all(|pair| number(&pair[0]) + 1 == number(&pair[1]))
    }

    /// Has `members` lie side by side, if at most one of `share` parts of the pool is to be copied for that.
    /// While that is done there is a copy in memory beside. Returns how many cells were copied.
    pub(crate) fn gather(&mut self, members: &[usize], share: usize) -> usize {
        let mut all = 0;
        if self.streams.is_none() || self.shift_pending() {
            return all;
        }
        for _ in members {
            let mut of_stream = vec![0; self.sequences.len()];
            for (sequence, held) in self.sequences.iter().enumerate() {
                of_stream[held.cells.number()] = sequence;
            }
            let streams: Vec<gathering::Stream> = (of_stream.iter())
                .map(|sequence| gathering::Stream {
                    is_member: members.contains(sequence),
                    cells: self.held(*sequence),
                })
                .collect();
            let most = self.capacity / share - all;
            let Some((pair, copied)) = next_exchange(&streams, most) else {
                break;
            };
            all += copied;
            self.exchange(pair.map(|stream| of_stream[stream]));
        }
        all
    }

    /// Two sequences change streams, with what they hold. One whose cells cannot be had again is empty.
    fn exchange(&mut self, pair: [usize; 2]) {
        let states = pair.map(|sequence| match self.held(sequence) {
            0 => Vec::new(),
            _ => self.state_of(sequence),
        });
        let [one, other] = pair.map(|sequence| self.number(sequence));
        for (sequence, number) in pair.into_iter().zip([other, one]) {
            self.cells(sequence).move_to(number);
        }
        let moves_any = states.iter().any(|state| !state.is_empty());
        if let Some(streams) = self.streams.as_mut().filter(|_| moves_any) {
            for number in [one, other] {
                // SAFETY: the context is alive and used by this thread only; both streams hold nothing.
                unsafe { streams.give_back(number, 0) };
            }
            exchange_order(&mut streams.streams, [one, other]);
        }
        for (sequence, state) in pair.into_iter().zip(states) {
            if self.held(sequence) == 0 {
                continue;
            }
            self.will_write(sequence, 0);
            // SAFETY: llama.cpp has just made the state, of a sequence of this context.
            if !unsafe { self.read_state(sequence, &state) } {
                warning!(
                    "llama.cpp did not take a sequence's cells back; they are evaluated again"
                );
                self.cells(sequence).clear();
            }
        }
    }

    /// False: llama.cpp did not take it.
    ///
    /// # Safety
    /// The state is whole, and this version of llama.cpp made it for the same model.
    pub(super) unsafe fn read_state(&self, sequence: usize, state: &[u8]) -> bool {
        // SAFETY: the context is alive and used by this thread only; the rest is the caller's.
        let read = unsafe {
            llama::llama_state_seq_set_data(
                self.raw(),
                state.as_ptr(),
                state.len(),
                self.number(sequence) as llama::llama_seq_id,
            )
        };
        read > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_was_shifted_is_out_of_order_wherever_it_goes() {
        let mut streams = [true, false, true].map(|is_in_order| Stream {
            written: 5,
            is_in_order,
        });
        exchange_order(&mut streams, [1, 2]);
        assert_eq!(streams.map(|it| it.is_in_order), [true, true, false]);
        exchange_order(&mut streams, [2, 0]);
        assert_eq!(streams.map(|it| it.is_in_order), [false, true, true]);
    }
}
