//! Names of files and models are data: whatever stands in them, no terminal and no log obeys it.

use std::borrow::Cow;
use std::fmt::Write;

/// `text` with every character that steers a terminal or turns the direction of writing as an escape
/// (`\u{1b}`, `\n`), and nothing else changed.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if steers(character) {
            // Writing to a string cannot fail.
            let _ = match character {
                '\n' | '\r' | '\t' => write!(shown, "{}", character.escape_default()),
                _ => write!(shown, "{}", character.escape_unicode()),
            };
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// The same for JSON text, in which such characters stand in strings only: it stays the same JSON.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    let steers = |c: char| c != '\n' && steers(c);
    if !json.contains(steers) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if steers(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Whether a name holds no such character.
pub fn is_printable(text: &str) -> bool {
    !text.contains(steers)
}

/// Control characters, those that change the direction of text (Unicode Standard Annex 9), and
/// separators of lines.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_what_it_is() {
        let value = serde_json::json!({"path": "a\u{1b}[2J\u{202e}\u{9b}b", "n": [1, 2]});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let shown = printable_json(&text);
        assert!(!shown.contains(|c| c != '\n' && steers(c)), "{shown}");
        let again: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(again, value);
    }

    #[test]
    fn nothing_that_steers_gets_through_and_nothing_else_changes() {
        assert_eq!(printable("Qwen3 0.6B – 通义"), "Qwen3 0.6B – 通义");
        assert_eq!(
            printable("a\u{1b}[2Jb\nc\u{202e}d\u{9b}e"),
            "a\\u{1b}[2Jb\\nc\\u{202e}d\\u{9b}e"
        );
        for character in (0..=0x10ffff).filter_map(char::from_u32) {
            let shown = printable(character.encode_utf8(&mut [0; 4])).into_owned();
            assert!(!shown.contains(steers), "{character:?}");
        }
    }
}
