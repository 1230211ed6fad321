//! Filters, tests and globals where minijinja's differ from Jinja2's, or are missing.
//!
//! None of them makes a character that its input does not hold, because it could be a twin: so
//! there is no `striptags`, which decodes `&#…;`.

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, State, filters};
use minijinja_contrib::{filters as contrib, globals};

use super::numbers;

pub(super) fn install(env: &mut Environment<'static>) {
    // In Jinja2 none is not iterable, and what has a length and items is a sequence: texts, maps and
    // what is undefined as well.
    env.add_test("iterable", |value: &Value| {
        !value.is_none() && value.try_iter().is_ok()
    });
    env.add_test("sequence", |value: &Value| {
        matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined
        )
    });
    let is_written = |value: &Value| numbers::written(value).is_some();
    env.add_test("number", move |value: &Value| {
        minijinja::tests::is_number(value) || is_written(value)
    });
    env.add_filter("int", int);
    env.add_filter("float", float);
    env.add_filter("wordcount", wordcount);
    env.add_filter("center", |text: &str, width: Option<usize>| {
        padded(text, width.unwrap_or(80), Side::Both, ' ')
    });
    env.add_filter("truncate", truncate);
    env.add_filter("filesizeformat", contrib::filesizeformat);
    env.add_function("cycler", globals::cycler);
    env.add_function("joiner", globals::joiner);
}

/// 0 for what is no number, unless a default is given.
fn int(
    state: &State<'_, '_>,
    value: &Value,
    default: Option<Value>,
    base: Option<u32>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let default = match kwargs.has("default") {
        true => default,
        false => default.or(Some(Value::from(0))),
    };
    filters::int(state, value, default, base, kwargs)
}

fn float(
    state: &State<'_, '_>,
    value: &Value,
    default: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let default = match kwargs.has("default") {
        true => default,
        false => default.or(Some(Value::from(0.0))),
    };
    filters::float(state, value, default, kwargs)
}

fn wordcount(text: &str) -> usize {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .count()
}

/// Jinja2's: a text that is longer by more than the leeway ends at a word, with `end` behind it.
fn truncate(text: &str, positional: Rest<Value>, kwargs: Kwargs) -> Result<String, Error> {
    let argument = |at: usize, name: &str| -> Result<Option<Value>, Error> {
        match positional.get(at) {
            Some(value) => Ok(Some(value.clone())),
            None => kwargs.get(name),
        }
    };
    let number = |value: Option<Value>, default: usize| match value {
        Some(value) if !value.is_none() => usize::try_from(value),
        _ => Ok(default),
    };
    let length = number(argument(0, "length")?, 255)?;
    let kill_words = argument(1, "killwords")?.is_some_and(|value| value.is_true());
    let end = argument(2, "end")?.map_or_else(|| "...".to_owned(), |end| end.to_string());
    let leeway = number(argument(3, "leeway")?, 5)?;
    kwargs.assert_all_used()?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.to_owned());
    }
    let kept = length.saturating_sub(end.chars().count());
    let mut kept: String = text.chars().take(kept).collect();
    if !kill_words && let Some(space) = kept.rfind(' ') {
        kept.truncate(space);
    }
    Ok(kept + &end)
}

/// Where a padded text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
    Both,
}

/// The widest text that padding makes.
const MOST_COLUMNS: usize = 10_000;

/// Python's `ljust`, `rjust` and `center`.
pub(super) fn padded(text: &str, width: usize, side: Side, fill: char) -> String {
    let len = text.chars().count();
    let missing = width.min(MOST_COLUMNS).saturating_sub(len);
    let before = match side {
        Side::Left => 0,
        Side::Right => missing,
        // As Python does it: the odd one goes before where the width is odd.
        Side::Both => missing / 2 + (missing & width & 1),
    };
    let fill = |count: usize| std::iter::repeat_n(fill, count);
    fill(before)
        .chain(text.chars())
        .chain(fill(missing - before))
        .collect()
}

/// Python's `zfill`: zeros behind the sign.
pub(super) fn zero_filled(text: &str, width: usize) -> String {
    let (sign, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => text.split_at(text.len() - digits.len()),
        None => ("", text),
    };
    let width = width.saturating_sub(sign.len());
    format!("{sign}{}", padded(digits, width, Side::Right, '0'))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::prompt::{ChatTemplate, RenderRequest, SpecialTokens};

    fn shown(expression: &str) -> String {
        let source = format!("{{{{ {expression} }}}}");
        let template =
            ChatTemplate::compile(&source, SpecialTokens::default(), Arc::default()).unwrap();
        let request = RenderRequest::new(Vec::new(), jiff::civil::DateTime::ZERO);
        template
            .render(&request)
            .unwrap_or_else(|e| panic!("{expression}: {e}"))
            .prompt
    }

    /// Right sides are Jinja2's own.
    #[test]
    fn expressions_are_what_jinja2_makes_of_them() {
        for (expression, expected) in [
            ("none is iterable", "False"),
            ("'a' is iterable", "True"),
            ("1 is iterable", "False"),
            ("'abc' is sequence", "True"),
            ("{'a': 1} is sequence", "True"),
            ("[1] is sequence", "True"),
            ("none is sequence", "False"),
            ("missing is sequence", "True"),
            ("1 is sequence", "False"),
            ("true is number", "True"),
            ("'x' is in ['x']", "True"),
            ("'x' is not in ['x']", "False"),
            ("''[::-1] ~ 'abc'[::-1] ~ [][::-1]", "cba[]"),
            ("[1, 2][::-1]", "[2, 1]"),
            (
                "['a\\'b', 'é\u{200d}\\n\\\\', \"'\\\"\", 1e20, none]",
                "[\"a'b\", 'é\\u200d\\n\\\\', '\\'\"', 1e+20, None]",
            ),
            ("1e20", "1e+20"),
            (
                "{'a': [true, {'b': ''}]}|string",
                "{'a': [True, {'b': ''}]}",
            ),
            ("'x'|int", "0"),
            ("'x'|int(5)", "5"),
            ("'x'|int(default=6)", "6"),
            ("'1.5'|int", "1"),
            ("'x'|float", "0.0"),
            ("'hello world_x foo'|wordcount", "3"),
            ("'hello world foo bar'|truncate(10)", "hello..."),
            (
                "'hello world foo bar'|truncate(10, true, end='!')",
                "hello wor!",
            ),
            ("'hello world'|truncate(8)", "hello world"),
            ("'x'|center(5) ~ '|'", "  x  |"),
            ("'abc'.center(6, '*') ~ 'ab'.center(5, '*')", "*abc****ab*"),
            ("'abc'.zfill(5) ~ '-1'.zfill(4)", "00abc-001"),
            ("'abc'.ljust(5) ~ '|' ~ 'abc'.rjust(5)", "abc  |  abc"),
            ("'aBc'.swapcase()", "AbC"),
            ("[1, 2, 3].index(2)", "1"),
            ("{'a': 1}.copy() ~ [1].copy()", "{'a': 1}[1]"),
            ("'a=b=c'.partition('=')", "('a', '=', 'b=c')"),
            ("'a=b=c'.rpartition('=')", "('a=b', '=', 'c')"),
            ("'they-re (x) a.b'|title ~ 'aB'|title", "They-Re (X) A.bAb"),
            ("cycler is defined and joiner is defined", "True"),
        ] {
            assert_eq!(shown(expression), expected, "{expression}");
        }
    }
}
