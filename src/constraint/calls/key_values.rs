//! `{key:<quote>text<quote>,other:[1,true]}`: values whose keys stand bare and whose texts stand in quotes
//! of the model's own.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::lark::{Lark, any_of, literal};
use super::members::{members, referred};
use super::texts::{self, Text};
use crate::constraint::schema::{Fault, pointer};
use crate::reply::Marker;

pub struct KeyValues<'s> {
    root: &'s Value,
    quote: &'s Marker,
    pub faults: Vec<Fault>,
    /// Rules of what `$ref` names.
    referred: HashMap<String, String>,
    any: Option<String>,
}

/// Characters that a bare key may not hold.
fn is_key(name: &str) -> bool {
    let is_mark = |c: char| matches!(c, '{' | '}' | '[' | ']' | ',' | ':' | '<' | '"' | '\'');
    !name.is_empty() && name.trim() == name && !name.contains(is_mark)
}

impl<'s> KeyValues<'s> {
    pub fn new(root: &'s Value, quote: &'s Marker) -> Self {
        Self {
            root,
            quote,
            faults: Vec::new(),
            referred: HashMap::new(),
            any: None,
        }
    }

    /// The members of an object, with its braces.
    pub fn object(&mut self, schema: &'s Value, at: &str, lark: &mut Lark<'_>) -> String {
        let members = members(schema, at, self.root, &mut self.faults);
        let mut parts = Vec::new();
        for member in members {
            if !is_key(member.name) {
                let reason = "its name cannot be written in the model's form of calls";
                self.faults.push(Fault::new(&member.at, reason));
                continue;
            }
            let value = self.value(member.schema, &member.at, lark);
            let key = literal(&format!("{}:", member.name));
            parts.push((format!("{key} {value}"), member.is_required));
        }
        let inside = listed(&parts, &literal(","), lark);
        format!("{} {inside} {}", literal("{"), literal("}"))
    }

    fn value(&mut self, schema: &'s Value, at: &str, lark: &mut Lark<'_>) -> String {
        let Value::Object(keywords) = schema else {
            return self.any(lark);
        };
        if let Some(to) = keywords.get("$ref") {
            return self.reference(to, at, lark);
        }
        if let Some(values) = keywords.get("enum").and_then(Value::as_array) {
            let values: Vec<_> = values
                .iter()
                .map(|value| self.constant(value, lark))
                .collect();
            return any_of(&values);
        }
        if let Some(value) = keywords.get("const") {
            return self.constant(value, lark);
        }
        for combines in ["anyOf", "oneOf"] {
            if let Some(Value::Array(parts)) = keywords.get(combines) {
                return self.one_of(parts, &pointer(at, combines), lark);
            }
        }
        if keywords.contains_key("allOf") {
            self.not_kept(at, "allOf");
        }
        match keywords.get("type") {
            Some(Value::Array(kinds)) => {
                let kinds = kinds.iter().filter_map(Value::as_str);
                let kinds: Vec<_> = kinds
                    .map(|kind| self.of_kind(kind, schema, at, lark))
                    .collect();
                any_of(&kinds)
            }
            Some(kind) => self.of_kind(kind.as_str().unwrap_or_default(), schema, at, lark),
            None if keywords.contains_key("properties") => self.of_kind("object", schema, at, lark),
            None if keywords.contains_key("items") => self.of_kind("array", schema, at, lark),
            None => self.any(lark),
        }
    }

    fn not_kept(&mut self, at: &str, keyword: &str) {
        let reason = "cannot be kept in the model's form of calls";
        self.faults.push(Fault::new(&pointer(at, keyword), reason));
    }

    fn reference(&mut self, to: &'s Value, at: &str, lark: &mut Lark<'_>) -> String {
        let place = to.as_str().unwrap_or_default();
        if let Some(rule) = self.referred.get(place) {
            return rule.clone();
        }
        let Some(part) = referred(self.root, to) else {
            self.not_kept(at, "$ref");
            return self.any(lark);
        };
        let rule = lark.later();
        self.referred.insert(place.to_owned(), rule.clone());
        let body = self.value(part, place.trim_start_matches('#'), lark);
        lark.define(&rule, &body);
        rule
    }

    fn one_of(&mut self, parts: &'s [Value], at: &str, lark: &mut Lark<'_>) -> String {
        let parts = parts.iter().enumerate();
        let parts: Vec<_> = parts
            .map(|(index, part)| self.value(part, &pointer(at, &index.to_string()), lark))
            .collect();
        any_of(&parts)
    }

    fn of_kind(&mut self, kind: &str, schema: &'s Value, at: &str, lark: &mut Lark<'_>) -> String {
        match kind {
            "string" => {
                let text = texts::text(schema, at, self.root, &mut self.faults);
                self.text(&text, lark)
            }
            "integer" | "number" => {
                let bounds = schema.as_object().into_iter().flatten();
                let bounds = bounds.filter(|(keyword, _)| {
                    let keyword = keyword.as_str();
                    keyword == "multipleOf"
                        || keyword.contains("inimum")
                        || keyword.contains("aximum")
                });
                let mut number: Map<String, Value> = bounds
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                number.insert("type".to_owned(), json!(kind));
                lark.json(&Value::Object(number))
            }
            "boolean" => "(\"true\" | \"false\")".to_owned(),
            "null" => literal("null"),
            "array" => self.list(schema, at, lark),
            "object" => {
                let object = self.object(schema, at, lark);
                lark.rule(&object)
            }
            _ => {
                self.not_kept(at, "type");
                self.any(lark)
            }
        }
    }

    fn list(&mut self, schema: &'s Value, at: &str, lark: &mut Lark<'_>) -> String {
        if schema.get("prefixItems").is_some() {
            self.not_kept(at, "prefixItems");
        }
        let number = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
        let (least, most) = (number("minItems").unwrap_or(0), number("maxItems"));
        let is_empty = most == Some(0) || schema.get("items") == Some(&Value::Bool(false));
        let inside = if is_empty {
            String::new()
        } else {
            let any = &Value::Bool(true);
            let item = schema.get("items").unwrap_or(any);
            let item = self.value(item, &pointer(at, "items"), lark);
            let item = lark.rule(&item);
            let (more, most) = (least.saturating_sub(1), most.map(|most| most - 1));
            let most = most.map_or(String::new(), |most| most.to_string());
            let items = format!("{item} (\",\" {item}){{{more},{most}}}");
            match least {
                0 => format!("({items})?"),
                _ => items,
            }
        };
        lark.rule(&format!("\"[\" {inside} \"]\""))
    }

    /// In quotes.
    fn text(&mut self, text: &Text, lark: &mut Lark<'_>) -> String {
        let quote = lark.marker(self.quote);
        match self.quote.id {
            None => {
                let without = text.without(std::slice::from_ref(&self.quote.text));
                let text = lark.text_until(&without, &self.quote.text);
                format!("{quote} {text}")
            }
            Some(_) => {
                let body = lark.terminal(&format!("({}) & /(?s:.+)/", text.expression));
                let is_optional = if text.may_be_empty { "?" } else { "" };
                format!("{quote} {body}{is_optional} {quote}")
            }
        }
    }

    fn constant(&mut self, value: &Value, lark: &mut Lark<'_>) -> String {
        match value {
            Value::String(text) if text.is_empty() => {
                let quote = lark.marker(self.quote);
                format!("{quote} {quote}")
            }
            Value::String(text) => {
                let quote = lark.marker(self.quote);
                format!("{quote} {} {quote}", literal(text))
            }
            Value::Array(values) => {
                let values: Vec<_> = values
                    .iter()
                    .map(|value| self.constant(value, lark))
                    .collect();
                format!("\"[\" {} \"]\"", values.join(" \",\" "))
            }
            Value::Object(members) => {
                let members = members.iter().map(|(name, value)| {
                    let value = self.constant(value, lark);
                    format!("{} {value}", literal(&format!("{name}:")))
                });
                let members: Vec<_> = members.collect();
                format!(
                    "{} {} {}",
                    literal("{"),
                    members.join(" \",\" "),
                    literal("}")
                )
            }
            scalar => literal(&scalar.to_string()),
        }
    }

    /// Any value. Of objects that nothing names the members of there are those with one at most, so none
    /// has a key twice.
    fn any(&mut self, lark: &mut Lark<'_>) -> String {
        if let Some(any) = &self.any {
            return any.clone();
        }
        let any = lark.later();
        self.any = Some(any.clone());
        let text = Text {
            expression: "/(?s:.*)/".to_owned(),
            may_be_empty: true,
        };
        let text = self.text(&text, lark);
        let text = lark.rule(&text);
        let number = lark.json(&json!({"type": "number"}));
        let key = lark.terminal("/[A-Za-z_][A-Za-z0-9_]{0,40}/");
        let list = format!("\"[\" ({any} (\",\" {any})*)? \"]\"");
        let object = format!("{} ({key} \":\" {any})? {}", literal("{"), literal("}"));
        let body =
            format!("{text} | {number} | \"true\" | \"false\" | \"null\" | {list} | {object}");
        lark.define(&any, &body);
        any
    }
}

/// Parts in their order with a separator between those that are there; whether each must be.
pub fn listed(parts: &[(String, bool)], separator: &str, lark: &mut Lark<'_>) -> String {
    // What follows where nothing was said yet, and where something was.
    let (mut first, mut next) = (String::from("\"\""), String::from("\"\""));
    for (part, is_required) in parts.iter().rev() {
        let part = lark.rule(part);
        let (begins, goes_on) = (
            format!("{part} {next}"),
            format!("{separator} {part} {next}"),
        );
        let (begins, goes_on) = match is_required {
            true => (begins, goes_on),
            false => (format!("{begins} | {first}"), format!("{goes_on} | {next}")),
        };
        first = lark.rule(&begins);
        next = lark.rule(&goes_on);
    }
    first
}
