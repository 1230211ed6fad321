//! What a checkpoint itself says of its replies: `response_template` in tokenizer_config.json, version 1,
//! as transformers reads it.
//!
//! Taken is what this parser can read as it streams: thoughts and calls between markers that are texts,
//! calls in JSON. Of what is said by patterns or in other forms, the next source tells.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::format::{Around, CallBody, Calls, JsonKeys, Marker, Reasoning};

/// What it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseTemplate {
    pub reasoning: Option<Reasoning>,
    pub calls: Option<Calls>,
    /// Fields that are said in a way that is not read, and which way that is.
    pub unread: Vec<String>,
}

const VERSION: u32 = 1;
const THOUGHTS: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];
const CALLS: &str = "tool_calls";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default = "first_version")]
    version: u32,
    #[serde(default, rename = "defaults")]
    _defaults: Option<IgnoredAny>,
    fields: BTreeMap<String, Field>,
    #[serde(default, rename = "start_anchor")]
    _start_anchor: Option<IgnoredAny>,
    #[serde(default, rename = "start_anchor_pattern")]
    _start_anchor_pattern: Option<IgnoredAny>,
}

fn first_version() -> u32 {
    VERSION
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    open: Option<Texts>,
    open_pattern: Option<String>,
    close: Option<Texts>,
    close_pattern: Option<String>,
    content: Option<String>,
    #[serde(default)]
    content_args: serde_json::Map<String, Value>,
    transform: Option<Value>,
    #[serde(default)]
    transform_each: bool,
    #[serde(default, rename = "repeats")]
    _repeats: bool,
    #[serde(default, rename = "join")]
    _join: Option<String>,
    #[serde(default, rename = "optional")]
    _optional: Option<bool>,
}

/// One text, or several of which any will do.
#[derive(Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Several(Vec<String>),
}

impl ResponseTemplate {
    /// Reads the value of the field. `Err`: it is not what the field may be.
    pub fn read(value: &Value) -> Result<Self, String> {
        let written = Written::deserialize(value).map_err(|error| error.to_string())?;
        if written.version != VERSION {
            return Err(format!("its version {} is not known", written.version));
        }
        let mut read = Self::default();
        for name in THOUGHTS {
            if let Some(field) = written.fields.get(name) {
                read.reasoning = read.known(name, field.reasoning()?);
                break;
            }
        }
        if let Some(field) = written.fields.get(CALLS) {
            read.calls = read.known(CALLS, field.calls()?);
        }
        Ok(read)
    }

    fn known<T>(&mut self, name: &str, read: Result<T, Unread>) -> Option<T> {
        read.map_err(|Unread(way)| self.unread.push(format!("{name} ({way})")))
            .ok()
    }
}

/// The way of saying something that is not read.
struct Unread(String);

/// Characters that are told of a kind of content.
const TOLD_CHARS: usize = 24;

impl Field {
    fn reasoning(&self) -> Result<Result<Reasoning, Unread>, String> {
        let markers = (first(&self.open)?, first(&self.close)?);
        if let Some(way) = self.unread_way("text") {
            return Ok(Err(way));
        }
        Ok(match markers {
            (Some(open), Some(close)) => Ok(Reasoning::new(open.text, close)),
            (None, _) => Err(Unread("no open".to_owned())),
            (_, None) => Err(Unread("no close".to_owned())),
        })
    }

    fn calls(&self) -> Result<Result<Calls, Unread>, String> {
        let close = first(&self.close)?;
        let openers = markers(&self.open)?;
        if let Some(way) = self.unread_way("json") {
            return Ok(Err(way));
        }
        let Some(keys) = self.keys() else {
            return Ok(Err(Unread("transform".to_owned())));
        };
        let call = openers.into_iter().map(|open| Around {
            open,
            close: close.clone(),
        });
        let call: Vec<Around> = call.collect();
        Ok(match call.is_empty() {
            true => Err(Unread("no open".to_owned())),
            false => Ok(Calls::new(call, CallBody::Json(keys))),
        })
    }

    /// How it says its markers, or what is between them, where that is neither a text nor `content`.
    fn unread_way(&self, content: &str) -> Option<Unread> {
        let said = self.content.as_deref().unwrap_or("text");
        let way = match () {
            () if self.open_pattern.is_some() => "open_pattern".to_owned(),
            () if self.close_pattern.is_some() => "close_pattern".to_owned(),
            () if said != content => {
                let said: String = said.chars().take(TOLD_CHARS).collect();
                format!("content {said:?}")
            }
            () if !self.content_args.is_empty() => "content_args".to_owned(),
            () => return None,
        };
        Some(Unread(way))
    }

    /// The keys of a call, from what becomes of its JSON; `None`: something else than naming them.
    fn keys(&self) -> Option<JsonKeys> {
        let Some(transform) = &self.transform else {
            return Some(JsonKeys::new("name", "arguments"));
        };
        let key = |value: &Value| {
            let place = value.as_str()?.strip_prefix('{')?.strip_suffix('}')?;
            let key = match self.transform_each {
                true => place,
                false => place.strip_prefix("content.")?,
            };
            (!key.contains('.')).then(|| key.to_owned())
        };
        let function = transform.get("function")?;
        if !self.transform_each && function == "{content}" {
            return Some(JsonKeys::new("name", "arguments"));
        }
        Some(JsonKeys {
            name: key(function.get("name")?)?,
            arguments: key(function.get("arguments")?)?,
            id: transform.get("id").and_then(key),
        })
    }
}

/// The first of the texts, with the white space before it. `Ok(None)`: there is none.
fn first(texts: &Option<Texts>) -> Result<Option<Marker>, String> {
    Ok(markers(texts)?.into_iter().next())
}

fn markers(texts: &Option<Texts>) -> Result<Vec<Marker>, String> {
    let texts = match texts {
        None => &[],
        Some(Texts::One(text)) => std::slice::from_ref(text),
        Some(Texts::Several(texts)) => texts.as_slice(),
    };
    let marker = |text: &String| {
        let marker = text.trim();
        if marker.is_empty() {
            return Err("one of its markers is empty".to_owned());
        }
        let lead = &text[..text.len() - text.trim_start().len()];
        let lead = if lead.is_empty() { "\n" } else { lead };
        Ok(Marker::text(marker).after(lead))
    };
    texts.iter().map(marker).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(fields: Value) -> Result<ResponseTemplate, String> {
        ResponseTemplate::read(&json!({
            "version": 1,
            "defaults": {"role": "assistant"},
            "start_anchor": "<|im_start|>assistant\n",
            "fields": fields,
        }))
    }

    #[test]
    fn thoughts_and_calls_between_texts_are_read() {
        let read = read(json!({
            "content": {"close": "<|im_end|>"},
            "reasoning_content": {"open": "<mull>\n", "close": "\n\n</mull>\n\n"},
            "tool_calls": {"open": ["<do>", "<act>"], "close": "</do>", "content": "json",
                "repeats": true, "transform": {"type": "function",
                    "function": {"name": "{content.which}", "arguments": "{content.how}"}}},
        }));
        let read = read.unwrap();
        let reasoning = read.reasoning.unwrap();
        assert_eq!(reasoning.open, Marker::text("<mull>"));
        assert_eq!(reasoning.close, Marker::text("</mull>").after("\n\n"));
        let calls = read.calls.unwrap();
        let openers: Vec<_> = calls.call.iter().map(|around| &*around.open.text).collect();
        assert_eq!(openers, ["<do>", "<act>"]);
        assert_eq!(calls.body, CallBody::Json(JsonKeys::new("which", "how")));
        assert!(read.unread.is_empty());
    }

    #[test]
    fn keys_come_from_what_becomes_of_a_call() {
        let keys = |more: Value| {
            let mut field = json!({"open": "<do>", "content": "json"});
            field
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            read(json!({"tool_calls": field}))
                .unwrap()
                .calls
                .map(|calls| calls.body)
        };
        let usual = Some(CallBody::Json(JsonKeys::new("name", "arguments")));
        assert_eq!(keys(json!({})), usual);
        let whole = json!({"transform": {"type": "function", "function": "{content}"}});
        assert_eq!(keys(whole), usual);
        let each = json!({"transform_each": true, "transform": {"id": "{no}", "type": "function",
            "function": {"name": "{fn}", "arguments": "{args}"}}});
        let body = CallBody::Json(JsonKeys {
            id: Some("no".to_owned()),
            ..JsonKeys::new("fn", "args")
        });
        assert_eq!(keys(each), Some(body));
        let deeper =
            json!({"transform": {"function": {"name": "{content.a.b}", "arguments": "{content}"}}});
        assert_eq!(keys(deeper), None);
    }

    #[test]
    fn what_is_said_in_patterns_or_other_forms_is_named() {
        let pattern = json!({"open_pattern": "<f=(?P<name>\\w+)>", "close": "</f>", "content": "json",
            "transform": {"function": {"name": "{name}", "arguments": "{content}"}}});
        for (field, way) in [
            (pattern, "open_pattern"),
            (
                json!({"open": "<f>", "content": "kv-lines"}),
                "content \"kv-lines\"",
            ),
            (json!({"open": "<f>", "content": "xml"}), "content \"xml\""),
            (json!({"open": "<f>"}), "content \"text\""),
            (
                json!({"open": "<f>", "content": "json", "content_args": {"unquoted_keys": true}}),
                "content_args",
            ),
            (
                json!({"open": "<f>", "content": "json", "transform": {"function": {"name": "f"}}}),
                "transform",
            ),
            (json!({"close": "</f>", "content": "json"}), "no open"),
        ] {
            let read = read(json!({"tool_calls": field, "thinking": {"close_pattern": "x+"}}));
            let read = read.unwrap();
            assert_eq!((read.calls, read.reasoning), (None, None));
            let calls = format!("tool_calls ({way})");
            assert_eq!(read.unread, ["thinking (close_pattern)".to_owned(), calls]);
        }
    }

    #[test]
    fn what_it_may_not_be_is_an_error() {
        for value in [
            json!("text"),
            json!({"version": 2, "fields": {}}),
            json!({"version": 1, "fields": {}, "unheard": 1}),
            json!({"fields": {"thinking": {"opens": "<a>"}}}),
            json!({"fields": {"thinking": {"open": " ", "close": "</a>"}}}),
            json!({"fields": {"tool_calls": {"open": 1}}}),
        ] {
            assert!(ResponseTemplate::read(&value).is_err(), "{value}");
        }
    }
}
