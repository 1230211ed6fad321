//! How a prompt is cut into pieces, and how much of it is taken from cells that are there, so that what a
//! run says depends on neither. llama.cpp rounds a token's sums by how many tokens are evaluated with it:
//! it computes attention in one way for few and in another for `MANY` or more, and multiplies rearranged
//! weights with `ROWS` tokens at once and with those that remain one by one. So a prompt of `MANY` tokens is
//! evaluated in pieces of as many at least, a shorter one in pieces of `ROWS` at least, and each begins at
//! a multiple of `ROWS`. Cells of such pieces stay for a later prompt, as far as what is left of that is
//! such a piece again: then they hold what the later run would have computed itself.
//!
//! Cells that were drawn one by one have no such equals: a prompt that goes on after an answer takes
//! them as they are.

/// The least number of tokens that llama.cpp evaluates in its way for many.
pub(crate) const MANY: usize = 64;
/// Tokens that are multiplied at once with rearranged weights.
const ROWS: usize = 4;

/// How many of a prompt's next `whole` tokens are evaluated now if there is time for `tokens`.
pub(crate) fn piece(whole: usize, tokens: usize) -> usize {
    if whole <= tokens || whole < 2 * MANY {
        return whole;
    }
    tokens.min((whole - MANY) / MANY * MANY).max(MANY)
}

/// Where a sequence's cells came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origins {
    /// How many there are before the first one that was drawn.
    pub(crate) prompted: usize,
    /// How many of these were evaluated in one way: that for many, or that for few.
    pub(crate) in_one_way: usize,
    pub(crate) among_many: bool,
    /// How many of the first all threads have computed. llama.cpp divides the attention of a lone token by how many
    /// there are.
    pub(crate) by_all: usize,
}

impl Origins {
    /// Behind `held` cells, `count` of a prompt were evaluated at once.
    pub(crate) fn read(&mut self, held: usize, count: usize, by_all: bool) {
        if by_all && self.by_all == held {
            self.by_all += count;
        }
        let among_many = count >= MANY;
        if held == 0 {
            self.among_many = among_many;
        }
        if self.prompted == held {
            self.prompted += count;
        }
        if self.in_one_way == held && held.is_multiple_of(ROWS) && self.among_many == among_many {
            self.in_one_way += count;
        }
    }

    pub(crate) fn truncate(&mut self, length: usize) {
        self.prompted = self.prompted.min(length);
        self.in_one_way = self.in_one_way.min(length);
        self.by_all = self.by_all.min(length);
    }

    /// Of the cells that begin a prompt of `whole` tokens, `alike` in number, how many it takes.
    pub(crate) fn reusable(self, alike: usize, whole: usize) -> usize {
        if alike > self.prompted {
            return alike;
        }
        let last_piece = if whole < MANY { ROWS } else { MANY };
        if self.among_many != (whole >= MANY) {
            return 0;
        }
        let before_it = whole.saturating_sub(last_piece);
        alike.min(self.in_one_way).min(before_it) / ROWS * ROWS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Evaluates tokens `held..whole` of a prompt, and returns for each in which way it was done.
    fn ways(held: usize, whole: usize, tokens: usize) -> (Origins, Vec<(bool, bool)>) {
        let mut origins = Origins::default();
        let mut at = held;
        let mut ways = Vec::new();
        while at < whole {
            let count = piece(whole - at, tokens);
            origins.read(at, count, true);
            // Of many tokens or few; with others, or by itself.
            ways.extend((0..count).map(|row| (count >= MANY, row < count / ROWS * ROWS)));
            at += count;
        }
        (origins, ways)
    }

    proptest! {
        #[test]
        fn all_pieces_are_evaluated_in_the_same_way(whole in 1..513_usize, many in 1..9_usize) {
            let mut left = whole;
            while left > 0 {
                let piece = piece(left, many * MANY);
                prop_assert!((1..=left).contains(&piece));
                prop_assert_eq!(piece >= MANY, whole >= MANY);
                prop_assert!(piece <= many * MANY || piece < 2 * MANY);
                left -= piece;
            }
        }

        #[test]
        fn what_is_reused_is_what_would_have_been_computed(
            first in 1..700_usize, first_time in 1..9_usize,
            second in 1..700_usize, second_time in 1..9_usize,
            alike in 1..700_usize, alone_time in 1..9_usize,
        ) {
            let alike = alike.min(first).min(second - 1);
            let (origins, held) = ways(0, first, first_time * MANY);
            let reused = origins.reusable(alike, second);
            prop_assert!(reused <= alike);
            let (_, rest) = ways(reused, second, second_time * MANY);
            let (_, alone) = ways(0, second, alone_time * MANY);
            let got: Vec<_> = held[..reused].iter().copied().chain(rest).collect();
            prop_assert_eq!(got, alone);
            // A constant more than what is new.
            let more = second - reused - (second - alike);
            prop_assert!(more < MANY + ROWS);
        }
    }

    #[test]
    fn an_answer_is_taken_as_it_is() {
        let mut origins = Origins::default();
        origins.read(0, 100, true);
        // Thirty were drawn, and twenty asked then.
        origins.read(130, 20, true);
        assert_eq!((origins.prompted, origins.in_one_way), (100, 100));
        assert_eq!(origins.reusable(150, 151), 150);
        assert_eq!(origins.reusable(100, 101), 36);
        assert_eq!(origins.reusable(90, 400), 88);
        origins.truncate(70);
        assert_eq!(origins.reusable(70, 400), 68);
    }

    #[test]
    fn a_short_prompt_is_as_short_as_it_was() {
        let mut origins = Origins::default();
        origins.read(0, 40, true);
        assert_eq!(origins.reusable(30, 35), 28);
        assert_eq!(origins.reusable(39, 40), 36);
        assert_eq!(origins.reusable(40, 64), 0, "all of it is among many now");
        assert_eq!(origins.reusable(41, 64), 41, "it has an answer");
    }
}
