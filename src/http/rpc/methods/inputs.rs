//! What a run is given: one input, or one for each sequence.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::schema::{Array, OneOfBuilder};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::library_calls::Input;

/// One input, or `n_batch` of them.
pub(crate) struct Inputs(pub Vec<Input>);

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Inputs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an input or an array of inputs")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Inputs, A::Error> {
                Input::deserialize(MapAccessDeserializer::new(map)).map(|input| Inputs(vec![input]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Inputs, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Inputs)
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

impl PartialSchema for Inputs {
    fn schema() -> RefOr<Schema> {
        let input = || Ref::from_schema_name(<Input as ToSchema>::name());
        OneOfBuilder::new()
            .item(input())
            .item(Array::new(input()))
            .description(Some("One `RKLLMInput`, or `n_batch` of them."))
            .into()
    }
}

impl ToSchema for Inputs {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((<Input as ToSchema>::name().into_owned(), Input::schema()));
        <Input as ToSchema>::schemas(schemas);
    }
}
