//! `documents` of a request that ranks them: texts, or objects with a text.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Documents(pub Vec<Document>);

#[derive(Debug)]
pub(super) enum Document {
    Text(String),
    Object(WithText),
}

/// What else is in it is not read.
#[derive(Debug, Deserialize)]
pub(super) struct WithText {
    pub text: Option<String>,
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DocumentVisitor;

        impl<'de> Visitor<'de> for DocumentVisitor {
            type Value = Document;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an object with a text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Document, E> {
                Ok(Document::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Document, A::Error> {
                WithText::deserialize(MapAccessDeserializer::new(map)).map(Document::Object)
            }
        }

        deserializer.deserialize_any(DocumentVisitor)
    }
}
