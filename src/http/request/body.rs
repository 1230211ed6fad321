//! A request's body: how it arrives, and the fields that are taken from it.
//!
//! The content type is not looked at: a body that is JSON is read as JSON, since clients get that
//! header wrong more often than the body.

mod arriving;

pub(crate) use arriving::read;

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;

use crate::http::request::error::{RequestError, quote};
use crate::http::request::numbers::Numbers;
use crate::http::request::{half_pairs, json_words};

/// Reads the fields that `T` knows; others are skipped. Each dialect reads its own fields and the
/// shared ones with a type for each.
pub(crate) fn fields<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, RequestError> {
    let body = without_mark(body);
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = match first {
        // serde would take an array as the fields in their order.
        Some(b'[') => serde::de::IgnoredAny::deserialize(&mut json)
            .map_err(malformed)
            .map(|_| None),
        _ => serde_path_to_error::deserialize(Numbers(&mut json))
            .map_err(|error| {
                let param = error.path().to_string();
                blame(param, body, error.into_inner())
            })
            .map(Some),
    }?;
    json.end().map_err(malformed)?;
    half_pairs::refuse(body)?;
    parsed.ok_or(RequestError::NotAnObject)
}

/// A text without the byte order mark that some editors and libraries put before it.
pub(crate) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(text)
}

/// What Python and JavaScript write for a number that is none, where the error is.
pub(crate) fn no_number_at(text: &[u8], error: &serde_json::Error) -> Option<&'static str> {
    let line = text
        .split(|&byte| byte == b'\n')
        .nth(error.line().checked_sub(1)?)?;
    // The error may be told at any character of the word.
    let before = line.get(..error.column().min(line.len()))?;
    let is_word = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'-';
    let start = before.len() - before.iter().rev().take_while(|byte| is_word(byte)).count();
    let word = line[start..].split(|byte| !is_word(byte)).next()?;
    ["NaN", "Infinity", "-Infinity"]
        .into_iter()
        .find(|name| name.as_bytes() == word)
}

fn malformed(error: serde_json::Error) -> RequestError {
    RequestError::MalformedJson {
        line: error.line(),
        column: error.column(),
        reason: without_position(&error),
    }
}

fn blame(param: String, body: &[u8], error: serde_json::Error) -> RequestError {
    let reason = without_position(&error);
    if error.classify() != Category::Data {
        return match no_number_at(body, &error) {
            _ if param == "." => malformed(error),
            Some(word) => {
                RequestError::out_of_range(param, format!("must be a finite number, not {word}"))
            }
            None if reason == "number out of range" => {
                RequestError::out_of_range(param, "must be a number that 64 bits can hold")
            }
            None => malformed(error),
        };
    }
    // What a struct says of a field it does not name by its path.
    let field = |said: &str| {
        let field = reason.strip_prefix(said)?.trim_end_matches('`');
        Some(match &*param {
            "." => field.to_owned(),
            _ => format!("{param}.{field}"),
        })
    };
    if let Some(field) = field("missing field `") {
        return RequestError::missing(field);
    }
    if let Some(field) = field("duplicate field `") {
        return RequestError::out_of_range(field, "must not be there twice");
    }
    if let Some(rest) = reason.strip_prefix("unknown field `")
        && let Some((name, _)) = rest.split_once('`')
    {
        return RequestError::unsupported(name, "there is no such field");
    }
    if param == "." {
        return RequestError::NotAnObject;
    }
    match json_words::requirement(&error) {
        Some(requirement) => RequestError::out_of_range(param, quote(&requirement)),
        None => RequestError::WrongType { param, reason },
    }
}

/// The parser's words, cut.
pub(crate) fn without_position(error: &serde_json::Error) -> String {
    quote(&json_words::reason(error))
}

/// A struct read from a JSON object only: serde would take an array as its fields in order.
#[derive(Debug)]
pub(crate) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnlyMap<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyMap<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(OnlyMap(PhantomData))
    }
}

/// A field that takes one text or a list. Unlike an untagged enum it says what is wrong where.
#[derive(Debug)]
pub(crate) enum TextOrList<T> {
    Text(String),
    List(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOrList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = TextOrList<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOrList::Text(text.to_owned()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(TextOrList::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(TextOrList::List)
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Example {
        #[allow(dead_code)]
        number: Option<f64>,
        #[allow(dead_code)]
        list: Option<Vec<Inner>>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[allow(dead_code)]
        name: String,
    }

    fn error(body: &str) -> RequestError {
        fields::<Example>(body.as_bytes()).unwrap_err()
    }

    #[test]
    fn malformed_json_is_located() {
        let RequestError::MalformedJson { line, column, .. } = error("{\n  \"number\": nope}")
        else {
            panic!("not malformed");
        };
        assert_eq!((line, column), (2, 14));
        assert!(matches!(error(""), RequestError::MalformedJson { .. }));
        assert!(matches!(error("{} x"), RequestError::MalformedJson { .. }));
        assert!(matches!(error("[1,"), RequestError::MalformedJson { .. }));
    }

    #[test]
    fn a_wrong_type_names_its_field() {
        let RequestError::WrongType { param, reason } = error(r#"{"number":"hot"}"#) else {
            panic!("not a wrong type");
        };
        assert_eq!(param, "number");
        assert_eq!(reason, "invalid type: string \"hot\", expected a number");
        assert_eq!(
            error(r#"{"list":[{"name":"a"},{}]}"#),
            RequestError::missing("list[1].name")
        );
    }

    #[test]
    fn a_number_that_is_none_names_its_field() {
        for (body, said) in [
            (r#"{"number":NaN}"#, "NaN"),
            ("{\n \"number\": -Infinity\n}", "-Infinity"),
            (r#"{"number": Infinity}"#, "Infinity"),
            (r#"{"number":1e999}"#, "64 bits"),
        ] {
            let RequestError::OutOfRange { param, requirement } = error(body) else {
                panic!("{body}: {:?}", error(body));
            };
            assert_eq!(param, "number", "{body}");
            assert!(
                requirement.ends_with(said) || requirement.contains("64 bits"),
                "{requirement}"
            );
        }
        assert!(matches!(error("NaN"), RequestError::MalformedJson { .. }));
    }

    #[test]
    fn a_key_that_is_there_twice_is_named() {
        for (body, key) in [
            (r#"{"number":1,"number":1}"#, "number"),
            (
                r#"{"list":[{"name":"a"},{"name":"a","name":"b"}]}"#,
                "list[1].name",
            ),
        ] {
            let expected = RequestError::out_of_range(key, "must not be there twice");
            assert_eq!(error(body), expected, "{body}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert!(fields::<Example>("\u{FEFF}{\"number\":1}".as_bytes()).is_ok());
        assert_eq!(error("\u{FEFF}[]"), RequestError::NotAnObject);
    }

    #[test]
    fn only_an_object_is_a_request() {
        for body in ["[]", "[null,null]", "3", "null", "\"text\""] {
            assert_eq!(error(body), RequestError::NotAnObject, "{body}");
        }
    }
}
