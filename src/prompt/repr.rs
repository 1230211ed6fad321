//! Values as Python's `str` writes them: lists and maps with their texts quoted.

use std::fmt::Write as _;

use minijinja::value::{Tuple, Value, ValueKind};
use unicode_categories::UnicodeCategories;

use super::numbers::{self, python_float};
use super::twins::Twins;

/// Deeper values are left out.
const MOST_DEPTH: usize = 64;

/// What Python writes of a list, a map or a float; `None`: minijinja writes the same.
pub(super) fn shown(twins: &Twins, value: &Value) -> Option<String> {
    let is_other = match value.kind() {
        ValueKind::Number => !value.is_integer(),
        kind => matches!(kind, ValueKind::Seq | ValueKind::Map),
    };
    is_other.then(|| {
        let mut out = String::new();
        write(&mut out, twins, value, 0);
        out
    })
}

fn write(out: &mut String, twins: &Twins, value: &Value, depth: usize) {
    if depth > MOST_DEPTH {
        return out.push_str("...");
    }
    let items = || value.try_iter().into_iter().flatten();
    match value.kind() {
        ValueKind::String => write_text(out, twins, value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(float) => out.push_str(&python_float(float)),
            Err(_) => out.push_str(&value.to_string()),
        },
        ValueKind::Seq => {
            let is_tuple = value.downcast_object_ref::<Tuple>().is_some();
            let [open, close] = if is_tuple { ["(", ")"] } else { ["[", "]"] };
            out.push_str(open);
            for (index, item) in items().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write(out, twins, &item, depth + 1);
            }
            out.push_str(if is_tuple && value.len() == Some(1) {
                ","
            } else {
                ""
            });
            out.push_str(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in items().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write(out, twins, &key, depth + 1);
                out.push_str(": ");
                let value = value.get_item(&key).unwrap_or_default();
                write(out, twins, &value, depth + 1);
            }
            out.push('}');
        }
        _ => match numbers::written(value) {
            Some(number) => out.push_str(number),
            None => out.push_str(&value.to_string()),
        },
    }
}

/// Python's `repr` of a text, twins as they are.
fn write_text(out: &mut String, twins: &Twins, text: &str) {
    let holds = |quote: char| text.chars().any(|c| twins.plain_char(c) == quote);
    let quote = if holds('\'') && !holds('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for written in text.chars() {
        match twins.plain_char(written) {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote || c == '\\' => out.extend(['\\', written]),
            c if c != ' ' && (c.is_other() || c.is_separator()) => {
                // Writing to a String cannot fail.
                let _ = match c as u32 {
                    code @ ..=0xff => write!(out, "\\x{code:02x}"),
                    code @ ..=0xffff => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                };
            }
            _ => out.push(written),
        }
    }
    out.push(quote);
}
