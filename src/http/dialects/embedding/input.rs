//! `input` of an embeddings request: a text, texts, token ids, or lists of token ids. Read element
//! by element, so that a million ids take the memory of a million ids.

use std::fmt;

use serde::de::{self, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};

use crate::http::request::numbers::{token_id, token_id_of};

/// What is to be embedded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EmbeddingInput {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<i32>),
    TokenLists(Vec<Vec<i32>>),
    /// An empty array.
    Nothing,
    /// What a dialect answers with no embeddings.
    NoTexts,
}

/// One element of the array.
enum Element {
    Text(String),
    Token(i32),
    Tokens(Vec<i32>),
}

impl<'de> Deserialize<'de> for EmbeddingInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = EmbeddingInput;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an array of strings or an array of token ids")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(EmbeddingInput::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut input = EmbeddingInput::Nothing;
        while let Some(element) = seq.next_element()? {
            match (&mut input, element) {
                (EmbeddingInput::Nothing, Element::Text(text)) => {
                    input = EmbeddingInput::Texts(vec![text]);
                }
                (EmbeddingInput::Nothing, Element::Token(token)) => {
                    input = EmbeddingInput::Tokens(vec![token]);
                }
                (EmbeddingInput::Nothing, Element::Tokens(tokens)) => {
                    input = EmbeddingInput::TokenLists(vec![tokens]);
                }
                (EmbeddingInput::Texts(texts), Element::Text(text)) => texts.push(text),
                (EmbeddingInput::Tokens(tokens), Element::Token(token)) => tokens.push(token),
                (EmbeddingInput::TokenLists(lists), Element::Tokens(tokens)) => lists.push(tokens),
                _ => {
                    return Err(A::Error::custom(
                        "an array of strings, of token ids or of lists of token ids, not a mixture",
                    ));
                }
            }
        }
        Ok(input)
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;

        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a token id or an array of token ids")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Element, E> {
                Ok(Element::Text(text.to_owned()))
            }

            fn visit_u64<E: de::Error>(self, token: u64) -> Result<Element, E> {
                token_id(token).map(Element::Token)
            }

            fn visit_i64<E: de::Error>(self, token: i64) -> Result<Element, E> {
                token_id(token).map(Element::Token)
            }

            fn visit_f64<E: de::Error>(self, token: f64) -> Result<Element, E> {
                token_id_of(token).map(Element::Token)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
                let mut tokens = Vec::new();
                while let Some(token) = seq.next_element::<TokenId>()? {
                    tokens.push(token.0);
                }
                Ok(Element::Tokens(tokens))
            }
        }

        deserializer.deserialize_any(ElementVisitor)
    }
}

struct TokenId(i32);

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        token_id(i64::deserialize(deserializer)?).map(Self)
    }
}

/// The schema of `input`.
pub(crate) fn schema() -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let token = || {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(0))
    };
    OneOfBuilder::new()
        .item(text())
        .item(ArrayBuilder::new().items(text()))
        .item(ArrayBuilder::new().items(token()))
        .item(ArrayBuilder::new().items(ArrayBuilder::new().items(token())))
        .description(Some(
            "A text, texts, token ids, or lists of token ids; none of them empty.",
        ))
        .into()
}
