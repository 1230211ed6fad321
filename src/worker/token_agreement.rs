//! Whether a library's tokens are those that the model's tokenizer knows by their numbers, as seen by what the
//! library prints for them. An answer that may do without is looked at token by token only where they are:
//! what is told of it is the tokenizer's text, never the library's. Pure.

use std::collections::BTreeSet;

use crate::constraint::ModelTokens;

/// So many tokens of an answer are compared.
const MOST: usize = 16;
/// So many that are alike say that all are.
const ENOUGH: usize = 4;
/// So many, of which none is alike, say that the tokens are others,
const SURE: usize = 8;
/// if they are of so many numbers: a library may print single tokens, such as special ones, otherwise.
const SURE_NUMBERS: usize = 3;
/// What a library prints for bytes that are no character.
const REPLACED: &[u8] = "\u{FFFD}".as_bytes();

/// The first tokens of an answer, with the texts that came with each alone.
#[derive(Debug, Default)]
pub struct Spelled {
    tokens: Vec<(Option<i32>, Box<[u8]>)>,
    /// A character is held back: the text that comes next is of several tokens.
    is_within: bool,
}

impl Spelled {
    /// Takes in a token as the library tells it.
    pub fn token(&mut self, id: Option<i32>, text: &[u8], is_waiting: bool) {
        if is_waiting {
            self.is_within = true;
            return;
        }
        // What is not printed, and white space, which is not always printed, say nothing. Nor does what stands
        // in the place of what cannot be printed.
        let is_replaced = text.windows(REPLACED.len()).any(|at| at == REPLACED);
        let says_something = !text.trim_ascii().is_empty() && !is_replaced;
        let is_whole = !self.is_within;
        self.is_within &= text.is_empty();
        if says_something && is_whole && self.tokens.len() < MOST {
            self.tokens.push((id, text.into()));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Takes in those of a later run for the same answer.
    pub fn append(&mut self, mut more: Self) {
        self.tokens.append(&mut more.tokens);
        self.tokens.truncate(MOST);
    }

    /// `None`: these are too few to say.
    pub fn agrees_with(&self, known: &ModelTokens) -> Option<bool> {
        match self.tokens.iter().all(|token| is_known(token, known)) {
            true => (self.tokens.len() >= ENOUGH).then_some(true),
            false => Some(false),
        }
    }

    /// Whether these are tokens of something else, and not such of which some are printed otherwise. A text without
    /// a number says nothing, and one beyond ASCII little, because it may be a character of several tokens.
    pub fn are_others_than(&self, known: &ModelTokens) -> bool {
        if self.tokens.iter().any(|token| is_known(token, known)) {
            return false;
        }
        let told = self.tokens.iter();
        let numbered: Vec<(i32, bool)> = told
            .filter_map(|(id, text)| Some((id.filter(|id| *id >= 0)?, text.is_ascii())))
            .collect();
        let plain = numbered.iter().filter(|(_, is_ascii)| *is_ascii);
        let numbers: BTreeSet<i32> = plain.map(|(id, _)| *id).collect();
        numbered.len() >= SURE && numbers.len() >= SURE_NUMBERS
    }
}

fn is_known((id, text): &(Option<i32>, Box<[u8]>), known: &ModelTokens) -> bool {
    let place = id.and_then(|id| usize::try_from(id).ok());
    let id = id.filter(|_| place.is_some_and(|place| place < known.count()));
    id.is_some_and(|id| known.piece(id).trim_ascii() == text.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constraint::Vocabulary;

    fn known() -> ModelTokens {
        let mut vocabulary = Vocabulary::default();
        for word in [&b" yes"[..], b" no", b"\xc3", b"\xa9", b"."] {
            vocabulary.push(Some(word), false);
        }
        ModelTokens::new(vocabulary).expect("tokens")
    }

    fn agrees(told: &[(i32, &str)]) -> Option<bool> {
        let mut spelled = Spelled::default();
        for &(id, text) in told {
            spelled.token(Some(id), text.as_bytes(), false);
        }
        spelled.agrees_with(&known())
    }

    #[test]
    fn some_that_are_alike_are_enough_and_one_that_is_not() {
        let alike = [(0, "yes"), (4, "."), (1, " no"), (0, " yes")];
        assert_eq!(agrees(&alike), Some(true));
        assert_eq!(agrees(&alike[..3]), None);
        assert_eq!(agrees(&[]), None);
        for other in [(1, "yes"), (5, "no"), (-1, "no")] {
            assert_eq!(agrees(&[other]), Some(false), "{other:?}");
            assert_eq!(agrees(&[&alike[..], &[other]].concat()), Some(false));
        }
        let mut unnumbered = Spelled::default();
        unnumbered.token(None, b"yes", false);
        assert_eq!(unnumbered.agrees_with(&known()), Some(false));
    }

    #[test]
    fn what_is_not_printed_or_held_back_says_nothing() {
        let mut spelled = Spelled::default();
        spelled.token(Some(7), b"", false);
        spelled.token(Some(7), b" \n", false);
        assert!(spelled.is_empty());
        // The whole character comes with its last token.
        spelled.token(Some(2), b"", true);
        spelled.token(Some(3), "é".as_bytes(), false);
        assert!(spelled.is_empty());
        spelled.token(Some(4), b".", false);
        assert!(!spelled.is_empty());
    }

    #[test]
    fn tokens_are_others_only_where_none_is_alike() {
        let spelled = |told: &[(i32, &str)]| {
            let mut all = Spelled::default();
            // As of one run after the other.
            for &(id, text) in told {
                let mut of_run = Spelled::default();
                of_run.token(Some(id), text.as_bytes(), false);
                all.append(of_run);
            }
            all
        };
        let mut others = [(0, "no"); SURE];
        (others[3], others[7]) = ((1, "yes"), (4, "!"));
        assert!(spelled(&others).are_others_than(&known()));
        assert!(!spelled(&others[1..]).are_others_than(&known()));
        let one_is_alike = [&others[..], &[(0, "yes")]].concat();
        assert!(!spelled(&one_is_alike).are_others_than(&known()));
        // One or two tokens that a library prints otherwise, and wants again and again.
        let again_and_again = [[(0, "<yes>"), (1, "<no>")]; SURE].concat();
        assert!(!spelled(&again_and_again).are_others_than(&known()));
        // Whole characters that come with the last of their tokens.
        let whole = [[(2, "é"), (3, "ö"), (4, "ü")]; SURE].concat();
        assert!(!spelled(&whole).are_others_than(&known()));
        let unnumbered = [[(-1, "a"), (-2, "b"), (-3, "c")]; SURE].concat();
        assert!(!spelled(&unnumbered).are_others_than(&known()));
        // Half characters that a library shows as what they are not.
        assert!(spelled(&[(2, "\u{FFFD}"); SURE]).is_empty());
        let many = spelled(&[(0, "no"); 3 * MOST]);
        assert_eq!(many.tokens.len(), MOST);
    }

    #[test]
    fn an_answer_is_compared_up_to_a_bound() {
        let long: Vec<_> = [(4, "."); MOST].into_iter().chain([(4, "x")]).collect();
        assert_eq!(agrees(&long), Some(true));
    }
}
