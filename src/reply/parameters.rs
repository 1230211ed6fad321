//! Parameters that stand in markers of their own become the members of a JSON object. Texts are
//! handed on as they come; what the function's schema says is no text is kept until it is whole.

use super::call::Call;
use super::json_value::{push_escaped, quoted};
use crate::conversation::ReplyPiece;

/// The arguments of one call.
#[derive(Clone, Debug, Default)]
pub(super) struct ParameterObject {
    is_open: bool,
    key: String,
    /// Keys whose values never came.
    left_over: String,
    is_text: bool,
    is_at_start: bool,
    value: String,
}

impl ParameterObject {
    /// Returns how long the key is by now.
    pub fn push_key(&mut self, text: &str) -> usize {
        self.key.push_str(text);
        self.key.len()
    }

    pub fn begin_key(&mut self) {
        let key = std::mem::take(&mut self.key);
        if !key.trim().is_empty() {
            self.left_over.extend([key.trim(), "\n"]);
        }
    }

    pub fn take_left_over(&mut self) -> String {
        self.begin_key();
        std::mem::take(&mut self.left_over)
    }

    pub fn key(&self) -> &str {
        self.key.trim()
    }

    pub fn begin_value(&mut self, is_text: bool, call: &mut Call, out: &mut Vec<ReplyPiece>) {
        call.announce(out);
        let mut text = String::from(if self.is_open { ", " } else { "{" });
        self.is_open = true;
        text.push_str(&quoted(self.key()));
        text.push_str(": ");
        if is_text {
            text.push('"');
        }
        call.arguments(&text, out);
        self.is_text = is_text;
        self.is_at_start = false;
        self.value.clear();
    }

    /// The line's end that the value may begin with is its markers'.
    pub fn drop_line(&mut self) {
        self.is_at_start = true;
    }

    pub fn push_value(&mut self, text: &str, call: &mut Call, out: &mut Vec<ReplyPiece>) {
        let text = match std::mem::take(&mut self.is_at_start) && !text.is_empty() {
            true => text.strip_prefix('\n').unwrap_or(text),
            false => text,
        };
        if !self.is_text {
            self.value.push_str(text);
            return;
        }
        let mut escaped = String::with_capacity(text.len());
        push_escaped(&mut escaped, text);
        call.arguments(&escaped, out);
    }

    pub fn end_value(&mut self, call: &mut Call, out: &mut Vec<ReplyPiece>) {
        match self.is_text {
            true => call.arguments("\"", out),
            false => call.arguments(&literal(&self.value), out),
        }
        self.value.clear();
        self.key.clear();
    }

    /// What was read of a value that did not end.
    pub fn cut(&mut self, call: &mut Call, out: &mut Vec<ReplyPiece>) {
        call.arguments(begun_literal(&self.value), out);
        self.value.clear();
    }

    pub fn end(&mut self, call: &mut Call, out: &mut Vec<ReplyPiece>) {
        if std::mem::take(&mut self.is_open) {
            call.arguments("}", out);
        }
        *self = Self {
            left_over: self.take_left_over(),
            ..Self::default()
        };
    }
}

/// A value that is no text, as JSON.
pub(super) fn literal(text: &str) -> String {
    let text = text.trim();
    match text {
        "True" => "true".to_owned(),
        "False" => "false".to_owned(),
        "None" => "null".to_owned(),
        _ if serde_json::from_str::<serde_json::Value>(text).is_ok() => text.to_owned(),
        _ => quoted(text),
    }
}

/// What can be told of a value that was cut: JSON as far as it came, of a word nothing.
pub(super) fn begun_literal(text: &str) -> &str {
    let text = text.trim();
    match text.starts_with(|c: char| matches!(c, '{' | '[' | '"' | '-') || c.is_ascii_digit()) {
        true => text,
        false => "",
    }
}
