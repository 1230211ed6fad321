//! Enums of rkllm.h. A client writes one by its name or by its number in the header; answers have the
//! name, and between the daemon and its workers the number travels.

/// Defines one. Each variant has its number and its name in the header.
macro_rules! header_enum {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $number:literal $text:literal,)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$inner])* $variant,)+
        }

        impl $name {
            /// Number and name of each.
            const ALL: &[(Self, u8, &str)] = &[$((Self::$variant, $number, $text),)+];

            fn entry(self) -> (u8, &'static str) {
                match self {
                    $(Self::$variant => ($number, $text),)+
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let (number, name) = self.entry();
                if serializer.is_human_readable() {
                    serializer.serialize_str(name)
                } else {
                    serializer.serialize_u8(number)
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::library_calls::header_enum::deserialize(deserializer, Self::ALL)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                let names = Self::ALL.iter().map(|&(_, _, name)| name.into());
                let numbers = Self::ALL.iter().map(|&(_, number, _)| number.into());
                let values: Vec<serde_json::Value> = names.chain(numbers).collect();
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::SchemaType::AnyValue)
                    .enum_values(Some(values))
                    .description(Some("A name in the header, or its number there."))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

use std::fmt;

pub(super) use header_enum;
use serde::de::{Deserializer, Error, Visitor};

/// Reads a value by name or number, or the number alone where no client wrote it.
pub(super) fn deserialize<'de, D: Deserializer<'de>, T: Copy>(
    deserializer: D,
    all: &'static [(T, u8, &'static str)],
) -> Result<T, D::Error> {
    let reader = Either(all);
    if deserializer.is_human_readable() {
        deserializer.deserialize_any(reader)
    } else {
        deserializer.deserialize_u8(reader)
    }
}

struct Either<T: 'static>(&'static [(T, u8, &'static str)]);

impl<T: Copy> Either<T> {
    fn found<E: Error>(
        &self,
        given: &dyn fmt::Display,
        is: impl Fn(u8, &str) -> bool,
    ) -> Result<T, E> {
        let found = self.0.iter().find(|&&(_, number, name)| is(number, name));
        found.map(|&(value, _, _)| value).ok_or_else(|| {
            let known: Vec<String> = self
                .0
                .iter()
                .map(|(_, number, name)| format!("{name} ({number})"))
                .collect();
            E::custom(format!("{given} is none of {}", known.join(", ")))
        })
    }
}

impl<T: Copy> Visitor<'_> for Either<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name of the header's enum or its number")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        self.found(&format_args!("`{text}`"), |_, name| name == text)
    }

    fn visit_u64<E: Error>(self, given: u64) -> Result<T, E> {
        self.found(&given, |number, _| u64::from(number) == given)
    }

    fn visit_i64<E: Error>(self, given: i64) -> Result<T, E> {
        self.found(&given, |number, _| i64::from(number) == given)
    }

    fn visit_f64<E: Error>(self, given: f64) -> Result<T, E> {
        self.found(&given, |number, _| f64::from(number) == given)
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};
    use serde_json::{from_str, json};

    use crate::library_calls::{InferMode, InputType};

    /// As rkllm.h has them since 1.2.0.
    const INPUTS: [&str; 4] = [
        "RKLLM_INPUT_PROMPT",
        "RKLLM_INPUT_TOKEN",
        "RKLLM_INPUT_EMBED",
        "RKLLM_INPUT_MULTIMODAL",
    ];
    const MODES: [&str; 3] = [
        "RKLLM_INFER_GENERATE",
        "RKLLM_INFER_GET_LAST_HIDDEN_LAYER",
        "RKLLM_INFER_GET_LOGITS",
    ];

    fn check<T>(names: &[&str])
    where
        T: Serialize + for<'de> Deserialize<'de> + PartialEq + std::fmt::Debug,
    {
        for (number, name) in names.iter().enumerate() {
            let value: T = from_str(&format!("{name:?}")).unwrap();
            assert_eq!(from_str::<T>(&number.to_string()).unwrap(), value);
            assert_eq!(from_str::<T>(&format!("{number}.0")).unwrap(), value);
            assert_eq!(serde_json::to_value(&value).unwrap(), json!(name));
            let bytes = postcard::to_stdvec(&value).unwrap();
            assert_eq!(postcard::from_bytes::<T>(&bytes).unwrap(), value);
        }
        for wrong in [
            "-1", "4", "1.5", "\"x\"", "\"0\"", "1e99", "256", "null", "[]",
        ] {
            let error = from_str::<T>(wrong).unwrap_err().to_string();
            let told = error.contains(names[0]) || error.contains("or its number");
            assert!(told, "{wrong}: {error}");
        }
    }

    #[test]
    fn a_value_is_read_by_its_name_and_by_its_number() {
        check::<InputType>(&INPUTS);
        check::<InferMode>(&MODES);
    }
}
