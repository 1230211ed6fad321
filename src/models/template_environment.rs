//! The Jinja environment chat templates run in: what transformers' `apply_chat_template` offers
//! them, and nothing more.
//!
//! No loader is set, so a template reads no file. Instructions, recursion and the output's size
//! are bounded, because a template comes with a downloaded model and runs inside the daemon. What a
//! template builds up in its own variables is bounded by its instructions only: one that doubles a
//! string on purpose can still exhaust memory.

use std::borrow::Cow;
use std::fmt;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, from_args};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior};
use minijinja_contrib::pycompat;

use super::template_json;

/// Instructions one rendering may take; a turn of the longest known templates takes about 200.
const FUEL: u64 = 5_000_000;
const RECURSION_LIMIT: usize = 200;
/// How much larger than the conversation a prompt may get.
const OUTPUT_FACTOR: usize = 4;
const OUTPUT_BASE_BYTES: usize = 1024 * 1024;

pub(super) const TEMPLATE_NAME: &str = "chat_template";

/// What `raise_exception` was called with; found again as the source of minijinja's error.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Compiles `source` as the environment's only template.
pub(super) fn environment(source: &str) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(RECURSION_LIMIT);
    env.set_debug(false);
    env.set_unknown_method_callback(python_methods);
    env.add_filter("tojson", template_json::tojson);
    env.add_function(
        "raise_exception",
        |message: &Value| -> Result<Value, Error> {
            let message = message.to_string();
            Err(Error::new(ErrorKind::InvalidOperation, "raised").with_source(Raised(message)))
        },
    );
    env.add_template_owned(TEMPLATE_NAME, without_generation_marks(source).into_owned())?;
    Ok(env)
}

/// The text given to `raise_exception`, if that is why rendering ended.
pub(super) fn raised_text(error: &Error) -> Option<&str> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(Raised(text)) = error.downcast_ref() {
            return Some(text);
        }
        cause = error.source();
    }
    None
}

/// Renders the environment's template; `input_bytes` is the size of the conversation.
pub(super) fn render(
    env: &Environment<'static>,
    variables: Value,
    input_bytes: usize,
) -> Result<String, Error> {
    let mut out = BoundedOutput {
        bytes: Vec::new(),
        limit: input_bytes
            .saturating_mul(OUTPUT_FACTOR)
            .saturating_add(OUTPUT_BASE_BYTES),
    };
    env.get_template(TEMPLATE_NAME)?
        .render_captured_to(variables, &mut out)?;
    String::from_utf8(out.bytes)
        .map_err(|e| Error::new(ErrorKind::WriteFailure, "not UTF-8").with_source(e))
}

struct BoundedOutput {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for BoundedOutput {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > self.limit {
            return Err(io::Error::other(format!(
                "the chat template wrote more than {} bytes",
                self.limit
            )));
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Python's string methods that templates use and minijinja-contrib lacks.
fn python_methods(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match method {
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(args)?;
                return Ok(text.strip_prefix(prefix).unwrap_or(text).into());
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(args)?;
                return Ok(text.strip_suffix(suffix).unwrap_or(text).into());
            }
            "partition" => {
                let (separator,): (&str,) = from_args(args)?;
                let (before, found, after) = match text.split_once(separator) {
                    Some((before, after)) => (before, separator, after),
                    None => (text, "", ""),
                };
                return Ok(Value::from_iter([before, found, after]));
            }
            "rpartition" => {
                let (separator,): (&str,) = from_args(args)?;
                let (before, found, after) = match text.rsplit_once(separator) {
                    Some((before, after)) => (before, separator, after),
                    None => ("", "", text),
                };
                return Ok(Value::from_iter([before, found, after]));
            }
            "rsplit" => {
                let (separator, limit): (&str, Option<i64>) = from_args(args)?;
                let limit = limit
                    .and_then(|limit| usize::try_from(limit).ok())
                    .map_or(usize::MAX, |limit| limit.saturating_add(1));
                let mut pieces: Vec<&str> = text.rsplitn(limit, separator).collect();
                pieces.reverse();
                return Ok(Value::from_iter(pieces));
            }
            _ => {}
        }
    }
    pycompat::unknown_method_callback(state, value, method, args)
}

/// transformers' `{% generation %}` marks the assistant's text for training; here it is a scope
/// without meaning. Positions of lines stay, so errors name the right one.
fn without_generation_marks(source: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut copied = 0;
    for (start, _) in source.match_indices("{%") {
        let Some(len) = source[start..].find("%}") else {
            break;
        };
        let tag = &source[start + 2..start + len];
        let word = tag
            .trim_start_matches(['-', '+'])
            .trim_end_matches(['-', '+']);
        let replacement = match word.trim() {
            "generation" => "with",
            "endgeneration" => "endwith",
            _ => continue,
        };
        if start < copied {
            continue;
        }
        out.push_str(&source[copied..start + 2]);
        out.push_str(&tag.replacen(word.trim(), replacement, 1));
        copied = start + len;
    }
    if copied == 0 {
        return Cow::Borrowed(source);
    }
    out.push_str(&source[copied..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &str) -> Result<String, Error> {
        render(&environment(source)?, Value::from(()), 0)
    }

    #[test]
    fn python_string_methods_are_there() {
        for (expression, expected) in [
            ("'a.b.c'.rsplit('.', 1) | join('|')", "a.b|c"),
            ("'a.b.c'.rsplit('.') | join('|')", "a|b|c"),
            ("'a.b.c'.partition('.') | join('|')", "a|.|b.c"),
            ("'a.b.c'.rpartition('.') | join('|')", "a.b|.|c"),
            ("'abc'.partition('.') | join('|')", "abc||"),
            ("'abc'.removeprefix('a').removesuffix('c')", "b"),
            ("' a '.strip() + 'x'.upper()", "aX"),
            ("'a</think>b'.split('</think>')[-1]", "b"),
        ] {
            let source = format!("{{{{ {expression} }}}}");
            assert_eq!(rendered(&source).unwrap(), expected, "{expression}");
        }
    }

    #[test]
    fn generation_blocks_are_scopes_without_meaning() {
        assert_eq!(
            rendered(
                "{% set a = 1 %}{% generation %}\n{% set a = 2 %}x{%- endgeneration -%}\n y{{ a }}"
            )
            .unwrap(),
            "xy1"
        );
    }

    #[test]
    fn what_is_raised_is_found_again() {
        let error =
            rendered("{% macro m() %}{{ raise_exception('no ' ~ 1) }}{% endmacro %}{{ m() }}")
                .unwrap_err();
        assert_eq!(raised_text(&error), Some("no 1"));
        assert_eq!(raised_text(&rendered("{{ 1 / 'a' }}").unwrap_err()), None);
    }

    #[test]
    fn endless_work_ends() {
        for source in [
            "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{% for a in range(100000) %}{{ 'x' * 1000000 }}{% endfor %}",
        ] {
            assert!(rendered(source).is_err(), "{source}");
        }
    }

    #[test]
    fn no_file_is_read() {
        for source in [
            "{% include '/etc/hostname' %}",
            "{% import '/etc/hostname' as x %}",
            "{% extends '/etc/hostname' %}",
        ] {
            assert!(rendered(source).is_err(), "{source}");
        }
    }
}
