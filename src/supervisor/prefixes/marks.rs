//! What a text begins with, in few bytes: a hash at each step of its way, so that the beginning that two
//! texts share is found without either. A hash that is wrong by chance costs a load for nothing, because
//! the library compares tokens itself.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Bytes between two hashes.
const STEP: usize = 256;

/// Of one text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Bytes of the text.
    pub length: usize,
    /// Of everything up to each whole step.
    steps: Vec<u64>,
    /// Of the whole text.
    end: u64,
}

/// A text that stored ones are compared with.
#[derive(Debug)]
pub struct Marked<'a> {
    text: &'a str,
    marks: Marks,
}

impl<'a> Marked<'a> {
    pub fn new(text: &'a str) -> Self {
        let mut hash = Sha256::new();
        let mut steps = Vec::with_capacity(text.len() / STEP);
        let (whole, rest) = text.as_bytes().as_chunks::<STEP>();
        for step in whole {
            hash.update(step);
            steps.push(number(hash.clone()));
        }
        hash.update(rest);
        let marks = Marks {
            length: text.len(),
            steps,
            end: number(hash),
        };
        Self { text, marks }
    }

    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// How many bytes it has in common with the beginning of a stored text: exact where that is a
    /// beginning of this one, else up to a step less.
    pub fn shared_with(&self, stored: &Marks) -> usize {
        let pairs = self.marks.steps.iter().zip(&stored.steps);
        let steps = pairs.take_while(|(own, other)| own == other).count();
        let all_steps = steps == stored.steps.len();
        match all_steps && self.begins_with(stored) {
            true => stored.length,
            false => steps * STEP,
        }
    }

    fn begins_with(&self, stored: &Marks) -> bool {
        if stored.length == self.marks.length {
            return stored.end == self.marks.end;
        }
        let start = self.text.as_bytes().get(..stored.length);
        start.is_some_and(|start| number(Sha256::new_with_prefix(start)) == stored.end)
    }
}

/// Of a short text, which is not to be told from it.
pub fn hash(text: &str) -> u64 {
    number(Sha256::new_with_prefix(text))
}

fn number(hash: Sha256) -> u64 {
    let hash = hash.finalize();
    let mut eight = [0; 8];
    eight.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_text_that_goes_on_shares_all_of_the_stored_one() {
        let stored = "You help. ".repeat(77);
        let marks = Marked::new(&stored).marks().clone();
        assert_eq!(Marked::new(&stored).shared_with(&marks), stored.len());
        let longer = stored.clone() + "more";
        assert_eq!(Marked::new(&longer).shared_with(&marks), stored.len());
        let other = stored.replacen("You", "Who", 1);
        assert_eq!(Marked::new(&other).shared_with(&marks), 0);
    }

    proptest! {
        #[test]
        fn what_is_shared_is_never_more_than_there_is(
            common in "[ab]{0,900}", one in "[ab]{0,900}", other in "[ab]{0,900}",
        ) {
            let (one, other) = (common.clone() + &one, common + &other);
            let pairs = one.bytes().zip(other.bytes());
            let truth = pairs.take_while(|(a, b)| a == b).count();
            let found = Marked::new(&one).shared_with(Marked::new(&other).marks());
            prop_assert!(found <= truth);
            prop_assert!(found + STEP > truth, "{found} of {truth}");
        }
    }
}
