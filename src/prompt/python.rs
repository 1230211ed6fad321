//! Python's string methods, and the filters and tests that search, as Jinja2 has them.
//!
//! A search pays no regard to twins: what a template looks for may be written in them, the client's
//! text never is. What it finds keeps its characters as they were written.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use minijinja::formatting::FormatStyle;
use minijinja::value::{Kwargs, Tuple, Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, escape_formatter};
use minijinja_contrib::pycompat;

use super::format;
use super::jinja2::{Side, padded, zero_filled};
use super::python_text::{byte_at, change_case, found_all, replaced, strip, words};
use super::repr;
use super::twins::Twins;
use super::values::without_twins;

/// Adds everything to `env`.
pub(super) fn install(env: &mut Environment<'static>, twins: &Arc<Twins>) {
    let t = Arc::clone(twins);
    env.set_unknown_method_callback(move |state, value, method, args| {
        call(&t, state, value, method, args)
    });
    for name in ["replace", "split", "upper", "lower", "capitalize"] {
        let t = Arc::clone(twins);
        env.add_filter(
            name,
            move |state: &mut State<'_, '_>, value: &Value, args: minijinja::value::Rest<Value>| {
                let text = Value::from(text_of(value).into_owned());
                call(&t, state, &text, name, &args)
            },
        );
    }
    let t = Arc::clone(twins);
    env.add_filter("title", move |value: &Value| {
        change_case(&t, &text_of(value), "title-filter")
    });
    let t = Arc::clone(twins);
    env.set_formatter(move |out, state, value| match repr::shown(&t, value) {
        Some(shown) => escape_formatter(out, state, &shown.into()),
        None => escape_formatter(out, state, value),
    });
    let t = Arc::clone(twins);
    env.add_filter("string", move |value: &Value| {
        match repr::shown(&t, value) {
            Some(shown) => shown,
            None => value.to_string(),
        }
    });
    let t = Arc::clone(twins);
    env.add_filter("trim", move |value: &Value, chars: Option<&str>| {
        Value::from(strip(&t, &text_of(value), chars, true, true))
    });
    env.add_filter("format", format::filter(Arc::clone(twins)));
    for (name, starts) in [("startingwith", true), ("endingwith", false)] {
        let t = Arc::clone(twins);
        env.add_test(name, move |text: Cow<'_, str>, other: Cow<'_, str>| {
            let (text, other) = (t.plain(&text), t.plain(&other));
            match starts {
                true => text.starts_with(&*other),
                false => text.ends_with(&*other),
            }
        });
    }
    for (names, equal) in [(["eq", "equalto", "=="], true), (["ne", "ne", "!="], false)] {
        for name in names {
            let t = Arc::clone(twins);
            env.add_test(name, move |value: &Value, other: &Value| {
                (without_twins(&t, value) == without_twins(&t, other)) == equal
            });
        }
    }
    let t = Arc::clone(twins);
    env.add_test("in", move |value: &Value, container: &Value| {
        contains(&without_twins(&t, container), &without_twins(&t, value))
    });
}

/// What `value[::-1]` is.
pub(super) fn backwards(value: &Value) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.chars().rev().collect::<String>().into());
    }
    let mut items: Vec<Value> = value.try_iter()?.checked().collect::<Result<_, _>>()?;
    items.reverse();
    Ok(items.into())
}

fn contains(container: &Value, value: &Value) -> bool {
    if let Some(text) = container.as_str() {
        return text.contains(&*text_of(value));
    }
    match container.kind() {
        ValueKind::Map => container
            .get_item(value)
            .is_ok_and(|found| !found.is_undefined()),
        _ => container
            .try_iter()
            .is_ok_and(|mut items| items.any(|item| item == *value)),
    }
}

fn text_of(value: &Value) -> Cow<'_, str> {
    value
        .as_str()
        .map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed)
}

/// Calls `method` of `value`.
fn call(
    twins: &Twins,
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        // Keys that are looked up: `roles.get(message.role)`.
        let keys: Vec<Value> = match method {
            "get" => args.iter().map(|key| without_twins(twins, key)).collect(),
            _ => args.to_vec(),
        };
        match (value.kind(), method) {
            (ValueKind::Seq | ValueKind::Map, "copy") => {
                let () = from_args(args)?;
                return Ok(value.clone());
            }
            (ValueKind::Seq, "index" | "count") => {
                let (wanted,): (&Value,) = from_args(args)?;
                let wanted = without_twins(twins, wanted);
                let mut items = value.try_iter()?.map(|item| without_twins(twins, &item));
                if method == "count" {
                    return Ok(Value::from(items.filter(|item| *item == wanted).count()));
                }
                return items
                    .position(|item| item == wanted)
                    .map(Value::from)
                    .ok_or_else(|| wrong(method, "was not found"));
            }
            _ => {}
        }
        return pycompat::unknown_method_callback(state, value, method, &keys);
    };
    Ok(match method {
        "upper" | "lower" | "capitalize" | "title" | "swapcase" => {
            let () = from_args(args)?;
            Value::from(change_case(twins, text, method))
        }
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            Value::from(strip(
                twins,
                text,
                chars,
                method != "rstrip",
                method != "lstrip",
            ))
        }
        "startswith" | "endswith" => {
            let (what,): (&Value,) = from_args(args)?;
            let text = twins.plain(text);
            let is_there = |what: &Value| match what.as_str().map(|what| twins.plain(what)) {
                Some(what) if method == "startswith" => Ok(text.starts_with(&*what)),
                Some(what) => Ok(text.ends_with(&*what)),
                None => Err(wrong(method, "must be a string or a tuple of strings")),
            };
            if what.kind() != ValueKind::Seq {
                return is_there(what).map(Value::from);
            }
            for what in what.try_iter()? {
                if is_there(&what)? {
                    return Ok(Value::from(true));
                }
            }
            Value::from(false)
        }
        "removeprefix" | "removesuffix" => {
            let (what,): (&str,) = from_args(args)?;
            let (plain, what) = (twins.plain(text), twins.plain(what));
            let chars = text.chars().count();
            let len = what.chars().count();
            if method == "removeprefix" && plain.starts_with(&*what) {
                Value::from(&text[byte_at(text, len)..])
            } else if method == "removesuffix" && plain.ends_with(&*what) {
                Value::from(&text[..byte_at(text, chars - len)])
            } else {
                value.clone()
            }
        }
        "partition" | "rpartition" => {
            let (what,): (&str,) = from_args(args)?;
            let found = found(twins, text, what, method)?;
            let is_last = method == "rpartition";
            let chosen = if is_last { found.last() } else { found.first() };
            let parts = match chosen {
                Some(at) => [&text[..at.start], &text[at.clone()], &text[at.end..]],
                None if is_last => ["", "", text],
                None => [text, "", ""],
            };
            Value::from(Tuple::from(parts.map(Value::from).to_vec()))
        }
        "split" | "rsplit" => split(twins, text, method, args)?,
        "replace" => {
            let (old, new, count, kwargs): (&Value, &Value, Option<i64>, Kwargs) = from_args(args)?;
            let (old, new) = (text_of(old), text_of(new));
            let count = match count {
                Some(count) => Some(count),
                None => kwargs.get("count")?,
            };
            kwargs.assert_all_used()?;
            let limit = count
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(usize::MAX);
            Value::from(replaced(
                text,
                &new,
                found_all(twins, text, &old).into_iter().take(limit),
            ))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let (what,): (&str,) = from_args(args)?;
            let found = found_all(twins, text, what);
            if method == "count" {
                return Ok(Value::from(found.len()));
            }
            let at = match method.starts_with('r') {
                true => found.last(),
                false => found.first(),
            };
            match at {
                Some(at) => Value::from(text[..at.start].chars().count()),
                None if method.ends_with("find") => Value::from(-1),
                None => return Err(wrong(method, "was not found")),
            }
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (usize, Option<char>) = from_args(args)?;
            let side = match method {
                "ljust" => Side::Left,
                "rjust" => Side::Right,
                _ => Side::Both,
            };
            Value::from(padded(text, width, side, fill.unwrap_or(' ')))
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            Value::from(zero_filled(text, width))
        }
        "format" => {
            let readable = Value::from(format::readable(twins, text, FormatStyle::StrFormat)?);
            return pycompat::unknown_method_callback(state, &readable, method, args);
        }
        // `isupper` and its kin.
        _ if method.starts_with("is") => {
            let plain = without_twins(twins, value);
            return pycompat::unknown_method_callback(state, &plain, method, args);
        }
        _ => return pycompat::unknown_method_callback(state, value, method, args),
    })
}

fn wrong(method: &str, what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("the argument of {method} {what}"),
    )
}

fn found(twins: &Twins, text: &str, what: &str, method: &str) -> Result<Vec<Range<usize>>, Error> {
    match what.is_empty() {
        true => Err(wrong(method, "must not be empty")),
        false => Ok(found_all(twins, text, what)),
    }
}

fn split(twins: &Twins, text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, limit, kwargs): (Option<&Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = match separator {
        Some(separator) => Some(separator.clone()),
        None => kwargs.get::<Option<Value>>("sep")?,
    };
    let limit = match limit {
        Some(limit) => Some(limit),
        None => kwargs.get("maxsplit")?,
    };
    kwargs.assert_all_used()?;
    let limit = limit
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(usize::MAX);
    let from_right = method == "rsplit";
    let Some(separator) = separator.filter(|separator| !separator.is_none()) else {
        return Ok(Value::from_iter(words(text, limit, from_right)));
    };
    let separator = separator
        .as_str()
        .ok_or_else(|| wrong(method, "must be a string"))?;
    let mut borders = found(twins, text, separator, method)?;
    match from_right {
        true => drop(borders.drain(..borders.len().saturating_sub(limit))),
        false => borders.truncate(limit),
    }
    let mut parts = Vec::with_capacity(borders.len() + 1);
    let mut start = 0;
    for border in borders {
        parts.push(&text[start..border.start]);
        start = border.end;
    }
    parts.push(&text[start..]);
    Ok(Value::from_iter(parts))
}

#[cfg(test)]
mod tests;
