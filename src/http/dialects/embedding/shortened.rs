//! How long the beginning of a text may be that fits a context. Only counting tells the tokens of a text, so it is
//! found by trying: few times, since texts have about as many tokens in one part as in another.

/// It is good enough that leaves no more than this part of the room.
const CLOSE: usize = 32;
/// Of tries, so that no text is looked at without end.
const MOST_TRIES: u32 = 12;

/// The search for the end of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning {
    room: usize,
    /// Bytes that fit, and their tokens.
    fits: (usize, usize),
    /// Bytes that are too many, and their tokens.
    over: (usize, usize),
    tries: u32,
}

impl Beginning {
    /// Of a text with more tokens than there is room for.
    pub fn of(text: &str, tokens: usize, room: usize) -> Self {
        Self {
            room,
            fits: (0, 0),
            over: (text.len(), tokens),
            tries: 0,
        }
    }

    /// The end to try next, a boundary of the text's characters; `None`: it is found.
    pub fn next(&self, text: &str) -> Option<usize> {
        let (from, to) = (self.fits.0, self.over.0);
        let is_close = self.room - self.fits.1 <= self.room / CLOSE && from > 0;
        if self.tries == MOST_TRIES || is_close {
            return None;
        }
        let width = to - from;
        // Where tokens are spread unevenly halves lead there as well.
        let guess = match self.tries % 2 {
            0 => {
                let tokens = self.over.1.saturating_sub(self.fits.1).max(1);
                let wanted = self.room - self.room / (2 * CLOSE) - self.fits.1;
                let part = width as u128 * wanted as u128 / tokens as u128;
                usize::try_from(part).unwrap_or(width).min(width)
            }
            _ => width / 2,
        };
        let end = text.floor_char_boundary(from + guess);
        let next = text.ceil_char_boundary(from + 1);
        let end = end.max(next);
        (end < to).then_some(end)
    }

    /// What a try came to.
    pub fn learn(&mut self, end: usize, tokens: usize) {
        self.tries += 1;
        match tokens <= self.room {
            true => self.fits = (end, tokens),
            false => self.over = (end, tokens),
        }
    }

    /// Bytes that fit; 0: none were found.
    pub fn fitting(&self) -> usize {
        self.fits.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_beginning_fits_and_is_nearly_as_long_as_may_be(
            words in prop::collection::vec("[a-zäß本]{1,9}", 20..400),
            part in 2_usize..10,
        ) {
            let text = words.join(" ");
            // A token for each word that has begun, as a tokenizer might.
            let count = |text: &str| text.split(' ').filter(|word| !word.is_empty()).count();
            let room = (count(&text) / part).max(1);
            let mut search = Beginning::of(&text, count(&text), room);
            let mut tries = 0;
            while let Some(end) = search.next(&text) {
                prop_assert!(text.is_char_boundary(end) && end > 0 && end < text.len());
                search.learn(end, count(&text[..end]));
                tries += 1;
                prop_assert!(tries <= MOST_TRIES);
            }
            let fitting = count(&text[..search.fitting()]);
            prop_assert!(fitting <= room);
            prop_assert!(fitting + room / CLOSE + 1 >= room, "{} of {}", fitting, room);
        }
    }

    #[test]
    fn a_character_that_does_not_fit_has_no_beginning() {
        let mut search = Beginning::of("本本", 8, 3);
        while let Some(end) = search.next("本本") {
            assert_eq!(end, 3);
            search.learn(end, 4);
        }
        assert_eq!(search.fitting(), 0);
    }
}
