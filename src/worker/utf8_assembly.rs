//! Turns the library's byte strings into text without ever cutting a character. The library
//! assembles characters itself as a rule (state WAITING), but nothing guarantees it.

use std::borrow::Cow;

#[derive(Debug, Default)]
pub struct Utf8Assembly {
    /// The beginning of a character whose rest has not come.
    pending: Vec<u8>,
}

/// Text of whole characters.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole<'a> {
    pub text: Cow<'a, str>,
    /// Some of it stands for bytes that were no UTF-8.
    pub replaced: bool,
}

impl Utf8Assembly {
    /// Whole characters up to here; what cannot be UTF-8 becomes U+FFFD.
    pub fn push<'a>(&mut self, bytes: &'a [u8]) -> Whole<'a> {
        if self.pending.is_empty()
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            return Whole {
                text: Cow::Borrowed(text),
                replaced: false,
            };
        }
        self.pending.extend_from_slice(bytes);
        let keep = incomplete_tail(&self.pending);
        let tail = self.pending.split_off(self.pending.len() - keep);
        let whole = std::mem::replace(&mut self.pending, tail);
        match String::from_utf8(whole) {
            Ok(text) => Whole {
                text: Cow::Owned(text),
                replaced: false,
            },
            Err(error) => Whole {
                text: Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
                replaced: true,
            },
        }
    }

    /// Whether the beginning of a character is held back.
    pub fn holds_back(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What is left at the end: an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

/// Bytes at the end that may still become a character.
fn incomplete_tail(bytes: &[u8]) -> usize {
    let longest = bytes.len().min(3);
    (1..=longest)
        .find(|&len| {
            let tail = &bytes[bytes.len() - len..];
            matches!(std::str::from_utf8(tail), Err(error) if error.valid_up_to() == 0 && error.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_cut_gives_the_same_text(text in "\\PC{0,20}", size in 1usize..5) {
            let mut assembly = Utf8Assembly::default();
            let mut out = String::new();
            for piece in text.as_bytes().chunks(size) {
                let whole = assembly.push(piece);
                prop_assert!(!whole.replaced);
                out.push_str(&whole.text);
            }
            prop_assert_eq!(assembly.finish(), "");
            prop_assert_eq!(out, text);
        }

        #[test]
        fn junk_loses_no_text_after_it(junk in prop::collection::vec(any::<u8>(), 0..12)) {
            let mut assembly = Utf8Assembly::default();
            let first = assembly.push(&junk);
            let mut replaced = first.replaced;
            let mut out = first.text.into_owned();
            let last = assembly.push(b"end");
            replaced |= last.replaced;
            out.push_str(&last.text);
            prop_assert_eq!(replaced, std::str::from_utf8(&junk).is_err());
            prop_assert!(out.ends_with("end"));
        }
    }

    #[test]
    fn an_unfinished_character_is_replaced_at_the_end() {
        let mut assembly = Utf8Assembly::default();
        assert_eq!(assembly.push(&"é".as_bytes()[..1]).text, "");
        assert_eq!(assembly.finish(), "\u{fffd}");
    }
}
