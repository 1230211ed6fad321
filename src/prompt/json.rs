//! `tojson` as transformers defines it: Python's `json.dumps` without ASCII or HTML escaping.
//!
//! minijinja's own filter escapes for HTML, which would put `\u003c` where a model was trained on
//! `<`.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::numbers::{self, python_float};
use super::twins::Twins;

const MAX_DEPTH: usize = 128;

struct Style<'t> {
    twins: &'t Twins,
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

/// The filter: `value | tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(twins: &Twins, value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent = match kwargs.get::<Option<&Value>>("indent")? {
        None => None,
        Some(width) if width.is_none() || width.is_undefined() => None,
        Some(width) => Some(match width.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(width.clone())?.min(64)),
        }),
    };
    let (item_separator, key_separator) = match kwargs.get::<Option<&Value>>("separators")? {
        Some(pair) if !pair.is_none() => {
            let (item, key) = (pair.get_item_by_index(0)?, pair.get_item_by_index(1)?);
            (item.to_string(), key.to_string())
        }
        // Python drops the space at the end of a line.
        _ if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        _ => (", ".to_owned(), ": ".to_owned()),
    };
    let style = Style {
        twins,
        ensure_ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent,
        item_separator,
        key_separator,
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    let mut out = String::new();
    write_value(&mut out, value, &style, 0)?;
    Ok(Value::from(out))
}

fn write_value(
    out: &mut String,
    value: &Value,
    style: &Style<'_>,
    depth: usize,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(unserializable("it is nested too deeply"));
    }
    if let Some(number) = numbers::written(value) {
        out.push_str(number);
        return Ok(());
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
        ValueKind::Number => out.push_str(&json_float(f64::try_from(value.clone())?)),
        ValueKind::String => write_string(out, value.as_str().unwrap_or_default(), style),
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                open_item(out, style, depth, index == 0);
                write_value(out, item, style, depth + 1)?;
            }
            close(out, style, depth, items.is_empty());
            out.push(']');
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
            if style.sort_keys {
                keys.sort();
            }
            out.push('{');
            for (index, key) in keys.iter().enumerate() {
                open_item(out, style, depth, index == 0);
                match key.kind() {
                    ValueKind::String => write_value(out, key, style, depth + 1)?,
                    ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                        out.push('"');
                        write_value(out, key, style, depth + 1)?;
                        out.push('"');
                    }
                    _ => return Err(unserializable("a key is not a string")),
                }
                out.push_str(&style.key_separator);
                write_value(out, &value.get_item(key)?, style, depth + 1)?;
            }
            close(out, style, depth, keys.is_empty());
            out.push('}');
        }
        kind => return Err(unserializable(&format!("{kind} has no JSON form"))),
    }
    Ok(())
}

fn unserializable(reason: &str) -> Error {
    Error::new(
        ErrorKind::BadSerialization,
        format!("tojson cannot write this value: {reason}"),
    )
}

fn open_item(out: &mut String, style: &Style<'_>, depth: usize, first: bool) {
    if !first {
        out.push_str(&style.item_separator);
    }
    new_line(out, style, depth + 1);
}

fn close(out: &mut String, style: &Style<'_>, depth: usize, empty: bool) {
    if !empty {
        new_line(out, style, depth);
    }
}

fn new_line(out: &mut String, style: &Style<'_>, depth: usize) {
    if let Some(indent) = &style.indent {
        out.push('\n');
        for _ in 0..depth {
            out.push_str(indent);
        }
    }
}

fn write_string(out: &mut String, text: &str, style: &Style<'_>) {
    out.push('"');
    for written in text.chars() {
        match style.twins.plain_char(written) {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || (style.ensure_ascii && !c.is_ascii()) => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            _ => out.push(written),
        }
    }
    out.push('"');
}

/// Python's JSON has words for what JSON has not.
fn json_float(float: f64) -> String {
    match python_float(float).as_str() {
        "nan" => "NaN".to_owned(),
        "inf" => "Infinity".to_owned(),
        "-inf" => "-Infinity".to_owned(),
        text => text.to_owned(),
    }
}
