//! A message on its way to a client. Its text is there; the tensors in it become text a window at a
//! time, when the client has taken what was before, so that what waits for a client is small however
//! large its tensors are.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;

use super::outgoing::Progress;
use super::tensor_text::{self, TensorText};
use crate::memory::Charge;

/// Bytes of a message that are handed on at once.
pub(super) const PIECE_BYTES: usize = 64 * 1024;
/// What a message with tensors holds beside its text: the values of a window, their text, and the
/// copy of it that a connection makes.
const WINDOW_BYTES: usize = 4 * PIECE_BYTES;

#[derive(Debug, Default)]
pub(crate) struct Outbound {
    text: String,
    /// Each with the text behind it.
    tensors: Vec<(TensorText, String)>,
    /// For what it holds, where that is charged before it is sent.
    charge: Option<Charge>,
}

impl Outbound {
    /// The JSON of a value, whose tensors are still to be made text.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Self {
        let (text, tensors) = tensor_text::cut(value);
        Self {
            text,
            tensors,
            charge: None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tensors.is_empty()
    }

    pub fn push_str(&mut self, text: &str) {
        self.last_text().push_str(text);
    }

    pub fn push(&mut self, character: char) {
        self.last_text().push(character);
    }

    pub fn append(&mut self, other: Self) {
        // May be large: copied once.
        self.push_str(&other.text);
        self.tensors.extend(other.tensors);
    }

    /// Puts a text before all of it.
    pub fn begin_with(&mut self, text: &str) {
        self.text.insert_str(0, text);
    }

    fn last_text(&mut self) -> &mut String {
        match self.tensors.last_mut() {
            Some((_, behind)) => behind,
            None => &mut self.text,
        }
    }

    fn text_bytes(&self) -> usize {
        let behind = self.tensors.iter().map(|(_, text)| text.len());
        self.text.len() + behind.sum::<usize>()
    }

    /// What it takes of the daemon's memory until it is sent.
    pub fn held_bytes(&self) -> usize {
        let window = if self.tensors.is_empty() {
            0
        } else {
            WINDOW_BYTES
        };
        self.text_bytes() + window
    }

    /// Is charged until it is sent.
    pub fn charged(self, charge: Charge) -> Self {
        Self {
            charge: Some(charge),
            ..self
        }
    }

    pub fn take_charge(&mut self) -> Option<Charge> {
        self.charge.take()
    }

    /// What it is with its tensors whole; in numbers, at the most.
    pub fn whole_bytes(&self) -> usize {
        let tensors = self.tensors.iter().map(|(tensor, _)| {
            let numbers = || tensor.value_bytes().saturating_mul(4);
            tensor.text_bytes().unwrap_or_else(numbers)
        });
        tensors.fold(self.text_bytes(), usize::saturating_add)
    }

    pub fn into_pieces(self) -> Pieces {
        let length = self.tensors.iter().try_fold(0_usize, |sum, (tensor, _)| {
            sum.checked_add(tensor.text_bytes()?)
        });
        Pieces {
            length: length.map(|tensors| tensors + self.text_bytes()),
            text: self.text.into(),
            rest: self.tensors.into(),
            progress: None,
            patience: None,
            begun: None,
            given: 0,
        }
    }
}

impl From<String> for Outbound {
    fn from(text: String) -> Self {
        Self {
            text,
            ..Self::default()
        }
    }
}

/// What is left of a message.
#[derive(Debug)]
pub(crate) struct Pieces {
    text: Bytes,
    rest: VecDeque<(TensorText, String)>,
    /// Of all of it, where that is known.
    length: Option<usize>,
    progress: Option<Progress>,
    /// How long it may take beyond what it takes at the slowest, and the bytes a second of that.
    patience: Option<(Duration, u32)>,
    begun: Option<Instant>,
    given: u64,
}

impl Pieces {
    /// Messages that wait behind this one learn of each piece that was taken.
    pub fn telling(self, progress: Progress) -> Self {
        Self {
            progress: Some(progress),
            ..self
        }
    }

    /// While it has tensors so many bytes a second must be taken of it, beside so much time.
    pub fn within(self, patience: Duration, slowest: u32) -> Self {
        Self {
            patience: Some((patience, slowest)),
            ..self
        }
    }

    fn in_time(&self, begun: Instant) -> io::Result<()> {
        let Some((patience, slowest)) = self.patience else {
            return Ok(());
        };
        let at_the_slowest = Duration::from_secs(self.given / u64::from(slowest));
        match self.has_tensors() && begun.elapsed() > patience + at_the_slowest {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(()),
        }
    }

    /// Bytes of all pieces, those that were given among them.
    pub fn length(&self) -> Option<usize> {
        self.length
    }

    /// Whether more than its text is still to come.
    pub fn has_tensors(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Nothing is left. What is behind a tensor is never nothing.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.rest.is_empty()
    }

    /// The next one, to be asked for when the one before was taken.
    pub fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        match self.begun {
            None => self.begun = Some(Instant::now()),
            Some(begun) => {
                self.in_time(begun)?;
                if let Some(progress) = &self.progress {
                    progress.made();
                }
            }
        }
        let piece = self.made()?;
        self.given += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Ok(piece)
    }

    fn made(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if !self.text.is_empty() {
                let piece = self.text.len().min(PIECE_BYTES);
                return Ok(Some(self.text.split_to(piece)));
            }
            let Some((tensor, behind)) = self.rest.front_mut() else {
                return Ok(None);
            };
            if let Some(window) = tensor.next_window()? {
                return Ok(Some(window));
            }
            // Its file goes with it.
            self.text = std::mem::take(behind).into();
            self.rest.pop_front();
        }
    }
}
