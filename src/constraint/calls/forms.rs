//! How a model writes calls, from the description of its replies to rules of a grammar.

use serde_json::Value;

use super::bodies::Bodies;
use super::lark::{GAP, Lark, any_of, literal};
use super::{HowMany, Prepared};
use crate::constraint::Opener;
use crate::constraint::schema::Fault;
use crate::reply::{Around, CallBody, Calls, Marker, ReplyFormat};

/// One way to write one call, or several that belong together.
struct Form {
    rule: String,
    opener: Option<Opener>,
    /// It may stand behind another one.
    repeats: bool,
}

/// All calls of an answer.
pub struct Started {
    pub rule: String,
    /// What they begin with.
    pub openers: Vec<Opener>,
    /// What of the schemas the form cannot be kept to.
    pub faults: Vec<Fault>,
}

/// What an answer may be instead of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    Nothing,
    Json,
    /// A text that may begin with white space, so no call does.
    Text,
}

pub fn start(
    lark: &mut Lark<'_>,
    format: &ReplyFormat,
    tools: &[Prepared],
    how_many: HowMany,
    instead: Instead,
) -> Started {
    // Calls in JSON alone are told from a text by what it may not begin with. Where others have markers, those
    // without one are left out.
    let are_marked = instead != Instead::Nothing && format.begins_calls_with_markers();
    let gap = match instead {
        Instead::Nothing | Instead::Json => format!("{GAP} {GAP}"),
        Instead::Text => String::new(),
    };
    let mut faults = Vec::new();
    let forms = match format.harmony {
        true => vec![harmony(lark, format, tools, how_many)],
        false => {
            let also = format.also_calls.as_ref();
            let also = also.filter(|_| matches!(how_many, HowMany::AsLiked { .. }));
            let all = format.calls.iter().chain(also);
            all.flat_map(|calls| forms(lark, calls, tools, how_many, &mut faults))
                .filter(|form| form.opener.is_some() || !are_marked)
                .collect()
        }
    };
    let rules: Vec<String> = forms.iter().map(|form| form.rule.clone()).collect();
    let all = any_of(&rules);
    let start = match how_many {
        HowMany::AsLiked { .. } => all,
        HowMany::One => format!("{gap} {all}"),
        HowMany::Several => {
            let repeat = forms.iter().filter(|form| form.repeats);
            let repeat: Vec<String> = repeat.map(|form| form.rule.clone()).collect();
            match repeat.is_empty() {
                true => format!("{gap} {all}"),
                false => format!("{gap} {all} ({GAP} {})*", any_of(&repeat)),
            }
        }
    };
    let openers = forms.into_iter().filter_map(|form| form.opener);
    let mut openers: Vec<Opener> = openers.collect();
    if matches!(how_many, HowMany::AsLiked { .. }) && !format.harmony {
        openers.extend(bare_openers(format, tools));
    }
    Started {
        rule: start,
        openers,
        faults,
    }
}

fn forms(
    lark: &mut Lark<'_>,
    calls: &Calls,
    tools: &[Prepared],
    how_many: HowMany,
    faults: &mut Vec<Fault>,
) -> Vec<Form> {
    let is_free = matches!(how_many, HowMany::AsLiked { .. });
    let mut bodies = Bodies::new(calls, tools, how_many);
    let mut forms = Vec::new();
    let mut in_markers = Vec::new();
    for around in &calls.call {
        let opener = opener(&around.open);
        if opener.is_none() {
            continue;
        }
        let rule = marked(lark, around, calls, &mut bodies);
        in_markers.push(Form {
            rule,
            opener,
            repeats: true,
        });
    }
    let own = calls.own_opener().cloned();
    let section = calls
        .section
        .as_ref()
        .filter(|section| !section.open.text.is_empty());
    if let Some(section) = section {
        let inside: Vec<String> = in_markers.iter().map(|form| form.rule.clone()).collect();
        let inside = match inside.is_empty() {
            true => bodies.between(lark, ""),
            false => any_of(&inside),
        };
        let more = match how_many.several() {
            true => format!("({GAP} {inside})*"),
            false => String::new(),
        };
        let close = section.close.as_ref().map(|close| lark.marker(close));
        let close = close.map_or(String::new(), |close| format!("{GAP} {close}"));
        let open = lark.marker(&section.open);
        forms.push(Form {
            rule: lark.rule(&format!("{open} {GAP} {inside} {more} {close}")),
            opener: opener(&section.open),
            repeats: false,
        });
    }
    // Where calls stand in a section a model might leave it out, but is not asked to.
    if section.is_none() || is_free {
        forms.extend(in_markers);
    }
    let has_markers = !forms.is_empty();
    if let Some(own) = own.filter(|_| is_free || !has_markers) {
        forms.push(Form {
            rule: bodies.between(lark, ""),
            opener: Some(Opener::Text(own.text)),
            repeats: true,
        });
    }
    // In a free answer they are known by what they begin with.
    if let CallBody::Json(keys) = &calls.body
        && calls.bare_json
    {
        forms.push(Form {
            rule: bodies.bare(lark, keys),
            opener: None,
            repeats: !has_markers,
        });
    }
    faults.append(&mut bodies.faults);
    forms
}

fn opener(marker: &Marker) -> Option<Opener> {
    match marker.id {
        Some(id) => Some(Opener::Token {
            id,
            then: String::new(),
        }),
        None => (!marker.text.is_empty()).then(|| Opener::Text(marker.text.clone())),
    }
}

/// What stands between a call's markers, with them.
fn marked(lark: &mut Lark<'_>, around: &Around, calls: &Calls, bodies: &mut Bodies<'_>) -> String {
    let skipped: Vec<String> = calls
        .skipped
        .iter()
        .map(|marker| lark.marker(marker))
        .collect();
    let skipped = match skipped.is_empty() {
        true => String::new(),
        false => format!("{}? {GAP}", any_of(&skipped)),
    };
    // Some openers end with the bracket of a list.
    let opened = if around.open.text.ends_with('[') && around.open.id.is_none() {
        "["
    } else {
        ""
    };
    let open = lark.marker(&around.open);
    let body = bodies.between(lark, opened);
    let close = around.close.as_ref().map(|close| lark.marker(close));
    let close = close.map_or(String::new(), |close| format!("{GAP} {close}"));
    let gap = bodies.gap();
    lark.rule(&format!("{open} {gap} {skipped} {body} {close}"))
}

/// A call in JSON that is the whole answer is known by its keys.
fn bare_openers(format: &ReplyFormat, tools: &[Prepared]) -> Vec<Opener> {
    let all = format.calls.iter().chain(&format.also_calls);
    let keys = all
        .filter(|calls| calls.bare_json)
        .filter_map(|calls| match &calls.body {
            CallBody::Json(keys) => Some(keys),
            _ => None,
        });
    let quoted = |text: &str| Value::from(text).to_string();
    let mut openers = Vec::new();
    for keys in keys {
        openers.extend(tools.iter().map(|tool| {
            let name = quoted(&tool.name);
            Opener::Bare(match keys.name.is_empty() {
                true => format!("{{{name}:"),
                false => format!(
                    "{{{}:{name},{}:",
                    quoted(&keys.name),
                    quoted(&keys.arguments)
                ),
            })
        }));
    }
    openers
}

/// A message to a function. One ends the model's turn, so there are no more of them in an answer.
fn harmony(
    lark: &mut Lark<'_>,
    format: &ReplyFormat,
    tools: &[Prepared],
    how_many: HowMany,
) -> Form {
    let marker = |text: &str| Marker {
        id: format
            .harmony_ids
            .iter()
            .find_map(|(of, id)| (of == text).then_some(*id)),
        ..Marker::text(text)
    };
    let [channel, message, call, end, start, constrain] = [
        "<|channel|>",
        "<|message|>",
        "<|call|>",
        "<|end|>",
        "<|start|>",
        "<|constrain|>",
    ]
    .map(marker);
    let to: Vec<String> = tools
        .iter()
        .map(|tool| {
            let arguments = lark.json(&tool.schema);
            let name = literal(&format!("commentary to=functions.{}", tool.name));
            let (message, constrain) = (lark.marker(&message), lark.marker(&constrain));
            lark.rule(&format!(
                "{name} (\" \" {constrain} \"json\")? {message} {arguments}"
            ))
        })
        .collect();
    let open = lark.marker(&channel);
    let ends = lark.marker(&call);
    let call = format!("{open} {} {ends}", any_of(&to));
    let rule = match how_many {
        HowMany::AsLiked { .. } => call,
        HowMany::One | HowMany::Several => {
            let text = match end.id {
                None => lark.text_until("/(?s:.*)/", &end.text),
                Some(id) => {
                    let text = lark.terminal("/(?s:.+)/");
                    format!("{text}? {}", lark.token(id))
                }
            };
            let (message, start) = (lark.marker(&message), lark.marker(&start));
            format!("({open} \"analysis\" {message} {text} {start} \"assistant\")? {call}")
        }
    };
    let then = "commentary to=functions.";
    Form {
        rule: lark.rule(&rule),
        opener: Some(match channel.id {
            Some(id) => Opener::Token {
                id,
                then: then.to_owned(),
            },
            None => Opener::Text(format!("{}{then}", channel.text)),
        }),
        repeats: false,
    }
}
