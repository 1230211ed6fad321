//! What an answer is to be, as `response_format` says it: OpenAI's forms, and llama.cpp's with a schema
//! beside the type.

use serde_json::{Map, Value};

use crate::constraint::Wanted;
use crate::http::dialects::format::AskedFormat;
use crate::http::request::error::{RequestError, quote};

/// The most characters of a format's name.
const LONGEST_NAME: usize = 64;

/// `None`: text, free as ever.
pub(super) fn read(given: Option<Map<String, Value>>) -> Result<Option<AskedFormat>, RequestError> {
    let Some(mut format) = given else {
        return Ok(None);
    };
    let kind = match format.get("type") {
        None | Some(Value::Null) => return Err(RequestError::missing("response_format.type")),
        Some(Value::String(kind)) => kind.clone(),
        Some(_) => return Err(wrong_type("response_format.type", "a string")),
    };
    match kind.as_str() {
        "text" => Ok(None),
        "json_object" => match schema(&mut format) {
            None => Ok(Some(AskedFormat {
                wanted: Wanted::JsonObject,
                param: "response_format",
            })),
            Some(schema) => asked("response_format.schema", &schema, false),
        },
        "json_schema" => match format.remove("json_schema") {
            Some(Value::Object(described)) => described_schema(described),
            Some(Value::Null) | None => match schema(&mut format) {
                Some(schema) => asked("response_format.schema", &schema, false),
                None => Err(RequestError::missing("response_format.json_schema")),
            },
            Some(_) => Err(wrong_type("response_format.json_schema", "an object")),
        },
        other => Err(RequestError::unsupported(
            "response_format.type",
            format!(
                "`text`, `json_object` and `json_schema` are, not `{}`",
                quote(other)
            ),
        )),
    }
}

fn described_schema(
    mut described: Map<String, Value>,
) -> Result<Option<AskedFormat>, RequestError> {
    const NAME: &str = "response_format.json_schema.name";
    match described.get("name") {
        None | Some(Value::Null) => {}
        Some(Value::String(name)) => {
            let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_fine) {
                return Err(RequestError::out_of_range(
                    NAME,
                    "must be 1 to 64 letters, digits, underscores and hyphens",
                ));
            }
        }
        Some(_) => return Err(wrong_type(NAME, "a string")),
    }
    let strict = match described.get("strict") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(strict)) => *strict,
        Some(_) => {
            return Err(wrong_type(
                "response_format.json_schema.strict",
                "a boolean",
            ));
        }
    };
    const SCHEMA: &str = "response_format.json_schema.schema";
    match schema(&mut described) {
        Some(schema) => asked(SCHEMA, &schema, strict),
        None => Err(RequestError::missing(SCHEMA)),
    }
}

fn schema(of: &mut Map<String, Value>) -> Option<Value> {
    of.remove("schema").filter(|schema| !schema.is_null())
}

fn asked(
    param: &'static str,
    schema: &Value,
    strict: bool,
) -> Result<Option<AskedFormat>, RequestError> {
    let schema = schema.to_string();
    Ok(Some(AskedFormat {
        wanted: Wanted::JsonSchema { schema, strict },
        param,
    }))
}

fn wrong_type(param: &str, wanted: &str) -> RequestError {
    RequestError::WrongType {
        param: param.to_owned(),
        reason: format!("it must be {wanted}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_json(format: Value) -> Result<Option<AskedFormat>, RequestError> {
        match format {
            Value::Object(format) => read(Some(format)),
            _ => read(None),
        }
    }

    fn schema_of(format: Value) -> (String, bool, &'static str) {
        match read_json(format).expect("it is fine") {
            Some(AskedFormat {
                wanted: Wanted::JsonSchema { schema, strict },
                param,
            }) => (schema, strict, param),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_form_of_a_format_is_read() {
        assert_eq!(read_json(json!(null)), Ok(None));
        assert_eq!(read_json(json!({"type": "text"})), Ok(None));
        let object = read_json(json!({"type": "json_object"})).expect("it is fine");
        assert_eq!(object.map(|asked| asked.wanted), Some(Wanted::JsonObject));
        let schema = json!({"type": "integer"});
        let text = schema.to_string();
        let openai = json!({"type": "json_schema",
            "json_schema": {"name": "a-b_1", "strict": true, "schema": schema}});
        let param = "response_format.json_schema.schema";
        assert_eq!(schema_of(openai), (text.clone(), true, param));
        for kind in ["json_object", "json_schema"] {
            let llama = json!({"type": kind, "schema": schema});
            let param = "response_format.schema";
            assert_eq!(schema_of(llama), (text.clone(), false, param));
        }
    }

    #[test]
    fn what_is_no_format_is_refused_by_its_field() {
        for (format, param) in [
            (json!({}), "response_format.type"),
            (json!({"type": 1}), "response_format.type"),
            (json!({"type": "yaml"}), "response_format.type"),
            (
                json!({"type": "json_schema"}),
                "response_format.json_schema",
            ),
            (
                json!({"type": "json_schema", "json_schema": {"name": "n"}}),
                "response_format.json_schema.schema",
            ),
            (
                json!({"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}),
                "response_format.json_schema.name",
            ),
            (
                json!({"type": "json_schema", "json_schema": {"strict": 1, "schema": {}}}),
                "response_format.json_schema.strict",
            ),
        ] {
            let refused = read_json(format).expect_err("it is refused");
            let text = refused.to_string();
            assert!(text.starts_with(&format!("`{param}`")), "{text}");
        }
    }
}
