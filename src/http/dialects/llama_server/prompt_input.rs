//! `prompt` of a text that goes on: a text, the ids of tokens, both in a row, or a list of such. Read element by
//! element, so that a million ids take the memory of a million ids.

use std::fmt;

use serde::de::{self, DeserializeSeed, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type};

use crate::chat::PromptPart;
use crate::http::request::numbers::{token_id, token_id_of};

/// What is to be continued.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PromptInput {
    One(Vec<PromptPart>),
    Several(Vec<Vec<PromptPart>>),
}

/// One element of a list.
enum Element {
    Text(String),
    Token(i32),
    List(Vec<PromptPart>),
}

/// Whether a list may be one.
struct MayNest(bool);

impl<'de> DeserializeSeed<'de> for MayNest {
    type Value = Element;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Element, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MayNest {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            true => "a string, a token id or an array of these",
            false => "a string or a token id",
        })
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
        if !self.0 {
            return Err(A::Error::custom("an array in an array of an array"));
        }
        let mut parts = Vec::new();
        while let Some(element) = seq.next_element_seed(MayNest(false))? {
            push(&mut parts, element);
        }
        Ok(Element::List(parts))
    }
}

/// Adds what is in the list itself.
fn push(parts: &mut Vec<PromptPart>, element: Element) {
    match (parts.last_mut(), element) {
        (Some(PromptPart::Tokens(tokens)), Element::Token(token)) => tokens.push(token),
        (_, Element::Token(token)) => parts.push(PromptPart::Tokens(vec![token])),
        (_, Element::Text(text)) => parts.push(PromptPart::Text(text)),
        (_, Element::List(list)) => parts.extend(list),
    }
}

impl<'de> Deserialize<'de> for PromptInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InputVisitor;

        impl<'de> Visitor<'de> for InputVisitor {
            type Value = PromptInput;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or an array of strings, of token ids or of arrays of these")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PromptInput, E> {
                Ok(PromptInput::One(vec![PromptPart::Text(text.to_owned())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<PromptInput, A::Error> {
                let mut parts = Vec::new();
                let mut prompts = Vec::new();
                while let Some(element) = seq.next_element_seed(MayNest(true))? {
                    let is_list = matches!(element, Element::List(_));
                    let has_token = |part: &PromptPart| matches!(part, PromptPart::Tokens(_));
                    match element {
                        // The texts so far are prompts of their own.
                        Element::List(list) if !parts.iter().any(has_token) => {
                            prompts.extend(parts.drain(..).map(|part| vec![part]));
                            prompts.push(list);
                        }
                        Element::Text(text) if !prompts.is_empty() => {
                            prompts.push(vec![PromptPart::Text(text)]);
                        }
                        element if prompts.is_empty() && !is_list => push(&mut parts, element),
                        _ => {
                            return Err(A::Error::custom(
                                "token ids beside arrays: those of a prompt stand in its own array",
                            ));
                        }
                    }
                }
                let is_text = |part: &PromptPart| matches!(part, PromptPart::Text(_));
                if prompts.is_empty() && parts.iter().all(is_text) {
                    prompts.extend(parts.drain(..).map(|part| vec![part]));
                }
                Ok(match parts.is_empty() {
                    true => PromptInput::Several(prompts),
                    false => PromptInput::One(parts),
                })
            }
        }

        deserializer.deserialize_any(InputVisitor)
    }
}

/// The schema of `prompt`.
pub(super) fn schema() -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let token = || {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(0))
    };
    let part = || OneOfBuilder::new().item(text()).item(token());
    let one = || ArrayBuilder::new().items(part());
    OneOfBuilder::new()
        .item(text())
        .item(one())
        .item(ArrayBuilder::new().items(OneOfBuilder::new().item(text()).item(one())))
        .description(Some(
            "A text; ids of tokens, with texts among them; or an array of such. An array of nothing but texts \
             is several prompts.",
        ))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(text: &str) -> PromptPart {
        PromptPart::Text(text.to_owned())
    }

    #[test]
    fn a_prompt_is_read_in_every_form() {
        use PromptInput::{One, Several};
        let tokens = |ids: &[i32]| PromptPart::Tokens(ids.to_vec());
        for (written, read) in [
            (json!("a"), One(vec![text("a")])),
            (json!([1, 2.0, 3]), One(vec![tokens(&[1, 2, 3])])),
            (
                json!([1, "a", 2, 3]),
                One(vec![tokens(&[1]), text("a"), tokens(&[2, 3])]),
            ),
            (json!(["a", 1]), One(vec![text("a"), tokens(&[1])])),
            (
                json!(["a", "b"]),
                Several(vec![vec![text("a")], vec![text("b")]]),
            ),
            (json!(["a"]), Several(vec![vec![text("a")]])),
            (
                json!(["a", [1, "b"], "c"]),
                Several(vec![
                    vec![text("a")],
                    vec![tokens(&[1]), text("b")],
                    vec![text("c")],
                ]),
            ),
            (json!([[], [7]]), Several(vec![vec![], vec![tokens(&[7])]])),
            (json!([]), Several(vec![])),
        ] {
            let input: PromptInput = serde_json::from_value(written.clone()).expect("a prompt");
            assert_eq!(input, read, "{written}");
        }
        for wrong in [
            json!([1, ["a"]]),
            json!([["a"], 1]),
            json!([[["a"]]]),
            json!([-1]),
            json!([1.5]),
            json!([3_000_000_000_u64]),
            json!([null]),
            json!({"prompt_string": "a"}),
            json!(7),
        ] {
            let read = serde_json::from_value::<PromptInput>(wrong.clone());
            assert!(read.is_err(), "{wrong}: {read:?}");
        }
    }
}
