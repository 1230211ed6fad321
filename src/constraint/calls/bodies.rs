//! What stands between the markers of a call: the name of a function, and arguments of its schema, as the
//! model's format writes them.

use serde_json::{Value, json};

use super::key_values::{KeyValues, listed};
use super::lark::{GAP, Lark, any_of, literal};
use super::members::members;
use super::texts;
use super::{HowMany, Prepared};
use crate::constraint::schema::Fault;
use crate::reply::{CallBody, Calls, IdPlace, JsonKeys, Marker, NameThenJson, Parameters};

pub struct Bodies<'b> {
    calls: &'b Calls,
    tools: &'b [Prepared],
    several: bool,
    /// The model calls as it likes, in all forms that are read.
    is_free: bool,
    /// One call of any of the functions, once it is written.
    call: Option<String>,
    /// What of the schemas is not kept.
    pub faults: Vec<Fault>,
}

impl<'b> Bodies<'b> {
    pub fn new(calls: &'b Calls, tools: &'b [Prepared], how_many: HowMany) -> Self {
        Self {
            calls,
            tools,
            several: how_many.several(),
            is_free: how_many.is_as_liked(),
            call: None,
            faults: Vec::new(),
        }
    }

    /// What may stand between an opener and this: nothing where a line's end would end the name.
    pub fn gap(&self) -> &'static str {
        match &self.calls.body {
            CallBody::Parameters(body) if body.before_name.is_none() => "",
            _ => GAP,
        }
    }

    /// One call or, where the format has lists of them, several. `opened`: a bracket was written.
    pub fn between(&mut self, lark: &mut Lark<'_>, opened: &str) -> String {
        let call = self.call(lark);
        let white = lark.white();
        let more = match self.several {
            true => format!("({white} \",\" {white} {call})*"),
            false => String::new(),
        };
        match &self.calls.body {
            CallBody::Json(_) if opened.is_empty() => lark.rule(&format!(
                "{call} | \"[\" {white} {call} {more} {white} \"]\""
            )),
            CallBody::Json(_) | CallBody::Python if !opened.is_empty() => {
                format!("{call} {more} {white} \"]\"")
            }
            CallBody::Python => format!("\"[\" {call} {more} \"]\""),
            _ => call,
        }
    }

    /// A call in JSON as the whole answer.
    pub fn bare(&mut self, lark: &mut Lark<'_>, keys: &JsonKeys) -> String {
        let calls = self.tools.iter().map(|tool| json_call(lark, keys, tool));
        let calls: Vec<String> = calls.collect();
        lark.rule(&any_of(&calls))
    }

    fn call(&mut self, lark: &mut Lark<'_>) -> String {
        if let Some(call) = &self.call {
            return call.clone();
        }
        let tools = self.tools;
        let mut rules = Vec::with_capacity(tools.len());
        for tool in tools {
            let mut faults = Vec::new();
            let body = match &self.calls.body {
                CallBody::Json(keys) => json_call(lark, keys, tool),
                CallBody::NameThenJson(body) => name_then_json(lark, body, tool),
                CallBody::Parameters(body) => self.parameters(lark, body, tool, &mut faults),
                CallBody::KeyValues { before_name, quote } => {
                    let mut values = KeyValues::new(&tool.schema, quote);
                    let object = values.object(&tool.schema, "", lark);
                    faults = values.faults;
                    let name = literal(&format!("{before_name}{}", tool.name));
                    format!("{name} {object}")
                }
                CallBody::Python => python(lark, tool, &mut faults),
            };
            self.faults.append(&mut faults);
            rules.push(lark.rule(&body));
            if self.calls.also_python && self.is_free {
                let mut untold = Vec::new();
                let body = python(lark, tool, &mut untold);
                rules.push(lark.rule(&body));
            }
        }
        let all = any_of(&rules);
        let call = lark.rule(&all);
        self.call = Some(call.clone());
        call
    }

    fn parameters(
        &self,
        lark: &mut Lark<'_>,
        body: &Parameters,
        tool: &Prepared,
        faults: &mut Vec<Fault>,
    ) -> String {
        let before = body.before_name.as_ref().map(|marker| lark.marker(marker));
        let mut parts = vec![before.unwrap_or_default(), literal(&tool.name)];
        parts.push(lark.marker(&body.after_name));
        let texts = self.texts_that_end(body);
        for member in members(&tool.schema, "", &tool.schema, faults) {
            let key = &body.after_key;
            if member.name.trim() != member.name
                || member.name.is_empty()
                || (key.id.is_none() && member.name.contains(&key.text))
            {
                let reason = "its name cannot be written in the model's form of calls";
                faults.push(Fault::new(&member.at, reason));
                continue;
            }
            let begins = [
                lark.marker(&body.before_key),
                literal(member.name),
                lark.marker(key),
            ];
            let before = body.before_value.as_ref().map(|marker| lark.marker(marker));
            let before = before.map_or(String::new(), |before| format!("{GAP} {before}"));
            let lead = &body.after_value.lead;
            // Where a line's end stands before what ends a value, one stands behind what begins it.
            let line = if lead.starts_with('\n') {
                "\"\\n\""
            } else {
                ""
            };
            let value = match tool.types.is_text(&tool.name, member.name) {
                true => {
                    let text = texts::text(member.schema, &member.at, &tool.schema, faults);
                    ends_text(lark, &body.after_value, &text, &texts)
                }
                false => {
                    let value = alone(member.schema, &tool.schema, &body.after_value);
                    let value = lark.json(&value);
                    let lead = if lead.is_empty() {
                        String::new()
                    } else {
                        literal(lead)
                    };
                    format!("{value} {lead} {}", lark.marker(&body.after_value))
                }
            };
            let item = format!("{GAP} {} {before} {line} {value}", begins.join(" "));
            parts.push(match member.is_required {
                true => item,
                false => format!("({item})?"),
            });
        }
        if let Some(after) = &body.after_arguments {
            parts.push(format!("{GAP} {}", lark.marker(after)));
        }
        parts.join(" ")
    }

    /// Texts that a bare value cannot hold, since its reader would take them for its end.
    fn texts_that_end(&self, body: &Parameters) -> Vec<String> {
        let arounds = self.calls.section.iter().chain(&self.calls.call);
        let around = arounds.flat_map(|around| [Some(&around.open), around.close.as_ref()]);
        let own = [
            Some(&body.after_value),
            body.after_arguments.as_ref(),
            body.before_name.as_ref(),
        ];
        let all = around.chain(own).flatten();
        let texts = all.filter(|marker| marker.id.is_none());
        let texts = texts.map(|marker| marker.text.trim().to_owned());
        let data = body.has_cdata.then(|| "<![CDATA[".to_owned());
        let mut texts: Vec<String> = texts.filter(|text| !text.is_empty()).chain(data).collect();
        texts.sort_unstable();
        texts.dedup();
        texts
    }
}

fn ends_text(lark: &mut Lark<'_>, end: &Marker, text: &texts::Text, texts: &[String]) -> String {
    let Some(id) = end.id else {
        return lark.text_until(&text.without(texts), &format!("{}{}", end.lead, end.text));
    };
    let without = text.without(texts);
    // White space before the token is not the value's.
    let ends = match end.lead.is_empty() {
        true => String::new(),
        false => format!(" & ~(/(?s:.*)/ {})", literal(&end.lead)),
    };
    let body = lark.terminal(&format!("{without} & /(?s:.+)/{ends}"));
    let is_optional = if text.may_be_empty { "?" } else { "" };
    format!("{body}{is_optional} {}", lark.token(id))
}

/// A part of a schema with what it may refer to. Its texts do not hold what ends the value they are in.
fn alone(part: &Value, whole: &Value, end: &Marker) -> Value {
    let mut part = part.clone();
    let first = end.text.chars().next().filter(|_| end.id.is_none());
    if let (Value::Object(keywords), Value::Object(whole)) = (&mut part, whole) {
        for definitions in ["$defs", "definitions"] {
            if let Some(value) = whole.get(definitions) {
                keywords.insert(definitions.to_owned(), value.clone());
            }
        }
    }
    if let Some(first) = first {
        without_character(&mut part, first);
    }
    part
}

fn without_character(schema: &mut Value, c: char) {
    match schema {
        Value::Object(keywords) => {
            let is_text = keywords.get("type").is_some_and(|kind| {
                kind == "string"
                    || kind
                        .as_array()
                        .is_some_and(|kinds| kinds.contains(&json!("string")))
            });
            let is_free = ["pattern", "format", "enum", "const"]
                .iter()
                .all(|keyword| !keywords.contains_key(*keyword));
            for (keyword, value) in keywords.iter_mut() {
                if !["enum", "const", "required", "type"].contains(&keyword.as_str()) {
                    without_character(value, c);
                }
            }
            if is_text && is_free {
                let is_mark = matches!(c, '[' | ']' | '\\' | '^' | '-');
                let pattern = format!("^[^{}{c}]*$", if is_mark { "\\" } else { "" });
                keywords.insert("pattern".to_owned(), json!(pattern));
            }
        }
        Value::Array(parts) => parts.iter_mut().for_each(|part| without_character(part, c)),
        _ => {}
    }
}

fn json_call(lark: &mut Lark<'_>, keys: &JsonKeys, tool: &Prepared) -> String {
    let arguments = lark.json(&tool.schema);
    let quoted = |text: &str| literal(&Value::from(text).to_string());
    let w = lark.white();
    let (open, close) = (literal("{"), literal("}"));
    let name = quoted(&tool.name);
    if keys.name.is_empty() {
        return format!("{open} {w} {name} {w} \":\" {w} {arguments} {w} {close}");
    }
    let id = keys.id.as_ref().map_or(String::new(), |id| {
        let value = lark.terminal("/\"[a-zA-Z0-9]{9}\"/");
        format!("({w} \",\" {w} {} {w} \":\" {w} {value})?", quoted(id))
    });
    let (key, of_arguments) = (quoted(&keys.name), quoted(&keys.arguments));
    format!(
        "{open} {w} {key} {w} \":\" {w} {name} {w} \",\" {w} {of_arguments} {w} \":\" {w} {arguments} {id} {w} {close}"
    )
}

fn name_then_json(lark: &mut Lark<'_>, body: &NameThenJson, tool: &Prepared) -> String {
    let mut parts = Vec::new();
    if let Some(before) = &body.before_name {
        let is_id = body.id == Some(IdPlace::BeforeName);
        let begins_word = |c: char| c.is_ascii_lowercase() || c == '_';
        let own = before.id.is_none() && before.text.starts_with('<') && !is_id;
        if is_id {
            parts.push(lark.terminal("/[A-Za-z0-9_.-]{1,40}/"));
        } else if before.id.is_some()
            || !(before.text.starts_with(begins_word) || is_tag(before, own))
        {
            // What kind of call it is, which is `function`.
            parts.push(format!("{}?", lark.terminal("/[a-z_]{1,32}/")));
        }
        parts.push(lark.marker(before));
    }
    if body.id == Some(IdPlace::AroundName) {
        parts.push(literal(&format!("functions.{}:", tool.name)));
        parts.push(lark.terminal("/[0-9]{1,4}/"));
    } else {
        parts.push(literal(&tool.name));
    }
    if let Some(IdPlace::Behind(marker)) = &body.id {
        let id = lark.terminal("/[a-zA-Z0-9]{9}/");
        parts.push(format!("({} {id})?", lark.marker(marker)));
    }
    let before = &body.before_arguments;
    if before.text.is_empty() {
        parts.push(GAP.to_owned());
    } else {
        if !before.lead.is_empty() {
            parts.push(literal(&before.lead));
        }
        parts.push(lark.marker(before));
        parts.push(GAP.to_owned());
    }
    parts.push(lark.json(&tool.schema));
    if let Some(after) = &body.after_arguments {
        parts.push(format!("{GAP} {}", lark.marker(after)));
    }
    parts.join(" ")
}

/// A text such as `<function=`, in front of which nothing stands.
fn is_tag(marker: &Marker, own: bool) -> bool {
    own && marker.text.ends_with('=')
}

fn python(lark: &mut Lark<'_>, tool: &Prepared, faults: &mut Vec<Fault>) -> String {
    let mut arguments = Vec::new();
    for member in members(&tool.schema, "", &tool.schema, faults) {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let begins = member
            .name
            .starts_with(|c: char| c.is_alphabetic() || c == '_');
        if !begins || !member.name.chars().all(is_word) {
            let reason = "its name cannot be written in the model's form of calls";
            faults.push(Fault::new(&member.at, reason));
            continue;
        }
        let value = match member.schema.get("type") {
            Some(kind) if kind == "boolean" && member.schema.get("enum").is_none() => {
                "(\"True\" | \"False\")".to_owned()
            }
            _ => lark.json(&alone(member.schema, &tool.schema, &Marker::default())),
        };
        let key = literal(&format!("{}=", member.name));
        arguments.push((format!("{key} {value}"), member.is_required));
    }
    let separator = format!("\",\" {}", lark.white());
    let arguments = listed(&arguments, &separator, lark);
    format!("{} {arguments} \")\"", literal(&format!("{}(", tool.name)))
}
