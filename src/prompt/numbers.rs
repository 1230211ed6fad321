//! Numbers as Python reads and writes them: integers of any size, and floats with an exponent where
//! Python writes one. minijinja has neither, so such a number is a value that is its text.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, Value};
use serde::de::IgnoredAny;
use serde_json::{Map, Number, Value as Json};

/// A number by its text.
struct Written(String);

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Object for Written {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

/// The text of a number that is a value by its text.
pub(super) fn written(value: &Value) -> Option<&str> {
    let number: &Written = value.downcast_object_ref()?;
    Some(&number.0)
}

pub(super) fn value(number: &Number) -> Value {
    if let Some(integer) = number.as_i64() {
        return integer.into();
    }
    if let Some(integer) = number.as_u64() {
        return integer.into();
    }
    let float = number.as_f64().unwrap_or(f64::NAN);
    match has_exponent(float) {
        true => Value::from_object(Written(python_float(float))),
        false => float.into(),
    }
}

fn has_exponent(float: f64) -> bool {
    float != 0.0 && float.is_finite() && !(1e-4..1e16).contains(&float.abs())
}

/// Python's `repr` of a float: the shortest digits that read back, with an exponent below 1e-4 and
/// from 1e16.
pub(super) fn python_float(float: f64) -> String {
    if float.is_nan() {
        return "nan".to_owned();
    }
    if float.is_infinite() {
        return if float > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if !has_exponent(float) {
        return format!("{float:?}");
    }
    let digits = format!("{float:e}");
    let (mantissa, exponent) = digits.split_once('e').unwrap_or((&digits, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{exponent:0>2}")
}

/// The key of an object that stands for a number which JSON values cannot hold. No JSON text of a client's
/// that is read here gives it: `without_mark`.
const KEY: &str = "\u{10FFFE}number";
/// What it begins with, a character that is no text.
const MARK: char = '\u{10FFFE}';

/// The number that a JSON object stands for.
pub(super) fn of_object(
    object: &Map<String, Json>,
    text: impl Fn(&str) -> String,
) -> Option<Value> {
    match object.get(KEY) {
        // Another key of this form is a client's that was not read here.
        Some(Json::String(number)) if object.len() == 1 && is_number(number) => {
            Some(Value::from_object(Written(text(number))))
        }
        _ => None,
    }
}

fn is_number(text: &str) -> bool {
    let is_of_one = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    text.chars().all(is_of_one) && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The JSON text of a value, its large numbers included.
pub(super) fn to_json(value: &Json) -> String {
    let text = value.to_string();
    let open = format!("{{\"{KEY}\":\"");
    let mut rest = text.as_str();
    let mut out = String::new();
    while let Some((before, behind)) = rest.split_once(&open) {
        out.push_str(before);
        match behind.split_once("\"}") {
            Some((number, behind)) if is_number(number) => {
                out.push_str(number);
                rest = behind;
            }
            _ => {
                out.push_str(&open);
                rest = behind;
            }
        }
    }
    out.push_str(rest);
    out
}

/// A JSON object, its large numbers included; `None` if `text` is none.
pub(super) fn object(text: &str) -> Option<Map<String, Json>> {
    serde_json::from_str(&with_large_numbers_as_objects(text)).ok()
}

/// JSON text in which each number that a JSON value cannot hold is an object that stands for it, and no
/// other object does.
pub fn with_large_numbers_as_objects(text: &str) -> Cow<'_, str> {
    match without_mark(text) {
        Cow::Borrowed(text) => with_objects(text),
        Cow::Owned(text) => Cow::Owned(with_objects(&text).into_owned()),
    }
}

/// JSON text with U+FFFD for each mark, also where an escape writes it.
fn without_mark(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(found) = text[at..].find(['\\', MARK]) {
        at += found;
        let rest = &text[at..];
        let len = if rest.starts_with(MARK) {
            MARK.len_utf8()
        } else if is_escaped_mark(rest) {
            ESCAPED_MARK.len()
        } else {
            // What follows a backslash belongs to it.
            let next = rest[1..].chars().next();
            at += 1 + next.map_or(0, char::len_utf8);
            continue;
        };
        out.push_str(&text[copied..at]);
        out.push(char::REPLACEMENT_CHARACTER);
        at += len;
        copied = at;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

const ESCAPED_MARK: &str = "\\udbff\\udffe";

fn is_escaped_mark(text: &str) -> bool {
    let start = text.get(..ESCAPED_MARK.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(ESCAPED_MARK) && !start.contains('U'))
}

fn with_objects(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let (mut at, mut copied, mut in_string) = (0, 0, false);
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => at += 1,
            b'-' | b'0'..=b'9' if !in_string => {
                let rest = &text[at..];
                let ends = |c: char| !(c.is_ascii_digit() || "+-.eE".contains(c));
                let number = &rest[..rest.find(ends).unwrap_or(rest.len())];
                if let Some(instead) = instead_of(number) {
                    out.push_str(&text[copied..at]);
                    out.push_str(&instead);
                    copied = at + number.len();
                }
                at += number.len();
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// What is read instead of a number that would be read as another one.
fn instead_of(number: &str) -> Option<String> {
    if number == "-0" {
        return Some("0".to_owned());
    }
    let is_held = match number.contains(['.', 'e', 'E']) {
        true => number.parse::<f64>().is_ok_and(f64::is_finite),
        false => number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok(),
    };
    (!is_held && is_number(number)).then(|| format!("{{\"{KEY}\":\"{number}\"}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_does() {
        for (float, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (100.0, "100.0"),
            (1e16, "1e+16"),
            (123456789012345.6, "123456789012345.6"),
            (0.0001, "0.0001"),
            (-0.00001, "-1e-05"),
            (1.5e300, "1.5e+300"),
        ] {
            assert_eq!(python_float(float), text);
            let number = Number::from_f64(float).unwrap();
            assert_eq!(value(&number).to_string(), text);
        }
    }

    #[test]
    fn a_number_of_any_size_is_kept() {
        for number in [
            "12345678901234567890123",
            "-9223372036854775809",
            "18446744073709551616",
            "1e400",
            "-1.5E+999",
        ] {
            let text = format!("{{\"a\\\"1\": [{number},{number}], \"é\": \"{number}\"}}");
            let object = object(&text).unwrap();
            let list = object["a\"1"].as_array().unwrap();
            let kept = of_object(list[1].as_object().unwrap(), str::to_owned).unwrap();
            assert_eq!(written(&kept), Some(number));
            assert_eq!(object["é"], number);
        }
        assert_eq!(object("{\"a\": -0}").unwrap()["a"], 0);
    }

    #[test]
    fn only_a_number_stands_for_one() {
        let text = "{\"a\": [18446744073709551616, \"x\"], \"b\": 1}";
        let large = Json::Object(object(text).unwrap());
        assert_eq!(to_json(&large), text.replace(' ', ""));
        for other in ["x", "", "1 ", "\"1\"", "null", "[]", "01"] {
            let forged = serde_json::json!({ KEY: other });
            let fields = forged.as_object().unwrap();
            assert!(of_object(fields, str::to_owned).is_none(), "{other}");
            assert_eq!(to_json(&forged), forged.to_string(), "{other}");
        }
    }

    #[test]
    fn an_object_of_a_clients_stands_for_no_number() {
        for key in [KEY, "\\udbff\\udffenumber", "\\uDBFF\\uDFFE\\u006eumber"] {
            let text = format!("{{\"a\": {{\"{key}\": \"12\"}}, \"\\\\{key}\": 1e400}}");
            let read = object(&text).unwrap();
            let forged = read["a"].as_object().unwrap();
            assert!(of_object(forged, str::to_owned).is_none(), "{key}");
            assert_eq!(forged["\u{FFFD}number"], "12", "{key}");
            let written = to_json(&Json::Object(read));
            assert!(written.contains("{\"\u{FFFD}number\":\"12\"}"), "{written}");
            assert!(written.ends_with(":1e400}"), "{written}");
        }
        let other = "{\"\\\\udbff\\\\udffenumber\":\"1\"}";
        assert_eq!(without_mark(other), other, "a backslash is no escape");
    }

    #[test]
    fn what_is_no_json_becomes_none() {
        for number in [
            "00000000000000000000000",
            "-",
            "1.e999",
            "1e999e",
            "99999999999999999999-",
        ] {
            assert_eq!(object(&format!("{{\"a\": {number}}}")), None, "{number}");
        }
    }
}
