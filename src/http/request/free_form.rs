//! JSON of any form, where a field has no type of its own. A value takes many times its text, so they
//! are bounded in number.

use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

use super::body::without_position;
use crate::prompt::with_large_numbers_as_objects;

/// Values that an object may hold, those inside others included.
pub(crate) const MOST_VALUES: usize = 65_536;
/// Values by which it is known what a field asks for.
const OUTLINE_VALUES: usize = 64;

/// A JSON value of which the beginning is kept: enough to know whether it asks for something.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outline(pub Value);

/// A JSON object of any values. A number that none of them can hold is one that stands for it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FreeObject(pub Map<String, Value>);

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (mut left, beyond) = (OUTLINE_VALUES, Beyond::Ignored);
        let values = Values(&mut left, beyond);
        values.deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for FreeObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Box::<RawValue>::deserialize(deserializer)?;
        let text = with_large_numbers_as_objects(written.get());
        let mut inner = serde_json::Deserializer::from_str(&text);
        let (mut left, beyond) = (MOST_VALUES, Beyond::Refused);
        let value = Values(&mut left, beyond).deserialize(&mut inner);
        match value.map_err(|error| D::Error::custom(without_position(&error)))? {
            Value::Object(fields) => Ok(Self(fields)),
            other => Err(D::Error::invalid_type(unexpected(&other), &"an object")),
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

/// Whether all of them hold no more values than one of them may.
pub(crate) fn together_fit<'v>(objects: impl IntoIterator<Item = &'v Map<String, Value>>) -> bool {
    fn values(value: &Value) -> usize {
        let within: usize = match value {
            Value::Array(items) => items.iter().map(values).sum(),
            Value::Object(members) => members.values().map(values).sum(),
            _ => 0,
        };
        1 + within
    }
    let values = objects.into_iter().flat_map(Map::values).map(values);
    values.sum::<usize>() <= MOST_VALUES
}

/// What becomes of values beyond the limit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beyond {
    Refused,
    Ignored,
}

/// Builds a value out of at most so many.
struct Values<'a>(&'a mut usize, Beyond);

impl Values<'_> {
    fn is_full(&self) -> bool {
        *self.0 == 0 && self.1 == Beyond::Ignored
    }

    fn inner(&mut self) -> Values<'_> {
        Values(self.0, self.1)
    }
}

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        *self.0 = self.0.checked_sub(1).ok_or_else(|| {
            D::Error::custom(format_args!("it has more than {MOST_VALUES} values"))
        })?;
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
            let object = format!(r#"{{"a":{json}}}"#);
            let read: FreeObject = serde_json::from_str(&object).unwrap();
            assert_eq!(read.0["a"], whole);
        }
        assert!(serde_json::from_str::<FreeObject>("[]").is_err());
        assert!(serde_json::from_str::<Outline>("[1,").is_err());
    }

    #[test]
    fn an_object_of_too_many_values_is_refused_wherever_they_are() {
        let object = |count| {
            serde_json::from_str::<FreeObject>(&format!(r#"{{"a":{}}}"#, list("[]", count)))
        };
        assert!(object(MOST_VALUES - 2).is_ok());
        let refused = object(MOST_VALUES - 1).unwrap_err().to_string();
        assert!(refused.contains("more than 65536 values"), "{refused}");
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
