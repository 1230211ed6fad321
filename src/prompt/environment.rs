//! The Jinja environment chat templates run in: what transformers' `apply_chat_template` offers
//! them, and nothing more.
//!
//! No loader is set, so a template reads no file. Instructions, recursion and the output's size are
//! bounded. What a template builds up in its own variables, and how long one instruction works, is
//! not: who renders templates of others does it in a process with limits of its own.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use serde::{Deserialize, Serialize};

use super::twins::Twins;
use super::{TemplateError, jinja2, json, python, values};

const RECURSION_LIMIT: usize = 200;
/// How much larger than the conversation a prompt may get, beside what it has anyway.
const OUTPUT_FACTOR: usize = 4;

/// What one rendering may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderLimits {
    /// Instructions; a message of the longest known templates takes about 200.
    pub steps: u64,
    /// What may be written beside four times the conversation.
    pub output_bytes: usize,
}

impl Default for RenderLimits {
    fn default() -> Self {
        Self {
            steps: 5_000_000,
            output_bytes: 1 << 20,
        }
    }
}

/// The filter that `own_words` puts behind what is compared.
pub(super) const PLAIN_FILTER: &str = "rkllmd_without_twins";

/// The filter that `own_words` puts for `[::-1]`.
pub(super) const BACKWARDS_FILTER: &str = "rkllmd_backwards";

const TEMPLATE_NAME: &str = "chat_template";

/// What `raise_exception` was called with; found again as the source of minijinja's error.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// The syntax of chat templates.
pub(super) fn syntax() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
}

/// Whether `source` is a template at all. Its nesting is then limited.
pub(super) fn check(source: &str) -> Result<(), Error> {
    let mut env = Environment::new();
    env.set_syntax(syntax()?);
    env.add_template(TEMPLATE_NAME, source)
}

/// Compiles `source`, whose own control tokens are written in twins, as the environment's only
/// template.
pub(super) fn environment(source: &str, twins: &Arc<Twins>) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(syntax()?);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_fuel(Some(RenderLimits::default().steps));
    env.set_recursion_limit(RECURSION_LIMIT);
    env.set_debug(false);
    jinja2::install(&mut env);
    python::install(&mut env, twins);
    let t = Arc::clone(twins);
    env.add_filter("tojson", move |value: &Value, kwargs: Kwargs| {
        json::tojson(&t, value, kwargs)
    });
    let t = Arc::clone(twins);
    env.add_filter(PLAIN_FILTER, move |value: &Value| {
        values::without_twins(&t, value)
    });
    env.add_filter(BACKWARDS_FILTER, python::backwards);
    env.add_function(
        "raise_exception",
        |message: &Value| -> Result<Value, Error> {
            let message = message.to_string();
            Err(Error::new(ErrorKind::InvalidOperation, "raised").with_source(Raised(message)))
        },
    );
    env.add_template_owned(TEMPLATE_NAME, source.to_owned())?;
    Ok(env)
}

/// The text given to `raise_exception`, if that is why rendering ended.
fn raised_text(error: &Error) -> Option<&str> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(Raised(text)) = error.downcast_ref() {
            return Some(text);
        }
        cause = error.source();
    }
    None
}

/// Why compiling or rendering ended.
pub(super) fn explain(error: &Error) -> TemplateError {
    if let Some(text) = raised_text(error) {
        return TemplateError::Raised(text.to_owned());
    }
    if error.kind() == ErrorKind::OutOfFuel || is_output_limit(error) {
        return TemplateError::TooMuch;
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    TemplateError::Broken(text)
}

fn is_output_limit(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(|source| source.downcast_ref::<io::Error>().is_some())
}

/// Renders the environment's template; `input_bytes` is the size of the conversation. The steps that it may
/// take are the environment's.
pub(super) fn render(
    env: &Environment<'static>,
    variables: Value,
    input_bytes: usize,
    limits: RenderLimits,
) -> Result<String, Error> {
    let mut out = BoundedOutput {
        bytes: Vec::new(),
        limit: input_bytes
            .saturating_mul(OUTPUT_FACTOR)
            .saturating_add(limits.output_bytes),
    };
    let template = env.get_template(TEMPLATE_NAME)?;
    // minijinja panics at some expressions, `''[-1:-2:-1]` among them; nothing that is shared is left
    // half done by that.
    catch_unwind(AssertUnwindSafe(|| {
        template.render_captured_to(variables, &mut out).map(|_| ())
    }))
    .unwrap_or_else(|_| {
        Err(Error::new(
            ErrorKind::InvalidOperation,
            "an expression made the template engine panic",
        ))
    })?;
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

/// transformers' `{% generation %}` marks the assistant's text for training; here it is a scope
/// without meaning. Positions of lines stay, so errors name the right one.
pub(super) fn without_generation_marks(source: &str) -> Cow<'_, str> {
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
        let source = without_generation_marks(source);
        let env = environment(&source, &Arc::default())?;
        render(&env, Value::from(()), 0, RenderLimits::default())
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
