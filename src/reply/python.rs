//! Calls as Python writes them: `[name(key="text", other=[1, True])]`, with or without the list.
//! Arguments become JSON as they come.

use super::call::Call;
use super::json_calls::Stop;
use super::json_writer::{JsonWriter, Spacing};
use crate::conversation::ReplyPiece;

#[derive(Clone, Debug, Default)]
pub(super) struct Python {
    at: At,
    word: String,
    /// The arguments, as an object.
    json: JsonWriter,
    positional: usize,
    escape: String,
    /// Prefixes of a string that is raw.
    is_raw: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Outside,
    Name,
    BeforeKey,
    Key,
    Value,
    /// Behind as many quotes, which begin a text or are an empty one.
    Quotes(Quote),
    Text(Quote),
    Escape(Quote),
    /// In a text between quotes in threes, behind as many of them.
    EndQuotes(Quote),
}

/// What a text stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quote {
    char: char,
    count: u8,
}

impl Quote {
    fn new(char: char, count: u8) -> Self {
        Self { char, count }
    }
}

/// Quotes around a text that may hold quotes and lines.
const LONG: u8 = 3;

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | ':')
}

impl Python {
    pub fn is_in_string(&self) -> bool {
        match self.at {
            At::Text(_) | At::Escape(_) => true,
            At::Quotes(quote) => quote.count == 1,
            At::EndQuotes(quote) => quote.count < LONG,
            _ => false,
        }
    }

    /// Reads until a call has ended, or what follows is none. Tells how much was read.
    pub fn read(
        &mut self,
        text: &str,
        call: &mut Call,
        out: &mut Vec<ReplyPiece>,
    ) -> (usize, Stop) {
        let mut json = String::new();
        for (at, c) in text.char_indices() {
            match self.at {
                At::Outside => match c {
                    '{' => return (at, Stop::Other),
                    '[' | ']' | ',' | ';' => {}
                    _ if c.is_whitespace() => {}
                    _ if is_name_char(c) => {
                        call.begin();
                        self.word.clear();
                        self.word.push(c);
                        self.at = At::Name;
                    }
                    _ => return (at, Stop::NotACall),
                },
                At::Name => match c {
                    '(' => {
                        // Llama's built-in tools: `brave_search.call(query="x")`.
                        call.set_name(self.word.strip_suffix(".call").unwrap_or(&self.word));
                        call.announce(out);
                        self.word.clear();
                        self.positional = 0;
                        self.json = JsonWriter::new(Spacing::Wide);
                        self.json.begin(true, &mut json);
                        self.at = At::BeforeKey;
                    }
                    _ if is_name_char(c) => self.word.push(c),
                    _ => {
                        self.at = At::Outside;
                        return (at, Stop::NotACall);
                    }
                },
                At::BeforeKey => match c {
                    ')' => self.end_call(&mut json),
                    ',' => {}
                    _ if c.is_whitespace() => {}
                    _ if c.is_alphabetic() || c == '_' => {
                        self.word.clear();
                        self.word.push(c);
                        self.at = At::Key;
                    }
                    _ => {
                        self.begin_positional(&mut json);
                        self.value(c, &mut json);
                    }
                },
                At::Key => match c {
                    '=' => {
                        let key = std::mem::take(&mut self.word);
                        self.begin_value(key.trim(), &mut json);
                    }
                    _ if c.is_alphanumeric() || c == '_' || c.is_whitespace() => self.word.push(c),
                    _ => {
                        let word = std::mem::take(&mut self.word);
                        self.begin_positional(&mut json);
                        self.word = word;
                        self.value(c, &mut json);
                    }
                },
                At::Value => self.value(c, &mut json),
                At::Quotes(quote) => self.quotes(c, quote, &mut json),
                At::Text(quote) => self.text(c, quote, &mut json),
                At::EndQuotes(quote) => self.end_quotes(c, quote, &mut json),
                At::Escape(quote) => self.escaped(c, quote, &mut json),
            }
            if self.at == At::Outside && call.is_announced() {
                call.arguments(&json, out);
                return (at + c.len_utf8(), Stop::End);
            }
        }
        call.arguments(&json, out);
        (text.len(), Stop::Empty)
    }

    fn quotes(&mut self, c: char, quote: Quote, json: &mut String) {
        match quote.count {
            1 if c == quote.char => self.at = At::Quotes(Quote::new(c, 2)),
            1 => {
                self.at = At::Text(quote);
                self.text(c, quote, json);
            }
            _ if c == quote.char => self.at = At::Text(Quote::new(c, LONG)),
            _ => {
                self.json.end_text(json);
                self.at = At::Value;
                self.value(c, json);
            }
        }
    }

    fn text(&mut self, c: char, quote: Quote, json: &mut String) {
        match c {
            '\\' if !self.is_raw => self.at = At::Escape(quote),
            _ if c == quote.char && quote.count == LONG => {
                self.at = At::EndQuotes(Quote::new(c, 1));
            }
            _ if c == quote.char => {
                self.json.end_text(json);
                self.at = At::Value;
            }
            _ => self.json.text(c.encode_utf8(&mut [0; 4]), json),
        }
    }

    fn end_quotes(&mut self, c: char, quote: Quote, json: &mut String) {
        match quote.count {
            // Of more than three the first are the text's: models end a quotation so.
            LONG if c == quote.char => self.json.text(c.encode_utf8(&mut [0; 4]), json),
            LONG => {
                self.json.end_text(json);
                self.at = At::Value;
                self.value(c, json);
            }
            count if c == quote.char => self.at = At::EndQuotes(Quote::new(c, count + 1)),
            count => {
                for _ in 0..count {
                    self.json.text(quote.char.encode_utf8(&mut [0; 4]), json);
                }
                let quote = Quote::new(quote.char, LONG);
                self.at = At::Text(quote);
                self.text(c, quote, json);
            }
        }
    }

    fn begin_value(&mut self, key: &str, json: &mut String) {
        self.json.key(key, json);
        self.at = At::Value;
    }

    /// An argument without a name gets its position as one.
    fn begin_positional(&mut self, json: &mut String) {
        let key = self.positional.to_string();
        self.positional += 1;
        self.begin_value(&key, json);
    }

    fn value(&mut self, c: char, json: &mut String) {
        let is_outermost = self.json.depth() == 1;
        match c {
            '"' | '\'' => {
                let prefix = self.word.trim().to_ascii_lowercase();
                match prefix.as_str() {
                    "r" | "b" | "u" | "f" | "br" | "rb" | "fr" | "rf" => self.word.clear(),
                    _ => self.end_word(json),
                }
                self.is_raw = prefix.contains('r') && self.word.is_empty();
                self.json.begin_text(json);
                self.at = At::Quotes(Quote::new(c, 1));
            }
            '[' | '{' | '(' => {
                self.end_word(json);
                self.json.begin(c == '{', json);
            }
            ')' if is_outermost => self.end_call(json),
            ']' | '}' if is_outermost => self.end_word(json),
            ')' | ']' | '}' => {
                self.end_word(json);
                self.json.end(json);
            }
            ',' if is_outermost => {
                self.end_word(json);
                self.json.comma(json);
                self.at = At::BeforeKey;
            }
            ',' => {
                self.end_word(json);
                self.json.comma(json);
            }
            ':' if self.json.is_in_object() && !is_outermost => {
                self.end_word(json);
                self.json.colon(json);
            }
            _ => self.word.push(c),
        }
    }

    fn end_word(&mut self, json: &mut String) {
        let word = std::mem::take(&mut self.word);
        if !word.trim().is_empty() {
            self.json.word(&word, json);
        }
    }

    fn end_call(&mut self, json: &mut String) {
        self.end_word(json);
        self.json.end_all(json);
        self.at = At::Outside;
    }

    fn escaped(&mut self, c: char, quote: Quote, json: &mut String) {
        let Some(kind) = self.escape.bytes().next() else {
            self.at = At::Text(quote);
            let text = match c {
                'n' => "\n",
                't' => "\t",
                'r' => "\r",
                'b' => "\u{8}",
                'f' => "\u{c}",
                '"' => "\"",
                '\'' => "'",
                '\\' => "\\",
                '\n' => "",
                'x' | 'u' | 'U' => {
                    self.escape.push(c);
                    self.at = At::Escape(quote);
                    return;
                }
                _ => {
                    self.json.text("\\", json);
                    return self.json.text(c.encode_utf8(&mut [0; 4]), json);
                }
            };
            if !text.is_empty() {
                self.json.text(text, json);
            }
            return;
        };
        let digits = match kind {
            b'x' => 2,
            b'u' => 4,
            _ => 8,
        };
        if c.is_ascii_hexdigit() {
            self.escape.push(c);
            if self.escape.len() > digits {
                let code = u32::from_str_radix(&self.escape[1..], 16);
                self.json.code(code.unwrap_or(u32::MAX), json);
                self.escape.clear();
                self.at = At::Text(quote);
            }
            return;
        }
        // No number after all.
        let escape = std::mem::take(&mut self.escape);
        self.json.text("\\", json);
        self.json.text(&escape, json);
        self.at = At::Text(quote);
        self.text(c, quote, json);
    }

    /// A marker says that the calls have ended.
    pub fn close(&mut self, call: &mut Call, out: &mut Vec<ReplyPiece>) {
        let mut json = String::new();
        match self.at {
            At::Outside | At::Name | At::BeforeKey | At::Value => {}
            At::Key => {
                let word = std::mem::take(&mut self.word);
                self.begin_positional(&mut json);
                self.word = word;
            }
            At::Quotes(_) | At::Text(_) | At::EndQuotes(_) => self.json.end_text(&mut json),
            At::Escape(_) => {
                let escape = format!("\\{}", std::mem::take(&mut self.escape));
                self.json.text(&escape, &mut json);
                self.json.end_text(&mut json);
            }
        }
        if call.is_announced() {
            self.end_call(&mut json);
            call.arguments(&json, out);
        }
        *self = Self::default();
    }

    /// The answer was cut; what there is of a value is told.
    pub fn cut(&mut self, call: &mut Call, out: &mut Vec<ReplyPiece>) {
        if self.at == At::Value {
            let mut json = String::new();
            self.json.cut_word(&self.word, &mut json);
            call.arguments(&json, out);
        }
        *self = Self::default();
    }
}
