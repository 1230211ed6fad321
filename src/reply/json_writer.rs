//! Writes JSON of what is nearly JSON. Whatever order brackets, commas and words come in, the text is
//! JSON once all is closed: a comma is written before what follows it, a word in the place of a key is
//! a text, a key without a value has none, and texts in a row are one.

use super::json_value::{push_escaped, quoted};
use super::parameters::{begun_literal, literal};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Spacing {
    /// `{"a": 1, "b": 2}`
    #[default]
    Wide,
    /// `{"a":1,"b":2}`
    Narrow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Of an object: a key comes next.
    Key,
    /// Of an object: the key was written, the colon was not.
    Colon,
    /// Of an object: the colon was written.
    Value,
    /// Of a list: an item comes next.
    Item,
    /// A comma or the end comes next.
    End,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    is_object: bool,
    is_empty: bool,
    next: Next,
}

#[derive(Clone, Debug, Default)]
pub(super) struct JsonWriter {
    spacing: Spacing,
    open: Vec<Open>,
    /// The end of a text that another may go on.
    has_open_quote: bool,
    high_surrogate: Option<u32>,
}

impl JsonWriter {
    pub fn new(spacing: Spacing) -> Self {
        Self {
            spacing,
            ..Self::default()
        }
    }

    pub fn depth(&self) -> usize {
        self.open.len()
    }

    pub fn is_in_object(&self) -> bool {
        self.open.last().is_some_and(|open| open.is_object)
    }

    fn next(&self) -> Option<Next> {
        self.open.last().map(|open| open.next)
    }

    /// A key comes next, or its colon.
    pub fn wants_key(&self) -> bool {
        matches!(self.next(), Some(Next::Key | Next::Colon))
    }

    pub fn begin(&mut self, is_object: bool, json: &mut String) {
        self.close_quote(json);
        if self.is_in_object() && self.next() == Some(Next::End) {
            self.comma(json);
        }
        if self.next() == Some(Next::Key) {
            self.word("", json);
        }
        self.before_value(json);
        json.push(if is_object { '{' } else { '[' });
        self.open.push(Open {
            is_object,
            is_empty: true,
            next: if is_object { Next::Key } else { Next::Item },
        });
    }

    pub fn end(&mut self, json: &mut String) {
        self.close_quote(json);
        self.fill_in(json);
        if let Some(open) = self.open.pop() {
            json.push(if open.is_object { '}' } else { ']' });
        }
    }

    pub fn end_all(&mut self, json: &mut String) {
        while !self.open.is_empty() {
            self.end(json);
        }
    }

    pub fn comma(&mut self, json: &mut String) {
        self.close_quote(json);
        self.fill_in(json);
        if let Some(open) = self.open.last_mut() {
            open.next = if open.is_object {
                Next::Key
            } else {
                Next::Item
            };
        }
    }

    pub fn colon(&mut self, json: &mut String) {
        self.close_quote(json);
        if let Some(open) = self.open.last_mut()
            && open.next == Next::Colon
        {
            open.next = Next::Value;
            json.push_str(match self.spacing {
                Spacing::Wide => ": ",
                Spacing::Narrow => ":",
            });
        }
    }

    pub fn key(&mut self, key: &str, json: &mut String) {
        self.comma(json);
        self.word(key, json);
        self.colon(json);
    }

    /// A word: a key, or a literal.
    pub fn word(&mut self, word: &str, json: &mut String) {
        let word = word.trim();
        if word.is_empty() && !self.wants_key() {
            return;
        }
        self.close_quote(json);
        if self.next() == Some(Next::End) {
            self.comma(json);
        }
        let is_key = self.next() == Some(Next::Key);
        self.before_value(json);
        match is_key {
            true => json.push_str(&quoted(word)),
            false => json.push_str(&literal(word)),
        }
    }

    /// What there is of a literal that was cut.
    pub fn cut_word(&mut self, word: &str, json: &mut String) {
        let word = begun_literal(word);
        if !word.is_empty() && !self.wants_key() {
            self.close_quote(json);
            self.before_value(json);
            json.push_str(word);
        }
    }

    pub fn begin_text(&mut self, json: &mut String) {
        if !std::mem::take(&mut self.has_open_quote) {
            self.before_value(json);
            json.push('"');
        }
    }

    pub fn text(&mut self, text: &str, json: &mut String) {
        self.end_surrogate(json);
        push_escaped(json, text);
    }

    /// A character by its number; two halves of a pair are one.
    pub fn code(&mut self, code: u32, json: &mut String) {
        let high = self.high_surrogate.take();
        let code = match (high, code) {
            (Some(high), 0xDC00..0xE000) => 0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00),
            (high, code) => {
                self.high_surrogate = high;
                self.end_surrogate(json);
                if (0xD800..0xDC00).contains(&code) {
                    self.high_surrogate = Some(code);
                    return;
                }
                code
            }
        };
        let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        push_escaped(json, c.encode_utf8(&mut [0; 4]));
    }

    pub fn end_text(&mut self, json: &mut String) {
        self.end_surrogate(json);
        self.has_open_quote = true;
    }

    fn end_surrogate(&mut self, json: &mut String) {
        if self.high_surrogate.take().is_some() {
            json.push(char::REPLACEMENT_CHARACTER);
        }
    }

    pub fn close_quote(&mut self, json: &mut String) {
        if std::mem::take(&mut self.has_open_quote) {
            json.push('"');
        }
    }

    /// What must stand between the last thing and a value or a key.
    fn before_value(&mut self, json: &mut String) {
        let comma = match self.spacing {
            Spacing::Wide => ", ",
            Spacing::Narrow => ",",
        };
        let Some(open) = self.open.last().copied() else {
            return;
        };
        match open.next {
            Next::Colon => self.colon(json),
            // A comma was left out.
            Next::End => self.comma(json),
            Next::Key | Next::Value | Next::Item => {}
        }
        let Some(open) = self.open.last_mut() else {
            return;
        };
        if matches!(open.next, Next::Key | Next::Item) {
            if !open.is_empty {
                json.push_str(comma);
            }
            open.is_empty = false;
        }
        open.next = match open.next {
            Next::Key => Next::Colon,
            _ => Next::End,
        };
    }

    /// A key without a value has none.
    fn fill_in(&mut self, json: &mut String) {
        self.colon(json);
        if let Some(open) = self.open.last_mut()
            && open.next == Next::Value
        {
            json.push_str("null");
            open.next = Next::End;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_order_of_parts_is_json(parts in prop::collection::vec(0u8..9, 0..40), narrow: bool) {
            let spacing = if narrow { Spacing::Narrow } else { Spacing::Wide };
            let mut writer = JsonWriter::new(spacing);
            let mut json = String::new();
            writer.begin(true, &mut json);
            for part in parts {
                match part {
                    0 => writer.begin(true, &mut json),
                    1 => writer.begin(false, &mut json),
                    2 if writer.depth() > 1 => writer.end(&mut json),
                    3 => writer.comma(&mut json),
                    4 => writer.colon(&mut json),
                    5 => writer.word("some word", &mut json),
                    6 => writer.word("12", &mut json),
                    7 => {
                        writer.begin_text(&mut json);
                        writer.text("a\"", &mut json);
                        writer.code(0xD83D, &mut json);
                        writer.end_text(&mut json);
                    }
                    _ => {
                        writer.begin_text(&mut json);
                        writer.code(0xD83D, &mut json);
                        writer.code(0xDE00, &mut json);
                        writer.end_text(&mut json);
                    }
                }
            }
            writer.end_all(&mut json);
            let read = serde_json::from_str::<serde_json::Value>(&json);
            prop_assert!(read.is_ok(), "{}", json);
        }
    }
}
