//! Keys that may be unset. TOML has no null, so the empty string unsets an optional key; that is also
//! how a drop-in takes back what the main file set.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, IntoDeserializer, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// An optional text or path.
pub(super) fn empty_as_none<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: From<String>,
{
    let text = String::deserialize(deserializer)?;
    Ok((!text.is_empty()).then(|| T::from(text)))
}

/// An optional size: an integer, or its digits as text, because that is how an environment variable
/// gives it.
pub(super) fn bytes_or_empty<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    struct Bytes;

    impl Visitor<'_> for Bytes {
        type Value = Option<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of bytes, or the empty string for none")
        }

        fn visit_u64<E: Error>(self, bytes: u64) -> Result<Self::Value, E> {
            Ok(Some(bytes))
        }

        fn visit_i64<E: Error>(self, bytes: i64) -> Result<Self::Value, E> {
            let bytes = u64::try_from(bytes);
            bytes.map_or_else(|_| Err(E::custom("must not be negative")), |n| Ok(Some(n)))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            if text.is_empty() {
                return Ok(None);
            }
            let invalid = |_| E::invalid_value(Unexpected::Str(text), &self);
            text.parse().map(Some).map_err(invalid)
        }
    }

    deserializer.deserialize_any(Bytes)
}

/// A duration, or the empty string for none.
pub(super) fn duration_or_empty<'de, D>(deserializer: D) -> Result<Option<Duration>, D::Error>
where
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    let duration = humantime_serde::deserialize(text.into_deserializer())?;
    Ok(Some(duration))
}
