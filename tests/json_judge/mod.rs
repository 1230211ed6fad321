//! Whether an answer is JSON of a schema, by a validator that is not the engine that keeps it.

use std::collections::HashSet;
use std::fmt;

use boon::{Compiler, Schemas};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// JSON in which no object has a key twice.
struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

macro_rules! scalars {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Self, E> { Ok(self) })*
    };
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Unique>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, _)) = map.next_entry::<String, Unique>()? {
            if !keys.insert(key.clone()) {
                return Err(A::Error::custom(format!("`{key}` is there twice")));
            }
        }
        Ok(self)
    }
}

/// Why `answer` is no JSON of `schema`.
pub fn fault(schema: &Value, answer: &str) -> Option<String> {
    let value: Value = match serde_json::from_str(answer) {
        Ok(value) => value,
        Err(error) => return Some(error.to_string()),
    };
    if let Err(error) = serde_json::from_str::<Unique>(answer) {
        return Some(error.to_string());
    }
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.enable_format_assertions();
    compiler
        .add_resource("schema.json", schema.clone())
        .expect("a schema");
    let index = compiler
        .compile("schema.json", &mut schemas)
        .expect("a schema");
    let judged = schemas.validate(&value, index);
    judged.err().map(|error| format!("{error:#}"))
}
