//! Forbids in a row of logits what a grammar does not allow, a word of the mask at a time: a vocabulary has
//! tens of thousands of tokens, of which most places of an answer allow hardly any or nearly all. Pure.

/// Tokens in a word of a mask.
const TOKENS: usize = u32::BITS as usize;

/// A set of tokens, a bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenSet {
    words: Vec<u32>,
    /// So many tokens there are, in the set or not.
    count: usize,
}

/// What of a row is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Any token.
    pub any: bool,
    /// Any that is not of the set.
    pub beyond: bool,
}

impl FromIterator<bool> for TokenSet {
    fn from_iter<I: IntoIterator<Item = bool>>(has: I) -> Self {
        let mut set = Self::default();
        for has in has {
            if set.count.is_multiple_of(TOKENS) {
                set.words.push(0);
            }
            if let Some(word) = set.words.last_mut() {
                *word |= u32::from(has) << (set.count % TOKENS);
            }
            set.count += 1;
        }
        set
    }
}

impl TokenSet {
    /// How many tokens there are, in the set or not.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Gives what `allowed` does not name -inf, and all beyond the tokens that there are.
    pub fn restrict(&self, allowed: &[u32], row: &mut [f32]) -> Left {
        let mut left = Left::default();
        let (known, unknown) = row.split_at_mut(self.count.min(row.len()));
        let mut allowed = allowed.iter().copied();
        for (logits, own) in known.chunks_mut(TOKENS).zip(&self.words) {
            let there = u32::MAX >> (TOKENS - logits.len());
            let word = allowed.next().unwrap_or(0) & there;
            left.any |= word != 0;
            left.beyond |= word & !own != 0;
            if word == 0 {
                logits.fill(f32::NEG_INFINITY);
            } else if word != there {
                for (at, logit) in logits.iter_mut().enumerate() {
                    let may = word >> at & 1 == 1;
                    *logit = if may { *logit } else { f32::NEG_INFINITY };
                }
            }
        }
        unknown.fill(f32::NEG_INFINITY);
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_row_keeps_what_is_allowed_and_nothing_else(
            tokens in prop::collection::vec((any::<bool>(), any::<bool>()), 0..200),
            // Most words have all or nothing.
            words in prop::collection::vec(prop_oneof![Just(0), Just(u32::MAX), any::<u32>()], 0..8),
            shorter in 0_usize..8, longer in 0_usize..80,
        ) {
            let set: TokenSet = tokens.iter().map(|(is_in, _)| *is_in).collect();
            prop_assert_eq!(set.count(), tokens.len());
            let length = (tokens.len() + longer).saturating_sub(shorter);
            let before: Vec<f32> = (0..length).map(|id| id as f32).collect();
            let mut row = before.clone();
            let left = set.restrict(&words, &mut row);
            let mut expected = Left::default();
            for id in 0..length {
                let has_bit = words.get(id / 32).is_some_and(|word| word >> (id % 32) & 1 == 1);
                let is_allowed = has_bit && id < tokens.len();
                expected.any |= is_allowed;
                expected.beyond |= is_allowed && !tokens[id].0;
                let logit = if is_allowed { before[id] } else { f32::NEG_INFINITY };
                prop_assert_eq!(row[id], logit, "{}", id);
            }
            prop_assert_eq!(left, expected);
        }
    }
}
