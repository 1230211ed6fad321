//! What an answer is to be, in all the fields that servers have for it: OpenAI's, llama.cpp's server's and
//! vLLM's. One of them may say so.

mod response_format;

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::constraint::Wanted;
use crate::http::dialects::format::AskedFormat;
use crate::http::request::body::Object;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::{FreeObject, Outline, ValuesLeft};
use crate::http::request::together::fields_of;

/// What keeps an answer to a format; one of them at most. Null and empty values count as absent.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct FormatParameters {
    /// What the answer is: `{"type":"text"}`, `{"type":"json_object"}` or, kept to a JSON schema,
    /// `{"type":"json_schema","json_schema":{"name","schema","strict"}}`.
    #[schema(value_type = Option<Object>)]
    response_format: Option<FreeObject>,
    /// A JSON schema, as llama.cpp's server takes it.
    #[schema(value_type = Option<Object>)]
    json_schema: Option<Box<RawValue>>,
    /// A grammar in GBNF, as llama.cpp's server takes it.
    grammar: Option<String>,
    /// A JSON schema or its text, as vLLM takes it.
    #[schema(value_type = Option<Object>)]
    guided_json: Option<Box<RawValue>>,
    /// A regular expression that matches all of the answer.
    guided_regex: Option<String>,
    /// Texts, one of which is the answer.
    guided_choice: Option<Vec<String>>,
    /// A grammar in GBNF or in Lark.
    guided_grammar: Option<String>,
    /// vLLM's newer form of the same.
    #[schema(value_type = Option<StructuredOutputs>)]
    structured_outputs: Option<Object<StructuredOutputs>>,
}

fields_of!(FormatParameters {
    response_format,
    json_schema,
    grammar,
    guided_json,
    guided_regex,
    guided_choice,
    guided_grammar,
    structured_outputs,
});

/// One of the ways to keep an answer to a format; the others null or absent.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct StructuredOutputs {
    /// A JSON schema or its text.
    #[schema(value_type = Option<Object>)]
    json: Option<Box<RawValue>>,
    /// A regular expression that matches all of the answer.
    regex: Option<String>,
    /// Texts, one of which is the answer.
    choice: Option<Vec<String>>,
    /// A grammar in GBNF or in Lark.
    grammar: Option<String>,
    /// Any JSON object.
    json_object: Option<bool>,
    /// Not supported; null.
    #[schema(value_type = Option<Object>)]
    structural_tag: Option<Outline>,
    /// Not supported; null.
    #[schema(value_type = Option<String>)]
    whitespace_pattern: Option<Outline>,
}

impl FormatParameters {
    /// What is asked for, if anything is.
    pub(crate) fn read(self, values: &mut ValuesLeft) -> Result<Option<AskedFormat>, RequestError> {
        let given = self.response_format;
        let given = given.map(|format| format.read("response_format", values));
        let text = |text: Option<String>| text.filter(|text| !text.is_empty());
        let mut all = vec![
            response_format::read(given.transpose()?)?,
            schema("json_schema", self.json_schema),
            text(self.grammar).map(|text| asked("grammar", Wanted::Gbnf(text))),
            schema("guided_json", self.guided_json),
            text(self.guided_regex).map(|text| asked("guided_regex", Wanted::Regex(text))),
            choice("guided_choice", self.guided_choice),
            text(self.guided_grammar).map(|text| asked("guided_grammar", any_grammar(text))),
        ];
        if let Some(Object(structured)) = self.structured_outputs {
            for (name, value) in [
                (
                    "structured_outputs.structural_tag",
                    &structured.structural_tag,
                ),
                (
                    "structured_outputs.whitespace_pattern",
                    &structured.whitespace_pattern,
                ),
            ] {
                if value.is_some() {
                    return Err(RequestError::unsupported(name, "only null is accepted"));
                }
            }
            let is_object = structured.json_object == Some(true);
            all.extend([
                schema("structured_outputs.json", structured.json),
                text(structured.regex)
                    .map(|text| asked("structured_outputs.regex", Wanted::Regex(text))),
                choice("structured_outputs.choice", structured.choice),
                text(structured.grammar)
                    .map(|text| asked("structured_outputs.grammar", any_grammar(text))),
                is_object.then(|| asked("structured_outputs.json_object", Wanted::JsonObject)),
            ]);
        }
        let mut all = all.into_iter().flatten();
        match (all.next(), all.next()) {
            (Some(first), Some(second)) => Err(RequestError::out_of_range(
                second.param,
                format!(
                    "says what the answer is, and so does `{}`: one of them may",
                    first.param
                ),
            )),
            (first, _) => Ok(first),
        }
    }
}

fn asked(param: &'static str, wanted: Wanted) -> AskedFormat {
    AskedFormat { wanted, param }
}

/// As JSON or as its text; no text and null are none.
fn schema(param: &'static str, given: Option<Box<RawValue>>) -> Option<AskedFormat> {
    let given = given?;
    let schema = match serde_json::from_str::<String>(given.get()) {
        Ok(text) => text,
        Err(_) => given.get().to_owned(),
    };
    let is_none = schema.is_empty() || schema == "null";
    let strict = false;
    (!is_none).then(|| asked(param, Wanted::JsonSchema { schema, strict }))
}

fn choice(param: &'static str, given: Option<Vec<String>>) -> Option<AskedFormat> {
    let options = given.filter(|options| !options.is_empty())?;
    Some(asked(param, Wanted::Choice(options)))
}

/// Only rules of GBNF have `::=` behind their names.
fn any_grammar(text: String) -> Wanted {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let is_rule = |line: &str| {
        let behind = line.trim_start().trim_start_matches(is_name);
        behind.trim_start().starts_with("::=")
    };
    match text.lines().any(is_rule) {
        true => Wanted::Gbnf(text),
        false => Wanted::Lark(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::body::fields;
    use crate::http::request::together::Together;
    use crate::settings::ChatSettings;

    #[derive(Debug, Default)]
    struct Other {
        other: Option<i64>,
    }
    fields_of!(Other { other });

    fn read(body: &str) -> Result<Option<AskedFormat>, RequestError> {
        let Together(format, other): Together<FormatParameters, Other> = fields(body.as_bytes())?;
        assert_eq!(other.other, None);
        format.read(&mut ValuesLeft::of(&ChatSettings::default()))
    }

    fn wanted(body: &str) -> (Wanted, &'static str) {
        let AskedFormat { wanted, param } = read(body).expect(body).expect(body);
        (wanted, param)
    }

    fn schema(text: &str) -> Wanted {
        Wanted::JsonSchema {
            schema: text.to_owned(),
            strict: false,
        }
    }

    #[test]
    fn every_field_of_every_server_is_read() {
        let gbnf = "root ::= \"a\"";
        let lark = "start: \"::=\"";
        for (body, param, expected) in [
            (
                r#"{"json_schema":{"type":"null"}}"#,
                "json_schema",
                schema(r#"{"type":"null"}"#),
            ),
            (r#"{"json_schema":true}"#, "json_schema", schema("true")),
            (
                r#"{"guided_json":{"a":1}}"#,
                "guided_json",
                schema(r#"{"a":1}"#),
            ),
            (
                r#"{"guided_json":"{\"a\":1}"}"#,
                "guided_json",
                schema(r#"{"a":1}"#),
            ),
            (
                r#"{"guided_regex":"a+"}"#,
                "guided_regex",
                Wanted::Regex("a+".to_owned()),
            ),
            (
                r#"{"guided_choice":["a","b"]}"#,
                "guided_choice",
                Wanted::Choice(vec!["a".to_owned(), "b".to_owned()]),
            ),
            (
                r#"{"structured_outputs":{"json":"{}"}}"#,
                "structured_outputs.json",
                schema("{}"),
            ),
            (
                r#"{"structured_outputs":{"regex":"a","json":null,"other":1}}"#,
                "structured_outputs.regex",
                Wanted::Regex("a".to_owned()),
            ),
            (
                r#"{"structured_outputs":{"choice":["a"]}}"#,
                "structured_outputs.choice",
                Wanted::Choice(vec!["a".to_owned()]),
            ),
            (
                r#"{"structured_outputs":{"json_object":true}}"#,
                "structured_outputs.json_object",
                Wanted::JsonObject,
            ),
        ] {
            assert_eq!(wanted(body), (expected, param), "{body}");
        }
        for (field, text, expected) in [
            ("grammar", gbnf, Wanted::Gbnf(gbnf.to_owned())),
            ("grammar", lark, Wanted::Gbnf(lark.to_owned())),
            ("guided_grammar", gbnf, Wanted::Gbnf(gbnf.to_owned())),
            ("guided_grammar", lark, Wanted::Lark(lark.to_owned())),
        ] {
            let body = serde_json::json!({ field: text }).to_string();
            assert_eq!(wanted(&body), (expected, field), "{body}");
        }
    }

    #[test]
    fn what_asks_for_nothing_is_none() {
        for body in [
            r#"{"response_format":{"type":"text"},"grammar":"","guided_regex":"","guided_json":""}"#,
            r#"{"json_schema":null,"guided_choice":[],"guided_grammar":null}"#,
            r#"{"structured_outputs":{}}"#,
            r#"{"structured_outputs":{"json":null,"json_object":false,"choice":[]}}"#,
        ] {
            assert_eq!(read(body).expect(body), None, "{body}");
        }
    }

    #[test]
    fn two_formats_and_what_is_not_done_are_refused_by_name() {
        for (body, param) in [
            (r#"{"grammar":"a","json_schema":{}}"#, "grammar"),
            (
                r#"{"response_format":{"type":"json_object"},"guided_regex":"a"}"#,
                "guided_regex",
            ),
            (
                r#"{"structured_outputs":{"regex":"a","choice":["a"]}}"#,
                "structured_outputs.choice",
            ),
            (
                r#"{"structured_outputs":{"structural_tag":{"type":"x"}}}"#,
                "structured_outputs.structural_tag",
            ),
            (
                r#"{"structured_outputs":{"json":{},"whitespace_pattern":" *"}}"#,
                "structured_outputs.whitespace_pattern",
            ),
            (r#"{"guided_choice":"a"}"#, "guided_choice"),
            (r#"{"structured_outputs":[]}"#, "structured_outputs"),
        ] {
            let refused = read(body).expect_err(body).to_string();
            assert!(refused.starts_with(&format!("`{param}`")), "{refused}");
        }
    }
}
