//! A model's own chat template, run as transformers runs it. The template comes with a downloaded
//! file: it reads nothing, and its instructions and recursion are bounded.

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};
use minijinja_contrib::pycompat;
use serde::Serialize;
use serde_json::ser::Formatter;

/// Instructions one rendering may take; a turn of the longest known templates takes about 200.
const FUEL: u64 = 5_000_000;
const RECURSION_LIMIT: usize = 200;
const NAME: &str = "chat_template";

pub(crate) struct Jinja {
    environment: Environment<'static>,
    special: SpecialTokens,
}

/// The texts of the tokens that templates name.
#[derive(Clone, Default)]
pub(crate) struct SpecialTokens {
    pub(crate) bos: String,
    pub(crate) eos: String,
}

pub(crate) struct Message<'a> {
    pub(crate) role: &'a str,
    pub(crate) content: &'a str,
}

/// What a rendering depends on besides the messages.
#[derive(Clone, Copy, Default)]
pub(crate) struct Switches<'a> {
    pub(crate) tools: Option<&'a serde_json::Value>,
    pub(crate) enable_thinking: bool,
    /// The answer is opened after the messages.
    pub(crate) opens_answer: bool,
}

impl Jinja {
    pub(crate) fn compile(source: &str, special: SpecialTokens) -> Result<Jinja, Error> {
        let mut environment = Environment::new();
        environment.set_syntax(
            SyntaxConfig::builder()
                .trim_blocks(true)
                .lstrip_blocks(true)
                .build()?,
        );
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_LIMIT);
        environment.set_debug(false);
        environment.set_unknown_method_callback(pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", |message: &str| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()))
        });
        environment.add_template_owned(NAME, source.to_owned())?;
        Ok(Jinja {
            environment,
            special,
        })
    }

    pub(crate) fn render(
        &self,
        messages: &[Message<'_>],
        switches: Switches<'_>,
    ) -> Result<String, Error> {
        let messages: Value = messages
            .iter()
            .map(|message| {
                Value::from_pairs([("role", message.role), ("content", message.content)])
            })
            .collect();
        let tools = switches.tools.cloned();
        let tools = tools.map_or(Value::from(()), |tools| Value::from(Serde(tools)));
        let variables = Value::from_pairs([
            ("messages", messages),
            ("tools", tools),
            ("documents", Value::from(())),
            ("bos_token", Value::from(self.special.bos.as_str())),
            ("eos_token", Value::from(self.special.eos.as_str())),
            ("add_generation_prompt", Value::from(switches.opens_answer)),
            ("enable_thinking", Value::from(switches.enable_thinking)),
        ]);
        self.environment.get_template(NAME)?.render(variables)
    }
}

/// `tojson` as transformers defines it, Python's `json.dumps` without escaping for HTML; of its
/// options, `indent` is read.
fn to_json(value: &Value, options: minijinja::value::Kwargs) -> Result<Value, Error> {
    let indent = options.get::<Option<usize>>("indent")?.map(|n| n.min(64));
    // Templates pass these, and they are how it is written anyway.
    let _ = options.get::<Option<bool>>("ensure_ascii")?;
    options.assert_all_used()?;
    if value.kind() == ValueKind::Undefined {
        return Err(Error::new(
            ErrorKind::BadSerialization,
            "tojson got an undefined value",
        ));
    }
    let mut out = Vec::new();
    let written = match indent {
        Some(width) => {
            let blanks = " ".repeat(width);
            let pretty = serde_json::ser::PrettyFormatter::with_indent(blanks.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(
                &mut out, pretty,
            ))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut out, PythonJson,
        )),
    };
    written
        .map_err(|reason| Error::new(ErrorKind::BadSerialization, "tojson").with_source(reason))?;
    Ok(String::from_utf8_lossy(&out).into_owned().into())
}

/// `", "` and `": "` between items, as Python writes JSON.
struct PythonJson;

impl Formatter for PythonJson {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &str, switches: Switches<'_>) -> Result<String, Error> {
        let special = SpecialTokens {
            bos: "<s>".into(),
            eos: "</s>".into(),
        };
        let messages = [Message {
            role: "user",
            content: " a < b ",
        }];
        Jinja::compile(source, special)?.render(&messages, switches)
    }

    #[test]
    fn templates_see_what_transformers_gives_them() {
        let source = "{{ bos_token }}{% for m in messages %}{{ m['role'] }}:{{ m.content.strip() }}{% endfor %}{% if add_generation_prompt %}|{% endif %}{{ enable_thinking }}";
        let switches = Switches {
            opens_answer: true,
            ..Switches::default()
        };
        assert_eq!(
            rendered(source, switches).ok().as_deref(),
            Some("<s>user:a < b|False")
        );
    }

    #[test]
    fn json_is_pythons() {
        let tools = serde_json::json!([{"name": "f<x>", "n": [1, 2.5, null, true], "ü": {}}]);
        let switches = Switches {
            tools: Some(&tools),
            ..Switches::default()
        };
        assert_eq!(
            rendered("{{ tools | tojson }}", switches).ok().as_deref(),
            Some(r#"[{"name": "f<x>", "n": [1, 2.5, null, true], "ü": {}}]"#)
        );
        let indented = rendered("{{ tools[0].n[:2] | tojson(indent=1) }}", switches);
        assert_eq!(indented.ok().as_deref(), Some("[\n 1,\n 2.5\n]"));
    }

    #[test]
    fn no_tools_are_none_and_raising_is_an_error() {
        let source = "{% if tools is none %}{{ raise_exception('no tools') }}{% endif %}";
        let error = rendered(source, Switches::default()).err();
        assert!(error.is_some_and(|error| error.to_string().contains("no tools")));
    }

    #[test]
    fn endless_work_ends() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert!(rendered(source, Switches::default()).is_err());
    }
}
