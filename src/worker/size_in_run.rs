//! What the size of the KV cache tells of a run that goes on. The vendor does not say whether its library tells the size
//! as it is then, or still that of the run before. So a size that cannot be this run's tells nothing.

/// Tokens that an input may have beside its text's bytes, such as one that marks its beginning.
const TOKENS_WITHOUT_TEXT: u64 = 16;

pub struct SizeInRun {
    pub size: u32,
    /// What the run before left in the cache, or may have left.
    pub left_before: u32,
    pub input_bytes: usize,
    /// Those that it has made by now.
    pub made_tokens: u32,
    pub context_length: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    OfThisRun,
    /// It may be of either. In a later token's place this run's is another one.
    MayBeOfTheRunBefore,
    NotOfThisRun,
}

impl SizeInRun {
    pub fn reading(&self) -> Reading {
        // No token of a text is of less than a byte.
        let most = self.input_bytes as u64 + u64::from(self.made_tokens) + TOKENS_WITHOUT_TEXT;
        if u64::from(self.size) > most || self.size > self.context_length {
            return Reading::NotOfThisRun;
        }
        match self.size == self.left_before {
            true => Reading::MayBeOfTheRunBefore,
            false => Reading::OfThisRun,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_this_runs_if_it_can_be_and_was_not_there_before() {
        let of = |size, left_before| {
            let told = SizeInRun {
                size,
                left_before,
                input_bytes: 100,
                made_tokens: 4,
                context_length: 110,
            };
            told.reading()
        };
        for left_before in [0, 54] {
            assert_eq!(of(55, left_before), Reading::OfThisRun);
            assert_eq!(of(110, left_before), Reading::OfThisRun);
            assert_eq!(of(111, left_before), Reading::NotOfThisRun, "no room");
        }
        assert_eq!(of(55, 55), Reading::MayBeOfTheRunBefore);
        let short = SizeInRun {
            size: 121,
            left_before: 0,
            input_bytes: 100,
            made_tokens: 4,
            context_length: 4096,
        };
        assert_eq!(short.reading(), Reading::NotOfThisRun, "more than bytes");
        assert_eq!(
            SizeInRun { size: 120, ..short }.reading(),
            Reading::OfThisRun
        );
    }
}
