//! Calls as Ollama's clients take them: whole, with an object as arguments, in one line. A call that the
//! budget cut, or whose arguments are no object, cannot be told so; what there is of it is content.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::chat::WholeCall;
use crate::http::dialects::whole_calls::{as_content, object};
use crate::http::request::id;

/// A call that the model makes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ToldCall {
    /// What its result may name.
    id: String,
    function: ToldFunction,
}

/// What is called, and with what.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ToldFunction {
    /// Which of the calls that are told it is, from 0.
    index: usize,
    /// As the request named the function.
    name: String,
    /// An object, as the model wrote it but for white space.
    #[schema(value_type = Object)]
    arguments: Box<RawValue>,
}

impl ToldCall {
    /// `Err`: it has to be told as content.
    pub fn of(index: usize, call: WholeCall) -> Result<Self, String> {
        let Some(arguments) = object(&call.arguments) else {
            return Err(as_content(&call));
        };
        Ok(Self {
            id: call.id.unwrap_or_else(id::for_call),
            function: ToldFunction {
                index,
                name: call.name,
                arguments,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(arguments: &str) -> Result<String, String> {
        let call = WholeCall {
            id: Some("c".to_owned()),
            name: "f\"".to_owned(),
            arguments: arguments.to_owned(),
            is_whole: true,
        };
        ToldCall::of(3, call).map(|told| serde_json::to_string(&told).expect("JSON"))
    }

    #[test]
    fn arguments_are_what_the_model_wrote_in_one_line() {
        for (written, expected) in [
            ("{}", "{}"),
            ("", "{}"),
            (
                " {\n \"a b\" : [ 1e3, \"x \\\" y\\\\\" ]\r\n}",
                r#"{"a b":[1e3,"x \" y\\"]}"#,
            ),
            (
                r#"{"n":123456789012345678901234567890,"a":1,"a":2}"#,
                r#"{"n":123456789012345678901234567890,"a":1,"a":2}"#,
            ),
        ] {
            let expected = format!(
                r#"{{"id":"c","function":{{"index":3,"name":"f\"","arguments":{expected}}}}}"#
            );
            assert_eq!(told(written), Ok(expected), "{written}");
        }
    }

    #[test]
    fn what_is_no_object_is_content_as_it_was_written() {
        for (written, expected) in [
            ("[1]", r#"{"name": "f\"", "arguments": [1]}"#),
            (r#"{"a": "b"#, r#"{"name": "f\"", "arguments": {"a": "b"#),
            // JSON that no text can hold, and so no history.
            (
                r#"{"a":"\ud83d"}"#,
                r#"{"name": "f\"", "arguments": {"a":"\ud83d"}}"#,
            ),
        ] {
            assert_eq!(told(written), Err(expected.to_owned()), "{written}");
        }
    }
}
