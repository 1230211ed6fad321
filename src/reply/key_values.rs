//! `{key:"text",other:[1,true]}` whose quotes are markers and whose keys stand bare becomes JSON.

use super::call::Call;
use super::json_writer::{JsonWriter, Spacing};
use crate::conversation::ReplyPiece;

#[derive(Clone, Debug, Default)]
pub(super) struct KeyValues {
    json: JsonWriter,
    word: String,
    is_quoted: bool,
}

impl KeyValues {
    /// Behind the first brace.
    pub fn begin(&mut self, call: &mut Call, out: &mut Vec<ReplyPiece>) {
        *self = Self {
            json: JsonWriter::new(Spacing::Narrow),
            ..Self::default()
        };
        let mut json = String::new();
        self.json.begin(true, &mut json);
        call.arguments(&json, out);
    }

    /// Reads what stands outside quotes. Tells how much, and whether the arguments are whole.
    pub fn read(
        &mut self,
        text: &str,
        call: &mut Call,
        out: &mut Vec<ReplyPiece>,
    ) -> (usize, bool) {
        let mut json = String::new();
        let mut read = (text.len(), false);
        for (at, c) in text.char_indices() {
            match c {
                '{' | '[' if self.word.is_empty() => {
                    self.json.begin(c == '{', &mut json);
                }
                '}' | ']' => {
                    self.end_word(&mut json);
                    self.json.end(&mut json);
                    if self.json.depth() == 0 {
                        read = (at + 1, true);
                        break;
                    }
                }
                ',' => {
                    self.end_word(&mut json);
                    self.json.comma(&mut json);
                }
                ':' if self.json.wants_key() => {
                    self.end_word(&mut json);
                    self.json.colon(&mut json);
                }
                _ if c.is_whitespace() && self.word.is_empty() => {}
                _ => self.word.push(c),
            }
        }
        call.arguments(&json, out);
        read
    }

    fn end_word(&mut self, json: &mut String) {
        let word = std::mem::take(&mut self.word);
        if !word.trim().is_empty() {
            self.json.word(&word, json);
        }
    }

    /// A quote begins or ends a text.
    pub fn quote(&mut self, call: &mut Call, out: &mut Vec<ReplyPiece>) {
        let mut json = String::new();
        self.is_quoted = !self.is_quoted;
        if self.is_quoted {
            self.end_word(&mut json);
            self.json.begin_text(&mut json);
        } else {
            self.json.end_text(&mut json);
        }
        call.arguments(&json, out);
    }

    pub fn quoted(&mut self, text: &str, call: &mut Call, out: &mut Vec<ReplyPiece>) {
        let mut json = String::with_capacity(text.len());
        self.json.text(text, &mut json);
        call.arguments(&json, out);
    }

    /// A marker says that the arguments are whole.
    pub fn close(&mut self, call: &mut Call, out: &mut Vec<ReplyPiece>) {
        let mut json = String::new();
        if std::mem::take(&mut self.is_quoted) {
            self.json.end_text(&mut json);
        }
        self.end_word(&mut json);
        self.json.end_all(&mut json);
        call.arguments(&json, out);
    }

    /// The answer was cut; what there is of a value is told.
    pub fn cut(&mut self, call: &mut Call, out: &mut Vec<ReplyPiece>) {
        let mut json = String::new();
        let word = std::mem::take(&mut self.word);
        self.json.cut_word(&word, &mut json);
        call.arguments(&json, out);
    }
}
