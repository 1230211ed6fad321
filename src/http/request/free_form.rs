//! JSON of any form, where a field has no type of its own. A value takes many times its text, so they
//! are bounded in number.

use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

use super::body::{fields, without_position};
use super::error::RequestError;
use crate::prompt::with_large_numbers_as_objects;
use crate::settings::ChatSettings;

/// Values by which it is known what a field asks for.
const OUTLINE_VALUES: usize = 64;

/// A JSON value of which the beginning is kept: enough to know whether it asks for something.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outline(pub Value);

/// A JSON object of any values, as the client wrote it.
#[derive(Clone, Debug)]
pub(crate) struct FreeObject(Box<RawValue>);

/// How many values a request's objects of any values may still hold, those inside others included.
#[derive(Debug)]
pub(crate) struct ValuesLeft {
    left: usize,
    most: usize,
}

impl ValuesLeft {
    /// As many as the settings allow.
    pub fn of(limits: &ChatSettings) -> Self {
        Self {
            left: limits.max_values,
            most: limits.max_values,
        }
    }
}

impl FreeObject {
    /// As the client wrote it.
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// Its values, which are taken from those that are left. A number that none of them can hold is an
    /// object that stands for it.
    pub fn read(
        &self,
        param: &str,
        values: &mut ValuesLeft,
    ) -> Result<Map<String, Value>, RequestError> {
        let text = with_large_numbers_as_objects(self.0.get());
        let mut inner = serde_json::Deserializer::from_str(&text);
        let mut beyond = Beyond::Refused { met: false };
        let value = Values(&mut values.left, &mut beyond).deserialize(&mut inner);
        match value {
            Ok(Value::Object(fields)) => Ok(fields),
            Err(_) if matches!(beyond, Beyond::Refused { met: true }) => {
                Err(RequestError::TooManyValues {
                    param: param.to_owned(),
                    most: values.most,
                })
            }
            Ok(_) => Err(RequestError::WrongType {
                param: param.to_owned(),
                reason: "it must be an object".to_owned(),
            }),
            Err(error) => Err(RequestError::WrongType {
                param: param.to_owned(),
                reason: without_position(&error),
            }),
        }
    }
}

/// Reads the fields of an object inside a body, whose path in it is `at`.
pub(crate) fn fields_within<'a, T: Deserialize<'a>>(
    part: &'a RawValue,
    at: &str,
) -> Result<T, RequestError> {
    let within = |param: String| format!("{at}.{param}");
    fields(part.get().as_bytes()).map_err(|error| match error {
        RequestError::WrongType { param, reason } => RequestError::WrongType {
            param: within(param),
            reason,
        },
        RequestError::Missing { param } => RequestError::missing(within(param)),
        RequestError::OutOfRange { param, requirement } => {
            RequestError::out_of_range(within(param), requirement)
        }
        RequestError::MalformedJson { reason, .. } => RequestError::WrongType {
            param: at.to_owned(),
            reason,
        },
        RequestError::NotAnObject => RequestError::WrongType {
            param: at.to_owned(),
            reason: "it must be an object".to_owned(),
        },
        other => other,
    })
}

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (mut left, mut beyond) = (OUTLINE_VALUES, Beyond::Ignored);
        let values = Values(&mut left, &mut beyond);
        values.deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for FreeObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Box::<RawValue>::deserialize(deserializer)?;
        match written.get().as_bytes().first() {
            Some(b'{') => Ok(Self(written)),
            _ => {
                let other: Outline =
                    serde_json::from_str(written.get()).map_err(D::Error::custom)?;
                Err(D::Error::invalid_type(unexpected(&other.0), &"an object"))
            }
        }
    }
}

fn unexpected(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(value) => Unexpected::Bool(*value),
        Value::Number(_) => Unexpected::Other("number"),
        Value::String(text) => Unexpected::Str(text),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}

/// What becomes of values beyond the limit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beyond {
    /// `met`: there are some.
    Refused {
        met: bool,
    },
    Ignored,
}

/// Builds a value out of at most so many.
struct Values<'a>(&'a mut usize, &'a mut Beyond);

impl Values<'_> {
    fn is_full(&self) -> bool {
        *self.0 == 0 && *self.1 == Beyond::Ignored
    }

    fn inner(&mut self) -> Values<'_> {
        Values(self.0, self.1)
    }
}

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let Some(left) = self.0.checked_sub(1) else {
            *self.1 = Beyond::Refused { met: true };
            return Err(D::Error::custom("too many values"));
        };
        *self.0 = left;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while !self.is_full() {
            match seq.next_element_seed(self.inner())? {
                Some(value) => values.push(value),
                None => return Ok(Value::Array(values)),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while !self.is_full() {
            match map.next_key::<String>()? {
                Some(name) => {
                    fields.insert(name, map.next_value_seed(self.inner())?);
                }
                None => return Ok(Value::Object(fields)),
            }
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(json: &str) -> Value {
        serde_json::from_str::<Outline>(json).unwrap().0
    }

    fn list(of: &str, count: usize) -> String {
        format!("[{}]", vec![of; count].join(","))
    }

    #[test]
    fn it_is_read_as_serde_reads_it() {
        for json in [
            "null",
            "-1",
            "18446744073709551615",
            "1.5",
            "\"ä\\n\"",
            r#"{"b":[1,{"a":null}],"a":true,"b":2}"#,
        ] {
            let whole: Value = serde_json::from_str(json).unwrap();
            assert_eq!(outline(json), whole);
            assert_eq!(
                object(&format!(r#"{{"a":{json}}}"#), 100).unwrap()["a"],
                whole
            );
        }
        assert!(serde_json::from_str::<FreeObject>("[]").is_err());
        assert!(serde_json::from_str::<Outline>("[1,").is_err());
    }

    fn object(json: &str, most: usize) -> Result<Map<String, Value>, RequestError> {
        let object: FreeObject = serde_json::from_str(json).unwrap();
        let limits = ChatSettings {
            max_values: most,
            ..ChatSettings::default()
        };
        object.read("a", &mut ValuesLeft::of(&limits))
    }

    #[test]
    fn an_object_of_too_many_values_is_refused_wherever_they_are() {
        let json = format!(r#"{{"a":{}}}"#, list("[]", 100));
        assert!(object(&json, 102).is_ok());
        let refused = RequestError::TooManyValues {
            param: "a".to_owned(),
            most: 101,
        };
        assert_eq!(object(&json, 101), Err(refused));
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(500), "]".repeat(500));
        let refused = object(&deep, 1000).unwrap_err();
        assert!(
            matches!(refused, RequestError::WrongType { .. }),
            "{refused}"
        );
    }

    #[test]
    fn of_an_outline_the_rest_is_read_and_forgotten() {
        for many in [list("{\"a\":[1]}", 1000), format!("[{}]", list("0", 1000))] {
            let kept = outline(&many);
            assert!(kept.to_string().len() < 1000, "{kept}");
            assert_ne!(kept, serde_json::json!([]));
        }
    }
}
