//! Tokens that a run makes a second time because its worker was lost: a run that repeats is begun where the
//! lost one was, and what its reader has of it already is passed over. Pure.

use std::collections::VecDeque;

use crate::generation::GenerationError;

#[derive(Debug, Default)]
pub struct Repeated {
    /// What comes next and was there before, the ids as far as they are known.
    next: VecDeque<Option<i32>>,
    differs: bool,
}

/// What a token is that a run has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    New,
    /// Its reader has it.
    Again,
    /// Another stood in its place.
    Otherwise,
}

/// What the reader of an answer is told of which another worker does not make the same.
pub fn made_otherwise() -> GenerationError {
    GenerationError::AnswerInterrupted {
        cause: "its worker was lost".to_owned(),
        reason: "another worker does not make the same of it",
    }
}

impl Repeated {
    pub fn new(ids: impl Iterator<Item = Option<i32>>) -> Self {
        Self {
            next: ids.collect(),
            differs: false,
        }
    }

    /// All that was there before has come again.
    pub fn is_over(&self) -> bool {
        self.next.is_empty() && !self.differs
    }

    pub fn take(&mut self, id: Option<i32>) -> Made {
        match self.next.pop_front() {
            None => Made::New,
            Some(before) if before.zip(id).is_none_or(|(before, id)| before == id) => Made::Again,
            Some(_) => {
                self.differs = true;
                Made::Otherwise
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_before_is_passed_over_once() {
        let mut repeated = Repeated::new([Some(7), None, Some(9)].into_iter());
        assert!(!repeated.is_over());
        let made: Vec<Made> = [Some(7), Some(3), None, Some(4)]
            .into_iter()
            .map(|id| repeated.take(id))
            .collect();
        assert_eq!(made, [Made::Again, Made::Again, Made::Again, Made::New]);
        assert!(repeated.is_over());
        let mut other = Repeated::new([Some(7)].into_iter());
        assert_eq!(other.take(Some(8)), Made::Otherwise);
        assert!(!other.is_over());
    }
}
