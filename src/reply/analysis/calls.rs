//! The form of calls.

use serde_json::Value;

use super::parts::Parts;
use super::pieces::{common_tags_at_end, common_tags_at_start, some_marker, tags};
use super::probes::{
    ANSWER, IDS, KEYS, NAMES, Probed, VALUES, Way, after_question, answered, calling,
};
use crate::conversation::ReplyPiece;
use crate::reply::format::{Around, CallBody, Calls, JsonKeys, Marker, ReplyFormat};
use crate::reply::{ReplyOptions, ReplyReader, ReplyToken};

pub(super) fn find(source: &str, probed: &Probed<'_>) -> Option<Calls> {
    let way = probed.way?;
    let written = Written::new(probed, way)?;
    let mut calls = written.json().or_else(|| written.behind_name(source))?;
    if let Some(lead) = &written.lead {
        let opener = calls.section.as_mut().or_else(|| calls.call.first_mut());
        if let Some(around) = opener {
            around.open.lead.clone_from(lead);
        }
    }
    written.is_read(&calls).then_some(calls)
}

/// What a template writes of calls alone, without what is around a message.
struct Written {
    /// One call with one argument.
    one: String,
    /// One call with two arguments.
    two_arguments: String,
    /// Two calls with one argument each.
    two: Option<String>,
    /// White space between content and calls.
    lead: Option<String>,
}

impl Written {
    fn new(probed: &Probed<'_>, way: Way) -> Option<Self> {
        let plain = (probed.render)(&answered())?;
        let plain = after_question(&plain)?;
        let (before, behind) = plain.split_once(ANSWER)?;
        let body = |content: &str, calls: &[usize]| {
            let written = (probed.render)(&calling(way, content, calls))?;
            let rest = after_question(&written)?;
            let name = rest.find(NAMES[0])?;
            let start = common_tags_at_start(&rest[..name], before);
            let end = rest.len() - common_tags_at_end(&rest[name..], behind);
            Some(rest[start..end].to_owned())
        };
        let one = body("", &[1])?;
        let with_content = body(ANSWER, &[1]);
        let lead = with_content.map(|text| {
            // A template may show no content beside calls; its model may write a line of it.
            let behind = text.split_once(ANSWER).map_or("\n", |(_, behind)| behind);
            let lead = &behind[..behind.len() - behind.trim_start().len()];
            lead.to_owned()
        });
        Some(Self {
            // White space before the first call is not the opener's, or is its lead.
            one: one.trim_start().to_owned(),
            two_arguments: body("", &[2])?.trim_start().to_owned(),
            two: body("", &[1, 1]).map(|text| text.trim_start().to_owned()),
            lead: lead.filter(|lead| !lead.is_empty()),
        })
    }

    /// An object, or a list of objects.
    fn json(&self) -> Option<Calls> {
        let name = self.one.find(NAMES[0])?;
        let starts = self.one[..name].match_indices(['{', '[']);
        let (start, len, keys) = starts.into_iter().find_map(|(start, _)| {
            let mut values = serde_json::Deserializer::from_str(&self.one[start..]).into_iter();
            let value: Value = values.next()?.ok()?;
            Some((start, values.byte_offset(), keys(&value)?))
        })?;
        let (open, close) = (&self.one[..start], &self.one[start + len..]);
        let (section, call) = match self.between_objects() {
            Some(between) => {
                let call_close = common_tags_at_start(close, &between);
                let call_open = open.len() - common_tags_at_end(open, &between);
                (
                    (&open[..call_open], &close[call_close..]),
                    (&open[call_open..], &close[..call_close]),
                )
            }
            None => (("", ""), (open, close)),
        };
        let around = |(open, close): (&str, &str)| {
            let open = some_marker(open)?;
            Some(Around {
                open: open.after(""),
                close: first_tag(close),
            })
        };
        let (section, call) = match (around(section), around(call)) {
            (section, Some(call)) => (section, vec![call]),
            // One pair of markers around all of them: as if it were around each.
            (Some(all), None) => (None, vec![all]),
            (None, None) => (None, Vec::new()),
        };
        Some(Calls {
            section,
            bare_json: call.is_empty(),
            call,
            also_python: false,
            skipped: Vec::new(),
            body: CallBody::Json(keys),
        })
    }

    /// What stands between two objects, if it is more than a list has there.
    fn between_objects(&self) -> Option<String> {
        let two = self.two.as_ref()?;
        let first = two.find(NAMES[0])?;
        let second = two.find(NAMES[1])?;
        let start = two[..first].rfind('{')?;
        let mut values = serde_json::Deserializer::from_str(&two[start..]).into_iter::<Value>();
        values.next()?.ok()?;
        let end = start + values.byte_offset();
        let next = two[..second].rfind('{').filter(|next| *next >= end)?;
        let between = &two[end..next];
        (!between.trim().is_empty() && between.trim() != ",").then(|| between.to_owned())
    }

    /// A name, then arguments in some form of their own.
    fn behind_name(&self, source: &str) -> Option<Calls> {
        let parts = Parts::of(&self.two_arguments)?;
        let (mut open, mut close) = (parts.before_name.to_owned(), parts.behind.to_owned());
        let mut section = None;
        if let Some((call_open, call_close)) = self.two.as_ref().and_then(|two| {
            // Both calls have one argument; the first ends as any does.
            let second = two.find(NAMES[1])?;
            let value = two[..second].rfind(VALUES[0])? + VALUES[0].len();
            let between = &two[value..second];
            Some((
                common_tags_at_end(&open, between),
                common_tags_at_start(&close, between),
            ))
        }) {
            let open_tags = open.split_off(open.len() - call_open);
            let section_close = close.split_off(call_close);
            // The list that a call written as in Python stands in is no marker.
            if let Some(marker) = some_marker(open.trim_end_matches('[')) {
                section = Some(Around {
                    open: marker.after(""),
                    // The message may end behind it in another way than content does.
                    close: first_tag(section_close.trim_start_matches(['}', ']'])),
                });
            }
            open = open_tags;
        }
        let body = parts.body(&open, &close, source)?;
        Some(Calls {
            section,
            call: body.call.into_iter().collect(),
            bare_json: false,
            also_python: false,
            skipped: Vec::new(),
            body: body.body,
        })
    }

    /// Whether an answer as the template writes it is read as what it was made of.
    fn is_read(&self, calls: &Calls) -> bool {
        let reader = ReplyReader::new(&ReplyFormat {
            calls: Some(calls.clone()),
            ..ReplyFormat::default()
        });
        let outer = calls.section.as_ref().or(calls.call.first());
        let closer = outer.and_then(|around| around.close.as_ref());
        let reads = |written: &str, expected: &[usize]| {
            // Behind the last closer the message ends, perhaps in another way than content does.
            let end =
                closer.and_then(|closer| Some(written.rfind(&closer.text)? + closer.text.len()));
            let written = &written[..end.unwrap_or(written.len())];
            let mut parser = reader.parser(&ReplyOptions {
                tools: Some(Default::default()),
                ..ReplyOptions::default()
            });
            let mut out = Vec::new();
            let text = written.to_owned();
            parser.push(ReplyToken { id: None, text }, &mut out);
            parser.finish(true, &mut out);
            let mut found: Vec<(String, String)> = Vec::new();
            for event in out {
                match event {
                    ReplyPiece::ToolCall { name, .. } => found.push((name, String::new())),
                    ReplyPiece::ToolArguments { delta, .. } => match found.last_mut() {
                        Some((_, arguments)) => arguments.push_str(&delta),
                        None => return false,
                    },
                    ReplyPiece::ToolCallEnd { .. } => {}
                    _ => return false,
                }
            }
            let expected = expected.iter().enumerate().map(|(index, count)| {
                let arguments = KEYS.iter().zip(VALUES).take(*count);
                let arguments =
                    arguments.map(|(key, value)| ((*key).to_owned(), Value::from(value)));
                (
                    NAMES[index].to_owned(),
                    Some(Value::Object(arguments.collect())),
                )
            });
            let found = found.iter().map(|(name, arguments)| {
                (name.clone(), serde_json::from_str::<Value>(arguments).ok())
            });
            found.eq(expected)
        };
        reads(&self.one, &[1])
            && reads(&self.two_arguments, &[2])
            && self.two.as_ref().is_none_or(|two| reads(two, &[1, 1]))
    }
}

/// The closer that a text begins with. Behind it the message may end in another way than content
/// does, so what follows is not looked at.
pub(super) fn first_tag(close: &str) -> Option<Marker> {
    let visible = close.trim_start();
    let lead = &close[..close.len() - visible.len()];
    let first = tags(visible).first().copied()?;
    some_marker(first).map(|close| close.after(lead))
}

/// The keys of a call in JSON.
fn keys(value: &Value) -> Option<JsonKeys> {
    match value {
        Value::Array(items) => items.iter().find_map(keys),
        Value::Object(fields) => {
            let key_of = |is: &dyn Fn(&Value) -> bool| {
                let mut fields = fields.iter();
                fields.find_map(|(key, value)| is(value).then(|| key.clone()))
            };
            if let Some(arguments) = fields.get(NAMES[0]) {
                return arguments.is_object().then(|| JsonKeys::new("", ""));
            }
            let is_arguments = |value: &Value| value.get(KEYS[0]).is_some();
            let name = key_of(&|value| value == NAMES[0]);
            let Some(name) = name else {
                return fields.get("function").and_then(keys);
            };
            Some(JsonKeys {
                name,
                arguments: key_of(&is_arguments)?,
                id: key_of(&|value| value == IDS[0]),
            })
        }
        _ => None,
    }
}
