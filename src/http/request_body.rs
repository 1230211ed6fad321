//! Reads a request's body, bounded in size and in time without progress, and takes fields from it.
//!
//! The content type is not looked at: a body that is JSON is read as JSON, since clients get that
//! header wrong more often than the body.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;

use super::request_error::{RequestError, quote};

/// How much of a refused body is read and thrown away, and for how long: a connection that is
/// closed with unread bytes is reset, and then the client may never see why.
const DISCARD_BYTES: usize = 64 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// A body may take `stall` longer than at this rate, so that bytes that drip in hold a connection, and
/// the memory of what has arrived, for a bounded time.
const SLOWEST_BYTES_PER_SECOND: u32 = 1024;

/// The whole body. `stall` is the longest time between two of its pieces.
pub(crate) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    limit_bytes: usize,
    stall: Duration,
) -> Result<Bytes, RequestError> {
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
    let mut whole = BytesMut::new();
    let started = Instant::now();
    loop {
        let arrived = u32::try_from(whole.len()).unwrap_or(u32::MAX);
        let at_the_slowest = Duration::from_secs(1) * arrived / SLOWEST_BYTES_PER_SECOND;
        let left = (at_the_slowest + stall).saturating_sub(started.elapsed());
        let frame = match tokio::time::timeout(left.min(stall), body.frame()).await {
            Err(_) if arrived > 0 && left < stall => {
                return Err(RequestError::BodyTooSlow {
                    bytes_per_second: SLOWEST_BYTES_PER_SECOND,
                });
            }
            Err(_) => {
                return Err(RequestError::BodyStalled {
                    seconds: stall.as_secs(),
                });
            }
            Ok(None) => return Ok(whole.freeze()),
            Ok(Some(Err(error))) => return Err(broken(error)),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        if whole.len() + piece.len() > limit_bytes {
            drop(whole);
            discard(body).await;
            return Err(too_large);
        }
        whole.extend_from_slice(&piece);
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
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = match first {
        // serde would take an array as the fields in their order.
        Some(b'[') => serde::de::IgnoredAny::deserialize(&mut json)
            .map_err(malformed)
            .map(|_| None),
        _ => serde_path_to_error::deserialize(&mut json)
            .map_err(|error| {
                let param = error.path().to_string();
                blame(param, error.into_inner())
            })
            .map(Some),
    }?;
    json.end().map_err(malformed)?;
    parsed.ok_or(RequestError::NotAnObject)
}

fn malformed(error: serde_json::Error) -> RequestError {
    RequestError::MalformedJson {
        line: error.line(),
        column: error.column(),
        reason: without_position(&error),
    }
}

fn blame(param: String, error: serde_json::Error) -> RequestError {
    if error.classify() != Category::Data {
        return malformed(error);
    }
    let reason = without_position(&error);
    match reason.strip_prefix("missing field `") {
        Some(rest) => {
            let field = rest.trim_end_matches('`');
            RequestError::missing(if param == "." {
                field.to_owned()
            } else {
                format!("{param}.{field}")
            })
        }
        None if param == "." => RequestError::NotAnObject,
        None => RequestError::WrongType { param, reason },
    }
}

/// serde_json's message in a JSON user's words; the position is told apart.
fn without_position(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let end = message.rfind(" at line ").unwrap_or(message.len());
    let words = message[..end]
        .replace("expected f64", "expected a number")
        .replace("expected f32", "expected a number")
        .replace("expected i64", "expected an integer");
    quote(&words)
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
    fn only_an_object_is_a_request() {
        for body in ["[]", "[null,null]", "3", "null", "\"text\""] {
            assert_eq!(error(body), RequestError::NotAnObject, "{body}");
        }
    }
}
