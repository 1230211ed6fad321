//! The items that a request brings, each read by its kind and made into what is kept. Items of kinds that are not
//! known are left out and told.

mod bodies;
mod schemas;

pub(super) use bodies::Texts;
pub(crate) use bodies::{
    InputCall, InputCompaction, InputMessage, InputPart, InputReasoning, InputReference,
    InputResult,
};
pub(super) use schemas::input_schema;

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::reasoning::{COMPACTION, THOUGHT, opened};
use crate::auth::SealingKey;
use crate::conversation::{Role, ToolCall};
use crate::http::dialects::kept_items::{Item, Said};
use crate::http::dialects::named_items::NamedItems;
use crate::http::request::body::{Object, TextOrList};
use crate::http::request::error::{RequestError, quote};
use crate::http::request::free_form::{Outline, fields_within};
use crate::http::request::id;
use crate::http::request::nul::refuse_nul;
use crate::http::response::notices;
use crate::models::InstalledModel;
use bodies::Kind;

/// How a thought or a conversation that is not the daemon's own is told.
const NOT_OPENED: &str = "input[].encrypted_content";
/// How it is told that of a thought there is no more than a summary.
const SUMMARY: &str = "input[].summary";

/// Checked items.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub items: Vec<Arc<Item>>,
    /// Where each of them stood in what the client sent.
    pub places: Vec<usize>,
    /// What is not known of it.
    pub unread: Vec<String>,
    /// Bytes of items that are only named, as often as they are.
    pub referenced_bytes: usize,
}

/// Checks what a request brings; `look_up` gives the items that it may name. `Err` names the item, the part and the
/// field.
pub(super) fn read(
    input: Texts,
    model: &InstalledModel,
    sealing: &SealingKey,
    look_up: &dyn Fn() -> NamedItems,
) -> Result<Input, RequestError> {
    let mut reading = Reading {
        model,
        sealing,
        look_up,
        kept: None,
        input: Input::default(),
    };
    match input {
        TextOrList::Text(text) => {
            refuse_nul(&text, || "input".to_owned())?;
            reading.add(
                0,
                (None, "msg"),
                Said::Message {
                    role: Role::User,
                    parts: vec![text],
                },
            );
        }
        TextOrList::List(items) => {
            for (at, item) in items.iter().enumerate() {
                reading.item(at, item)?;
            }
        }
    }
    Ok(reading.input)
}

struct Reading<'m> {
    model: &'m InstalledModel,
    sealing: &'m SealingKey,
    look_up: &'m dyn Fn() -> NamedItems,
    /// Looked up when the first is named.
    kept: Option<NamedItems>,
    input: Input,
}

impl Reading<'_> {
    fn add(&mut self, at: usize, (id, kind): (Option<String>, &str), said: Said) {
        let id = id.filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| id::for_item(kind));
        self.input.items.push(Arc::new(Item { id, said }));
        self.input.places.push(at);
    }

    fn is_unread(&mut self, name: &str) {
        notices::tell_unread(&mut self.input.unread, name);
    }

    fn item(&mut self, at: usize, item: &RawValue) -> Result<(), RequestError> {
        let field = format!("input[{at}]");
        let Kind { r#type, role, id } = fields_within(item, &field)?;
        let kind = match (r#type, role, id) {
            (Some(kind), ..) => kind,
            (None, Some(_), _) => "message".to_owned(),
            (None, None, Some(_)) => "item_reference".to_owned(),
            (None, None, None) => return Err(RequestError::missing(format!("{field}.type"))),
        };
        match kind.as_str() {
            "message" => self.message(at, fields_within(item, &field)?, &field),
            "function_call" => {
                let InputCall {
                    id,
                    call_id,
                    name,
                    arguments,
                    ..
                } = fields_within(item, &field)?;
                let arguments = arguments.unwrap_or_default();
                refuse_nul(&arguments, || format!("{field}.arguments"))?;
                let call = ToolCall {
                    id: some(call_id, &field, "call_id")?,
                    name: some(name, &field, "name")?,
                    arguments: match arguments.trim().is_empty() {
                        true => "{}".to_owned(),
                        false => arguments,
                    },
                };
                self.add(at, (id, "fc"), Said::Call(call));
                Ok(())
            }
            "function_call_output" => {
                let InputResult {
                    id,
                    call_id,
                    output,
                    ..
                } = fields_within(item, &field)?;
                let call_id = some(call_id, &field, "call_id")?;
                let field = format!("{field}.output");
                let output = output.ok_or_else(|| RequestError::missing(&*field))?;
                let parts = self.texts(output, &field)?;
                self.add(at, (id, "fco"), Said::Result { call_id, parts });
                Ok(())
            }
            "reasoning" => self.reasoning(at, fields_within(item, &field)?, &field),
            "item_reference" => {
                let InputReference { id, .. } = fields_within(item, &field)?;
                let id = some(id, &field, "id")?;
                let kept = self.kept.get_or_insert_with(self.look_up);
                let found = kept.find(&id).ok_or_else(|| {
                    RequestError::out_of_range(
                        format!("{field}.id"),
                        "must be of an item of a response that is kept: send the item itself",
                    )
                })?;
                self.input.referenced_bytes += found.bytes();
                self.input.items.push(found);
                self.input.places.push(at);
                Ok(())
            }
            "compaction" => self.compaction(at, fields_within(item, &field)?),
            other => {
                self.is_unread(&format!("input[].{other}"));
                Ok(())
            }
        }
    }

    fn message(
        &mut self,
        at: usize,
        message: InputMessage,
        field: &str,
    ) -> Result<(), RequestError> {
        let at_role = || format!("{field}.role");
        let role = match message.role.as_deref() {
            None => return Err(RequestError::missing(at_role())),
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("system") => Role::System,
            Some("developer") => Role::Developer,
            Some(role) => {
                return Err(RequestError::out_of_range(
                    at_role(),
                    format!(
                        "must be `user`, `assistant`, `system` or `developer`, not `{}`",
                        quote(role)
                    ),
                ));
            }
        };
        let field = format!("{field}.content");
        let content = message.content;
        let content = content.ok_or_else(|| RequestError::missing(&*field))?;
        let parts = self.texts(content, &field)?;
        self.add(at, (message.id, "msg"), Said::Message { role, parts });
        Ok(())
    }

    fn reasoning(
        &mut self,
        at: usize,
        item: InputReasoning,
        field: &str,
    ) -> Result<(), RequestError> {
        let mut text = String::new();
        for (place, Object(part)) in item.content.into_iter().flatten().enumerate() {
            let part = part.text.unwrap_or_default();
            refuse_nul(&part, || format!("{field}.content[{place}].text"))?;
            text.push_str(&part);
        }
        if let Some(blob) = item.encrypted_content.filter(|blob| !blob.is_empty()) {
            match opened(THOUGHT, &blob, self.sealing) {
                // What the client shows goes first: it is the same, or the client wants it otherwise.
                Some(kept) if text.is_empty() => {
                    refuse_nul(&kept, || format!("{field}.encrypted_content"))?;
                    text = kept;
                }
                Some(_) => {}
                None => self.is_unread(NOT_OPENED),
            }
        }
        let summary = item.summary.map(|Outline(summary)| summary);
        if !text.is_empty() {
            self.add(at, (item.id, "rs"), Said::Reasoning { text });
        } else if summary.is_some_and(|summary| summary != Value::Array(Vec::new())) {
            self.is_unread(SUMMARY);
        }
        Ok(())
    }

    /// The items that it stands for, read as if they had been sent.
    fn compaction(&mut self, at: usize, item: InputCompaction) -> Result<(), RequestError> {
        let blob = item.encrypted_content.unwrap_or_default();
        let listed = opened(COMPACTION, &blob, self.sealing);
        let items =
            listed.and_then(|listed| serde_json::from_str::<Vec<Box<RawValue>>>(&listed).ok());
        match items {
            Some(items) => items.iter().try_for_each(|item| self.item(at, item)),
            None => {
                self.is_unread(NOT_OPENED);
                Ok(())
            }
        }
    }

    /// Texts that say something.
    fn texts(&mut self, content: Texts, field: &str) -> Result<Vec<String>, RequestError> {
        let parts = match content {
            TextOrList::Text(text) => {
                refuse_nul(&text, || field.to_owned())?;
                return Ok(vec![text]);
            }
            TextOrList::List(parts) => parts,
        };
        let mut texts = Vec::with_capacity(parts.len());
        for (place, part) in parts.iter().enumerate() {
            let field = format!("{field}[{place}]");
            let Kind { r#type, .. } = fields_within(part, &field)?;
            let kind = r#type.ok_or_else(|| RequestError::missing(format!("{field}.type")))?;
            let name = match kind.as_str() {
                "input_text" | "output_text" | "text" => "text",
                "refusal" => "refusal",
                "input_image" | "input_file" | "input_audio" => {
                    let what = kind.trim_start_matches("input_");
                    let problem = format!("\"{}\" does not support {what}s", self.model.id);
                    return Err(RequestError::unsupported(format!("{field}.type"), problem));
                }
                other => {
                    self.is_unread(&format!("content[].{other}"));
                    continue;
                }
            };
            let part: InputPart = fields_within(part, &field)?;
            let text = match name {
                "refusal" => part.refusal,
                _ => part.text,
            };
            let field = format!("{field}.{name}");
            let text = text.ok_or_else(|| RequestError::missing(&*field))?;
            refuse_nul(&text, || field.clone())?;
            if !text.is_empty() {
                texts.push(text);
            }
        }
        // A result has a text, be it an empty one.
        if texts.is_empty() {
            texts.push(String::new());
        }
        Ok(texts)
    }
}

fn some(text: Option<String>, field: &str, name: &str) -> Result<String, RequestError> {
    let field = || format!("{field}.{name}");
    let text = text.filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| RequestError::missing(field()))?;
    refuse_nul(&text, field)?;
    Ok(text)
}
