//! Texts that stand in no quotes, or in a model's own: a schema of a string becomes an expression of the
//! grammar's language for the text itself.

use serde_json::{Map, Value};

use super::lark::literal;
use super::members::referred;
use crate::constraint::schema::{Fault, pointer};

const ANY: &str = "/(?s:.*)/";
const MOST_REFERENCES: usize = 16;

/// A text of a schema.
pub struct Text {
    pub expression: String,
    pub may_be_empty: bool,
}

impl Text {
    fn any() -> Self {
        Self {
            expression: ANY.to_owned(),
            may_be_empty: true,
        }
    }

    /// Of one of these.
    fn one_of(texts: Vec<Self>) -> Self {
        let may_be_empty = texts.iter().any(|text| text.may_be_empty);
        let mut texts: Vec<String> = texts.into_iter().map(|text| text.expression).collect();
        texts.dedup();
        Self {
            expression: match texts.as_slice() {
                [one] => one.clone(),
                all => format!("({})", all.join(" | ")),
            },
            may_be_empty,
        }
    }

    /// Without any of these texts in it.
    pub fn without(&self, texts: &[String]) -> String {
        let mut expression = format!("({})", self.expression);
        for text in texts.iter().filter(|text| !text.is_empty()) {
            expression.push_str(&format!(" & ~({ANY} {} {ANY})", literal(text)));
        }
        expression
    }
}

/// The text of a schema at a place; what of it is not kept goes to `faults`.
pub fn text(schema: &Value, at: &str, root: &Value, faults: &mut Vec<Fault>) -> Text {
    let mut schema = schema;
    for _ in 0..MOST_REFERENCES {
        match schema.get("$ref").and_then(|to| referred(root, to)) {
            Some(part) => schema = part,
            None => break,
        }
    }
    let Value::Object(keywords) = schema else {
        return Text::any();
    };
    let mut not_kept = |keyword: &str| {
        let reason = "cannot be kept for a text that stands in no quotes";
        faults.push(Fault::new(&pointer(at, keyword), reason));
    };
    if keywords.contains_key("$ref") {
        not_kept("$ref");
        return Text::any();
    }
    // Its reader takes it for a text, which it may not be.
    if !may_be_text(schema, root) {
        not_kept("type");
        return Text::any();
    }
    if let Some(Value::Array(values)) = keywords.get("enum") {
        let words = values.iter().filter_map(Value::as_str).map(word);
        return Text::one_of(words.collect());
    }
    if let Some(word_) = keywords.get("const").and_then(Value::as_str) {
        return word(word_);
    }
    for combines in ["anyOf", "oneOf"] {
        if let Some(Value::Array(parts)) = keywords.get(combines) {
            if says_more(keywords, combines) {
                not_kept(combines);
                return Text::any();
            }
            let of_texts: Vec<_> = (parts.iter().enumerate())
                .filter(|(_, part)| may_be_text(part, root))
                .collect();
            if of_texts.is_empty() || (combines == "oneOf" && of_texts.len() > 1) {
                not_kept(combines);
                return Text::any();
            }
            let at = pointer(at, combines);
            let texts = of_texts
                .into_iter()
                .map(|(index, part)| text(part, &pointer(&at, &index.to_string()), root, faults));
            return Text::one_of(texts.collect());
        }
    }
    for keyword in ["allOf", "format"] {
        if keywords.contains_key(keyword) {
            not_kept(keyword);
        }
    }
    plain(keywords, &mut not_kept)
}

fn word(text: &str) -> Text {
    Text {
        expression: literal(text),
        may_be_empty: text.is_empty(),
    }
}

fn says_more(keywords: &Map<String, Value>, than: &str) -> bool {
    let is_quiet = |keyword: &str| ["$defs", "definitions", "type", "$schema"].contains(&keyword);
    keywords
        .keys()
        .any(|keyword| keyword != than && !is_quiet(keyword))
}

fn may_be_text(schema: &Value, root: &Value) -> bool {
    let referred = schema.get("$ref").and_then(|to| referred(root, to));
    let schema = referred.unwrap_or(schema);
    match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "string"),
        Some(kind) => kind == "string",
        None => match (schema.get("enum"), schema.get("const")) {
            (Some(Value::Array(values)), _) => values.iter().any(Value::is_string),
            (_, Some(value)) => value.is_string(),
            _ => ["properties", "items"]
                .iter()
                .all(|of| schema.get(of).is_none()),
        },
    }
}

/// Lengths and a pattern.
fn plain(keywords: &Map<String, Value>, not_kept: &mut dyn FnMut(&str)) -> Text {
    let number = |keyword: &str| keywords.get(keyword).and_then(Value::as_u64);
    let least = number("minLength").unwrap_or(0);
    let mut parts = Vec::new();
    match number("maxLength") {
        Some(most) => parts.push(format!("/(?s:.{{{least},{most}}})/")),
        None if least > 0 => parts.push(format!("/(?s:.{{{least},}})/")),
        None => {}
    }
    if let Some(pattern) = keywords.get("pattern").and_then(Value::as_str) {
        match whole_pattern(pattern) {
            Some(pattern) => parts.push(pattern),
            None => not_kept("pattern"),
        }
    }
    let has_pattern = parts.len() > usize::from(least > 0 || keywords.contains_key("maxLength"));
    Text {
        expression: match parts.is_empty() {
            true => ANY.to_owned(),
            false => parts.join(" & "),
        },
        may_be_empty: least == 0 && !has_pattern,
    }
}

/// A pattern that is found anywhere in a text, as one of all of the text. `None`: it is not understood.
fn whole_pattern(pattern: &str) -> Option<String> {
    let (begins, rest) = match pattern.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let is_escaped = rest.trim_end_matches('$').ends_with('\\');
    let (ends, middle) = match rest.strip_suffix('$') {
        Some(middle) if !is_escaped => (true, middle),
        _ => (false, rest),
    };
    let middle = in_ascii(middle, begins || ends)?;
    let any = |is_there: bool| if is_there { "(?s:.*)" } else { "" };
    Some(format!("/{}(?:{middle}){}/", any(!begins), any(!ends)))
}

/// Classes of letters and digits are of ASCII in schemas. `None`: it holds what cannot be a part of
/// another pattern.
fn in_ascii(pattern: &str, is_anchored: bool) -> Option<String> {
    let mut read = String::new();
    let (mut is_class, mut depth) = (false, 0_u32);
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                class @ ('d' | 'w' | 's') => {
                    let members = match class {
                        'd' => "0-9",
                        'w' => "0-9A-Za-z_",
                        _ => r" \t\n\r\f\v",
                    };
                    match is_class {
                        true => read.push_str(members),
                        false => read.push_str(&format!("[{members}]")),
                    }
                }
                // Between angles it would be the edge of a word.
                c @ ('<' | '>') => read.push(c),
                c if c.is_ascii_punctuation() || matches!(c, 'n' | 't' | 'r' | 'f' | 'v') => {
                    read.extend(['\\', c]);
                }
                _ => return None,
            },
            '/' => read.push_str(r"\/"),
            '[' if !is_class => {
                is_class = true;
                read.push(c);
            }
            ']' if is_class => {
                is_class = false;
                read.push(c);
            }
            '^' if is_class => read.push(c),
            '[' | '^' | '$' if is_class => read.extend(['\\', c]),
            '^' | '$' => return None,
            '|' if !is_class && is_anchored && depth == 0 => return None,
            '(' if !is_class => {
                if chars.peek() == Some(&'?') {
                    chars.next();
                    if chars.next() != Some(':') {
                        return None;
                    }
                    read.push_str("(?:");
                } else {
                    read.push_str("(?:");
                }
                depth += 1;
            }
            ')' if !is_class => {
                depth = depth.checked_sub(1)?;
                read.push(c);
            }
            '\n' | '\r' => return None,
            _ => read.push(c),
        }
    }
    (!is_class && depth == 0).then_some(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn expression(schema: Value) -> (String, Vec<String>) {
        let mut faults = Vec::new();
        let text = text(&schema, "/p", &json!({}), &mut faults);
        let places = faults.into_iter().map(|fault| fault.pointer);
        (text.expression, places.collect())
    }

    #[test]
    fn a_schema_of_a_text_is_one_of_its_characters() {
        for (schema, expected) in [
            (json!({"type": "string"}), ANY),
            (json!({"enum": ["a\"", 1, "b"]}), r#"("a\"" | "b")"#),
            (json!({"type": "string", "maxLength": 3}), "/(?s:.{0,3})/"),
            (
                json!({"type": "string", "minLength": 2, "pattern": "^[a-z]+$"}),
                "/(?s:.{2,})/ & /(?:[a-z]+)/",
            ),
            (json!({"pattern": r"\d/"}), r"/(?s:.*)(?:[0-9]\/)(?s:.*)/"),
            (
                json!({"anyOf": [{"type": "null"}, {"const": "x"}, {"type": "string", "maxLength": 1}]}),
                r#"("x" | /(?s:.{0,1})/)"#,
            ),
        ] {
            let (found, faults) = expression(schema.clone());
            assert_eq!((found.as_str(), faults.len()), (expected, 0), "{schema}");
        }
    }

    #[test]
    fn what_a_text_cannot_be_kept_to_is_named() {
        for (schema, place) in [
            (json!({"type": "string", "format": "date"}), "/p/format"),
            (json!({"type": "string", "pattern": "^a|b$"}), "/p/pattern"),
            (json!({"type": "string", "pattern": "(?=a)"}), "/p/pattern"),
            (json!({"$ref": "#/$defs/none"}), "/p/$ref"),
            (json!({"type": "integer"}), "/p/type"),
            (
                json!({"oneOf": [{"const": "a"}, {"type": "string"}]}),
                "/p/oneOf",
            ),
        ] {
            let (_, faults) = expression(schema.clone());
            assert_eq!(faults, [place], "{schema}");
        }
    }
}
