//! Python's two ways to format, with twins in formats and in what they are filled with.

use std::str::Chars;
use std::sync::Arc;

use minijinja::formatting::{self, FormatStyle};
use minijinja::value::{Rest, Value};
use minijinja::{Error, ErrorKind};

use super::twins::Twins;

/// The filter, printf's way.
pub(super) fn filter(twins: Arc<Twins>) -> impl Fn(&str, Rest<Value>) -> Result<String, Error> {
    move |text, args| {
        let style = FormatStyle::Printf;
        formatting::format(style, &readable(&twins, text, style)?, &args)
    }
}

/// A format whose places to be filled hold no twins; the text between them stays as it is written.
///
/// A place that makes a character of a number is refused: number and format may be a client's, and
/// the character a twin.
pub(super) fn readable(twins: &Twins, format: &str, style: FormatStyle) -> Result<String, Error> {
    let mut out = String::with_capacity(format.len());
    let mut rest = format.chars();
    while let Some(written) = rest.next() {
        match (style, twins.plain_char(written)) {
            (FormatStyle::Printf, '%') => {
                out.push('%');
                printf_place(&mut rest, twins, &mut out)?;
            }
            (FormatStyle::StrFormat, '{') => {
                out.push('{');
                format_place(&mut rest, twins, &mut out)?;
            }
            (FormatStyle::StrFormat, '}') => out.push('}'),
            _ => out.push(written),
        }
    }
    Ok(out)
}

/// Up to and with the letter that ends it: `%(name)-05.2f`.
fn printf_place(rest: &mut Chars<'_>, twins: &Twins, out: &mut String) -> Result<(), Error> {
    let mut in_name = false;
    for written in rest {
        let c = twins.plain_char(written);
        out.push(c);
        match c {
            '(' => in_name = true,
            ')' => in_name = false,
            _ if in_name => {}
            'c' => return Err(makes_characters()),
            'h' | 'l' | 'L' => {}
            c if c == '%' || c.is_alphabetic() => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}

/// Up to and with the brace that closes it: `{name:>5}`; a doubled brace is one.
fn format_place(rest: &mut Chars<'_>, twins: &Twins, out: &mut String) -> Result<(), Error> {
    let start = out.len();
    for written in rest {
        let c = twins.plain_char(written);
        out.push(c);
        match c {
            '{' if out.len() == start + 1 => return Ok(()),
            // The way to format is an argument, which may be a client's.
            '{' => return Err(makes_characters()),
            '}' => {
                let place = &out[start..out.len() - 1];
                return match place.contains(':') && place.ends_with('c') {
                    true => Err(makes_characters()),
                    false => Ok(()),
                };
            }
            _ => {}
        }
    }
    Ok(())
}

fn makes_characters() -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        "a format cannot make characters of numbers, or be made by an argument",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::environment::{self, RenderLimits};

    #[test]
    fn no_number_becomes_a_twin() {
        let twins = Arc::new(Twins::new(["<end>"]).unwrap());
        for source in [
            "{{ '%c'|format(1048576) }}",
            "{{ '%(a)c'|format(a=1048576) }}",
            "{{ '%-5c'|format(1048576) }}",
            "{{ '%lc'|format(1048576) }}",
            "{{ '\u{100000}%c'|format(1048576) }}",
            "{{ '{:c}'.format(1048576) }}",
            "{{ '{0[a]:>5c}'.format({'a': 1048576}) }}",
            "{{ '{:{}}'.format(1048576, 'c') }}",
            "{{ '{{}}{:c}'.format(1048576) }}",
        ] {
            let env = environment::environment(source, &twins).unwrap();
            let rendered = environment::render(&env, Value::from(()), 0, RenderLimits::default());
            assert!(rendered.is_err(), "{source}: {rendered:?}");
        }
    }

    #[test]
    fn other_formats_do_what_pythons_do() {
        let twins = Arc::new(Twins::new(["<end>"]).unwrap());
        for (source, expected) in [
            (
                "{{ '%s|%5.1f|%%|%x'|format('a', 1.25, 255) }}",
                "a|  1.2|%|ff",
            ),
            ("{{ '{{\"a\": {}}}|{:>3}'.format(1, 2) }}", "{\"a\": 1}|  2"),
            ("{{ '{a}c'.format(a=1) }}", "1c"),
        ] {
            let env = environment::environment(source, &twins).unwrap();
            let rendered = environment::render(&env, Value::from(()), 0, RenderLimits::default());
            assert_eq!(rendered.unwrap_or_default(), expected, "{source}");
        }
    }
}
