//! What of a model's format it reads as its markup wherever it stands: no text of a client's may hold that.

use super::format::ReplyFormat;

impl ReplyFormat {
    /// The texts that a model reads as its markup, of all markers. A marker that is a word or a mark of
    /// other languages is none: every text may hold it.
    pub fn markup(&self) -> Vec<String> {
        let openers = self.openers().into_iter();
        let openers = openers.filter(|text| is_word_with_bracket(text) || is_words_in_lines(text));
        let openers: Vec<String> = openers.map(str::to_owned).collect();
        let mut format = self.clone();
        let markers = format.markers_mut().into_iter();
        let texts = markers.map(|marker| marker.text.trim().to_owned());
        texts
            .filter(|text| is_markup(text))
            .chain(openers)
            .collect()
    }

    /// What a thought, content or a call begins with.
    fn openers(&self) -> Vec<&str> {
        let calls = self.calls.iter().chain(&self.also_calls);
        let of_calls = calls.flat_map(|calls| calls.section.iter().chain(&calls.call));
        let around = self.content.iter().chain(of_calls);
        let thought = self.reasoning.iter().map(|thought| &thought.open);
        let markers = thought.chain(around.map(|around| &around.open));
        markers.map(|marker| marker.text.trim()).collect()
    }
}

/// Whether a text begins as a word between angles or square brackets.
pub fn is_markup(text: &str) -> bool {
    text.starts_with(['<', '['])
        && !text.contains(['{', '}'])
        && text.contains(char::is_alphanumeric)
        && text.chars().nth(2).is_some()
}

/// Whether a text is a word that a bracket opens behind, such as `functools[`.
fn is_word_with_bracket(text: &str) -> bool {
    let word = text.strip_suffix(['[', '(', '{', '<']).unwrap_or_default();
    let is_part = |c: char| c.is_alphanumeric() || ['_', '-', '.', ':'].contains(&c);
    word.chars().all(is_part) && word.contains(char::is_alphanumeric)
}

/// Whether a text is words and marks of more than one line.
fn is_words_in_lines(text: &str) -> bool {
    text.contains('\n') && text.contains(char::is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::{Around, CallBody, Calls, JsonKeys, ReplyFamily};

    fn openers(texts: &[&str]) -> ReplyFormat {
        let around = texts.iter().map(|open| Around::new(open, "END]"));
        let keys = JsonKeys::new("name", "arguments");
        ReplyFormat {
            calls: Some(Calls::new(around.collect(), CallBody::Json(keys))),
            ..ReplyFormat::default()
        }
    }

    #[test]
    fn a_word_that_opens_a_bracket_and_two_lines_are_markup_where_they_begin_a_call() {
        let format = openers(&["functools[", " do.it( ", "TOOLS:{"]);
        assert_eq!(format.markup(), ["functools[", "do.it(", "TOOLS:{"]);
        let lines = openers(&["Action:\n```json\n", "\n[\n"]);
        assert_eq!(lines.markup(), ["Action:\n```json"]);
        let phi = ReplyFamily::Phi4Mini.format().markup();
        assert!(phi.contains(&"functools[".to_owned()), "{phi:?}");
    }

    #[test]
    fn what_every_text_may_hold_is_none() {
        let openers = openers(&["Action:", "[", "{", "[]", "```json", "call (", "", "a b["]);
        assert!(openers.markup().is_empty(), "{:?}", openers.markup());
    }
}
