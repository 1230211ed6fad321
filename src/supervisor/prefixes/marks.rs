//! What a text begins with, in few bytes: a hash at each step of its way, so that the beginning that two
//! texts share is found without either. A hash that is wrong by chance costs a load for nothing, because
//! the library compares tokens itself.

use std::cell::OnceCell;
use std::ops::Deref;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::aside::aside;

/// Bytes between two hashes.
const STEP: usize = 256;
/// Steps after which the hash can be gone on with.
const STEPS_OF_A_STRIDE: usize = 64;
const STRIDE: usize = STEP * STEPS_OF_A_STRIDE;

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
#[derive(Clone, Debug)]
pub struct Marked<'a> {
    text: &'a str,
    marks: Marks,
    /// The hash at the beginning of each stride, as far as that has a whole step.
    strides: Vec<Sha256>,
}

impl<'a> Marked<'a> {
    pub fn new(text: &'a str) -> Self {
        let mut hash = Sha256::new();
        let mut steps = Vec::with_capacity(text.len() / STEP);
        let mut strides = Vec::with_capacity(text.len().div_ceil(STRIDE));
        let (whole, rest) = text.as_bytes().as_chunks::<STEP>();
        for (nth, step) in whole.iter().enumerate() {
            if nth % STEPS_OF_A_STRIDE == 0 {
                strides.push(hash.clone());
            }
            hash.update(step);
            steps.push(number(hash.clone()));
        }
        hash.update(rest);
        let marks = Marks {
            length: text.len(),
            steps,
            end: number(hash),
        };
        Self {
            text,
            marks,
            strides,
        }
    }

    pub fn as_str(&self) -> &'a str {
        self.text
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
        let last = self.strides.len().saturating_sub(1);
        let stride = (stored.length / STRIDE).min(last);
        let rest = self.text.as_bytes().get(stride * STRIDE..stored.length);
        rest.is_some_and(|rest| {
            let mut hash = self.strides.get(stride).cloned().unwrap_or_default();
            hash.update(rest);
            number(hash) == stored.end
        })
    }
}

/// A text whose marks are made once, where they are first asked for.
#[derive(Clone, Debug)]
pub struct Text<'a> {
    text: &'a str,
    marked: OnceCell<Marked<'a>>,
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self {
            text,
            marked: OnceCell::new(),
        }
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        self.text
    }
}

impl<'a> Text<'a> {
    pub fn marked(&self) -> &Marked<'a> {
        self.marked.get_or_init(|| Marked::new(self.text))
    }
}

/// Makes the marks of these before a turn looks at them with the lock that others wait for.
pub fn mark(texts: &[&Text<'_>]) {
    let bytes = texts.iter().map(|text| text.len()).sum();
    aside(bytes, || {
        for text in texts {
            text.marked();
        }
    });
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

    /// Around steps and strides.
    #[test]
    fn a_long_text_goes_on_from_a_stored_one_of_any_length() {
        let text: String = (0..3 * STRIDE / 4)
            .map(|n| format!("{:4}", n % 9973))
            .collect();
        let marked = Marked::new(&text);
        for place in (0..text.len()).step_by(STRIDE) {
            for length in [0, 1, STEP - 1, STEP, STEP + 1, STRIDE - 1] {
                let stored = Marked::new(&text[..place + length]).marks().clone();
                assert_eq!(marked.shared_with(&stored), place + length);
            }
            let other = text[..place].to_owned() + "another end";
            let stored = Marked::new(&other).marks().clone();
            let shared = marked.shared_with(&stored);
            assert!(
                shared <= place && shared + STEP > place,
                "{shared} of {place}"
            );
        }
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
