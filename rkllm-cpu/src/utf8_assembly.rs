//! Turns token pieces, which may end anywhere, into text that is always whole characters. What has
//! been pushed and not yet returned is at most one incomplete character; bytes that can never
//! become one turn into U+FFFD instead of being held back for ever.

/// What a token's bytes amount to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Assembled {
    /// Whole characters, possibly none.
    Text(String),
    /// Only the start of a character so far (`RKLLM_RUN_WAITING`).
    Incomplete,
}

#[derive(Debug, Default)]
pub(crate) struct Utf8Assembly {
    pending: Vec<u8>,
}

impl Utf8Assembly {
    pub(crate) fn push(&mut self, piece: &[u8]) -> Assembled {
        if piece.is_empty() {
            return Assembled::Text(String::new());
        }
        self.pending.extend_from_slice(piece);
        let mut text = String::new();
        let mut rest: &[u8] = &self.pending;
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    match error.error_len() {
                        Some(length) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = &after[length..];
                        }
                        None => {
                            rest = after;
                            break;
                        }
                    }
                }
            }
        }
        self.pending = rest.to_vec();
        if text.is_empty() {
            Assembled::Incomplete
        } else {
            Assembled::Text(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Assembled {
        Assembled::Text(text.to_owned())
    }

    #[test]
    fn a_character_split_over_tokens_arrives_whole() {
        let mut assembly = Utf8Assembly::default();
        let rocket = "🚀".as_bytes();
        assert_eq!(assembly.push(&rocket[..1]), Assembled::Incomplete);
        assert_eq!(assembly.push(&rocket[1..3]), Assembled::Incomplete);
        assert_eq!(assembly.push(&rocket[3..]), text("🚀"));
        assert_eq!(assembly.push(b"!"), text("!"));
    }

    #[test]
    fn whole_characters_are_not_held_back_by_an_incomplete_one_after_them() {
        let mut assembly = Utf8Assembly::default();
        assert_eq!(assembly.push(b"ab\xe2\x82"), text("ab"));
        assert_eq!(assembly.push(b"\xac"), text("€"));
    }

    #[test]
    fn bytes_that_cannot_become_a_character_are_replaced_at_once() {
        let mut assembly = Utf8Assembly::default();
        assert_eq!(assembly.push(b"\xff"), text("\u{fffd}"));
        assert_eq!(assembly.push(b"\xe2\x82"), Assembled::Incomplete);
        assert_eq!(assembly.push(b"x"), text("\u{fffd}x"));
    }

    #[test]
    fn an_empty_piece_is_empty_text_and_keeps_what_is_pending() {
        let mut assembly = Utf8Assembly::default();
        assert_eq!(assembly.push(b"\xc3"), Assembled::Incomplete);
        assert_eq!(assembly.push(b""), text(""));
        assert_eq!(assembly.push(b"\xa9"), text("é"));
    }

    #[test]
    fn every_split_of_a_text_gives_the_text() {
        let whole = "né€🚀漢字\u{10ffff}z";
        let bytes = whole.as_bytes();
        for size in 1..=bytes.len() {
            let mut assembly = Utf8Assembly::default();
            let mut got = String::new();
            for piece in bytes.chunks(size) {
                if let Assembled::Text(text) = assembly.push(piece) {
                    got.push_str(&text);
                }
            }
            assert_eq!(got, whole, "in pieces of {size} bytes");
        }
    }
}
