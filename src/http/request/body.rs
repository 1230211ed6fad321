//! Reads a request's body, bounded in size and in time without progress, and takes fields from it.
//!
//! The content type is not looked at: a body that is JSON is read as JSON, since clients get that
//! header wrong more often than the body.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;

use crate::http::request::content_coding::{Decoded, Refused, SLICE_BYTES};
use crate::http::request::context::RequestContext;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::numbers::Numbers;
use crate::http::request::pace::{Pace, SlowestPace};
use crate::http::request::{half_pairs, json_words};

/// How much of a refused body is read and thrown away, and for how long: a connection that is
/// closed with unread bytes is reset, and then the client may never see why.
const DISCARD_BYTES: usize = 64 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Bytes of a body are charged in steps of this size.
const STEP_BYTES: usize = 16 * 1024;

/// The whole body, decoded and charged to the request. Bytes that drip in hold a connection, and the
/// memory of what has arrived, for a bounded time.
pub(crate) async fn read(
    context: &RequestContext,
    headers: &HeaderMap,
    mut body: Body,
    limit_bytes: usize,
    slowest: SlowestPace,
) -> Result<Bytes, RequestError> {
    let account = context.account();
    // With less memory than the limit of a body, the memory is the limit.
    let limit_bytes = limit_bytes.min(account.most_bytes());
    let too_large = RequestError::BodyTooLarge { limit_bytes };
    let announced: Option<u64> = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length| length > limit_bytes as u64) {
        // A client that waits for `100 Continue` has sent nothing yet and reads the refusal.
        if !headers.contains_key(header::EXPECT) {
            discard(body).await;
        }
        return Err(too_large);
    }
    let mut whole = match Decoded::new(headers, limit_bytes) {
        Ok(whole) => whole,
        Err(error) => {
            if !headers.contains_key(header::EXPECT) {
                discard(body).await;
            }
            return Err(error);
        }
    };
    let mut arrived = 0u32;
    if let Some(length) = announced.and_then(|length| usize::try_from(length).ok()) {
        whole.expect(length);
    }
    let mut pace = Pace::new(slowest);
    loop {
        if pace.is_too_slow(arrived) && account.is_scarce() {
            return Err(RequestError::BodyTooSlow {
                bytes_per_second: slowest.rate_while_scarce,
            });
        }
        let patience = pace.patience(arrived);
        let frame = match tokio::time::timeout(patience, body.frame()).await {
            Err(_) if arrived > 0 && patience < slowest.stall => {
                return Err(RequestError::BodyTooSlow {
                    bytes_per_second: slowest.rate,
                });
            }
            Err(_) => {
                return Err(RequestError::BodyStalled {
                    seconds: slowest.stall.as_secs(),
                });
            }
            Ok(None) => {
                return whole.finish().map_err(|refused| match refused {
                    Refused::TooLarge => too_large,
                    Refused::Broken(error) => badly_coded(&error),
                });
            }
            Ok(Some(Err(error))) => return Err(broken(error)),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        arrived = arrived.saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        let slice = match whole.is_coded() {
            true => SLICE_BYTES,
            false => piece.len().max(1),
        };
        for slice in piece.chunks(slice) {
            let taken = whole.push(slice).map_err(|refused| match refused {
                Refused::TooLarge => too_large.clone(),
                Refused::Broken(error) => badly_coded(&error),
            });
            let steps = whole.len().div_ceil(STEP_BYTES);
            if let Err(error) = taken.and_then(|()| Ok(context.hold(steps * STEP_BYTES)?)) {
                drop(whole);
                context.keep(0);
                discard(body).await;
                return Err(error);
            }
            if whole.is_coded() {
                tokio::task::yield_now().await;
            }
        }
    }
}

fn badly_coded(error: &io::Error) -> RequestError {
    RequestError::BodyBroken {
        reason: format!("it is not what `content-encoding` says: {error}"),
    }
}

fn broken(error: axum::Error) -> RequestError {
    let first: &(dyn std::error::Error + 'static) = &error;
    let connection_ended = std::iter::successors(Some(first), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            )
        });
    if connection_ended {
        RequestError::ClientLeft
    } else {
        RequestError::BodyBroken {
            reason: error.to_string(),
        }
    }
}

async fn discard(mut body: Body) {
    let mut left = DISCARD_BYTES;
    // Either way the refusal is sent now.
    let _ = tokio::time::timeout(DISCARD_TIME, async {
        while let Some(Ok(frame)) = body.frame().await {
            let read = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(read) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    })
    .await;
}

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
