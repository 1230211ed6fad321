//! `printf`, as far as templates of prompts use it: `%s`, `%v`, `%d`, `%q`, `%t`, `%f`, `%c` and `%%`, with a width, a
//! precision and the flags `-`, `0` and `+`.

use super::built::{Budget, Built};
use super::run::Fault;
use super::value::{Text, Value};

/// The widest that a value is made.
const WIDEST: usize = 1000;

#[derive(Default)]
struct Form {
    is_left: bool,
    has_zeros: bool,
    has_sign: bool,
    width: usize,
    precision: Option<usize>,
}

pub(super) fn printf(form: &Text, values: &[Value], budget: &mut Budget) -> Result<Value, Fault> {
    let mut built = Built::new(budget);
    let mut values = values.iter();
    let mut at = 0;
    let written = &*form.text;
    while let Some(found) = written[at..].find('%') {
        literal(form, at..at + found, &mut built)?;
        at += found + 1;
        let (how, verb, behind) = how(written, at)?;
        at = behind;
        if verb == '%' {
            literal(form, at - 1..at, &mut built)?;
            continue;
        }
        let value = values.next();
        let value = value.ok_or_else(|| Fault::problem("`printf` is given too few values"))?;
        let value = shown(&how, verb, value, built.budget)?;
        padded(&how, &value, &mut built)?;
    }
    literal(form, at..written.len(), &mut built)?;
    match values.next() {
        None => Ok(built.done()),
        Some(_) => Err(Fault::problem("`printf` is given too many values")),
    }
}

fn literal(form: &Text, range: std::ops::Range<usize>, to: &mut Built<'_>) -> Result<(), Fault> {
    to.budget.step(range.len() + size_of_val(&*form.own))?;
    match form.part(range) {
        Some(part) => to.text(&part),
        None => Ok(()),
    }
}

/// How a value is written, its verb, and what is behind that.
fn how(form: &str, mut at: usize) -> Result<(Form, char, usize), Fault> {
    let mut how = Form::default();
    let mut has_point = false;
    let mut has_width = false;
    for c in form[at..].chars() {
        at += c.len_utf8();
        let digit = c.to_digit(10).map(|digit| digit as usize);
        match (c, digit) {
            ('-', _) => how.is_left = true,
            ('+', _) => how.has_sign = true,
            ('0', _) if !has_point && !has_width => how.has_zeros = true,
            ('.', _) if !has_point => {
                has_point = true;
                how.precision = Some(0);
            }
            (_, Some(digit)) => {
                let number = match &mut how.precision {
                    Some(precision) => precision,
                    None => {
                        has_width = true;
                        &mut how.width
                    }
                };
                *number = *number * 10 + digit;
                if *number > WIDEST {
                    return Err(Fault::TooMuch);
                }
            }
            (verb, None) => return Ok((how, verb, at)),
        }
    }
    Err(Fault::problem("`%` at the end of what `printf` is given"))
}

fn shown(how: &Form, verb: char, value: &Value, budget: &mut Budget) -> Result<Text, Fault> {
    let signed = |number: String, is_negative: bool| match how.has_sign && !is_negative {
        true => format!("+{number}"),
        false => number,
    };
    let plain = match (verb, value) {
        ('d' | 'v', Value::Int(number)) => signed(number.to_string(), *number < 0),
        ('f' | 'F', Value::Float(number)) => {
            let precision = how.precision.unwrap_or(6);
            signed(format!("{number:.precision$}"), number.is_sign_negative())
        }
        ('t', Value::Bool(value)) => value.to_string(),
        ('c', Value::Int(code)) => {
            let code = u32::try_from(*code).ok();
            let c = code.and_then(char::from_u32).filter(|c| *c != '\0');
            c.unwrap_or(char::REPLACEMENT_CHARACTER).to_string()
        }
        ('s' | 'q', Value::Text(_)) | ('v', _) | ('s', Value::List(_) | Value::Map(_)) => {
            let text = match value {
                Value::Text(text) => text.clone(),
                value => match super::functions::print(budget, value)? {
                    Value::Text(text) => text,
                    _ => Text::of_client(""),
                },
            };
            let text = match how.precision {
                Some(most) if verb != 'v' => {
                    let end = text.text.char_indices().nth(most);
                    let end = end.map_or(text.text.len(), |(end, _)| end);
                    budget.step(end + size_of_val(&*text.own))?;
                    text.part(0..end).unwrap_or(text)
                }
                _ => text,
            };
            if verb != 'q' {
                return Ok(text);
            }
            budget.make(text.text.len())?;
            quoted(&text.text)
        }
        _ => {
            return Err(Fault::Problem(format!(
                "`printf` does not write {} as `%{verb}` here",
                value.kind()
            )));
        }
    };
    Ok(Text::of_client(plain))
}

fn padded(how: &Form, value: &Text, to: &mut Built<'_>) -> Result<(), Fault> {
    to.budget.step(value.text.len())?;
    let missing = match how.width {
        0 => 0,
        width => width.saturating_sub(value.text.chars().count()),
    };
    match (how.is_left, how.has_zeros) {
        (true, _) => {
            to.text(value)?;
            to.plain(&" ".repeat(missing))
        }
        (false, true) => match value.text.strip_prefix(['-', '+']) {
            // Zeros stand behind a sign.
            Some(digits) => {
                to.plain(&value.text[..1])?;
                to.plain(&"0".repeat(missing))?;
                to.plain(digits)
            }
            None => {
                to.plain(&"0".repeat(missing))?;
                to.text(value)
            }
        },
        (false, false) => {
            to.plain(&" ".repeat(missing))?;
            to.text(value)
        }
    }
}

/// As Go writes it in its own sources.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
