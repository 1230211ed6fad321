//! Escapes such as `\ud800` that are one half of a pair: JSON's grammar allows them, and no text can hold
//! them. A field that is read as text is refused by its parser; one that is kept as it was written would carry
//! them to a template or a grammar. A body with any is refused wherever it is, so that whether it is does not
//! hang on which fields are read.

use super::error::RequestError;
use super::json_words::HALF_A_PAIR;

/// Refuses JSON text, whose form is known to be right, that holds one half of a pair.
pub(super) fn refuse(json: &[u8]) -> Result<(), RequestError> {
    let Some(at) = first(json) else {
        return Ok(());
    };
    let before = &json[..at];
    let line_start = before.iter().rposition(|&byte| byte == b'\n');
    Err(RequestError::MalformedJson {
        line: 1 + before.iter().filter(|&&byte| byte == b'\n').count(),
        column: 1 + at - line_start.map_or(0, |newline| newline + 1),
        reason: HALF_A_PAIR.to_owned(),
    })
}

/// Whether there is one in JSON text.
pub(crate) fn are_in(json: &[u8]) -> bool {
    first(json).is_some()
}

/// Where the first one begins. Outside its texts JSON has no backslash.
fn first(json: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(next) = json.get(at..)?.iter().position(|&byte| byte == b'\\') {
        at += next;
        match unit(json, at) {
            Some(0xD800..=0xDBFF) => match unit(json, at + ESCAPE_BYTES) {
                Some(0xDC00..=0xDFFF) => at += 2 * ESCAPE_BYTES,
                _ => return Some(at),
            },
            Some(0xDC00..=0xDFFF) => return Some(at),
            Some(_) => at += ESCAPE_BYTES,
            // Another escape, of two characters.
            None => at += 2,
        }
    }
    None
}

/// `\u` and four digits.
const ESCAPE_BYTES: usize = 6;

/// What the escape stands for that begins at `at`.
fn unit(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at + ESCAPE_BYTES)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_found_and_pairs_are_not() {
        for (json, found) in [
            (r#"{"a":"b"}"#, None),
            (r#""\ud83d\ude00""#, None),
            (r#""\uD83D\uDE00\u00e9""#, None),
            // A backslash, and then letters.
            (r#""\\ud800""#, None),
            (r#""\\\ud800""#, Some(3)),
            (r#""\ud800""#, Some(1)),
            (r#""a\udc00\ud83d""#, Some(2)),
            (r#""\ud83d\ud83d\ude00""#, Some(1)),
            (r#""\ud83d\n\ude00""#, Some(1)),
            (r#""\ud83d\ude00\ude00""#, Some(13)),
            (r#"{"\ud800":1}"#, Some(2)),
        ] {
            assert_eq!(first(json.as_bytes()), found, "{json}");
        }
    }

    #[test]
    fn its_place_is_told() {
        let json = b"{\n \"a\": \"\\ud800\"}";
        let Err(RequestError::MalformedJson { line, column, .. }) = refuse(json) else {
            panic!("it is refused");
        };
        assert_eq!((line, column), (2, 8));
    }
}
