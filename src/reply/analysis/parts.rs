//! A call whose arguments stand behind its name, taken apart at what was put in.

use super::calls::first_tag;
use super::pieces::{is_blank, is_whole, marker, some_marker, tags};
use super::probes::{IDS, KEYS, NAMES, VALUES};
use crate::reply::format::{Around, CallBody, IdPlace, Marker, NameThenJson, Parameters};

/// A call with two arguments, taken apart.
pub(super) struct Parts<'w> {
    pub before_name: &'w str,
    /// Between name and first key.
    name_key: &'w str,
    key_value: &'w str,
    /// Between first value and second key.
    value_key: &'w str,
    pub behind: &'w str,
}

pub(super) struct Body {
    pub call: Option<Around>,
    pub body: CallBody,
}

impl<'w> Parts<'w> {
    pub fn of(written: &'w str) -> Option<Self> {
        let (before_name, rest) = written.split_once(NAMES[0])?;
        let (name_key, rest) = rest.split_once(KEYS[0])?;
        let (key_value, rest) = rest.split_once(VALUES[0])?;
        let (value_key, rest) = rest.split_once(KEYS[1])?;
        let (_, behind) = rest.split_once(VALUES[1])?;
        Some(Self {
            before_name,
            name_key,
            key_value,
            value_key,
            behind,
        })
    }

    /// `open` and `close` are what is before the name and behind the last value in each call.
    pub fn body(&self, open: &str, close: &str, source: &str) -> Option<Body> {
        let pair = |open: &str, close: &str| {
            some_marker(open).map(|open| Around {
                open: open.after(""),
                close: first_tag(close).map(|close| close.after("")),
            })
        };
        if self.key_value.trim() == "\": \"" || self.key_value.trim() == "\":\"" {
            return self.json_behind_name(open, close);
        }
        if self.name_key.trim() == "(" && self.key_value.starts_with('=') {
            return Some(Body {
                call: pair(
                    open.trim_end_matches('['),
                    close.trim_start_matches(['\'', '"', ')', ']']),
                ),
                body: CallBody::Python,
            });
        }
        if self.name_key.trim() == "{"
            && let Some(quote) = self.key_value.trim().strip_prefix(':')
            && !quote.is_empty()
            && let Some(close) = close.strip_prefix(quote)
        {
            let tags = tags(open);
            let first = tags
                .first()
                .copied()
                .filter(|tag| is_whole(tag) && tag.starts_with(['<', '[']));
            let (open, before_name) = open.split_at(first.map_or(0, str::len));
            return Some(Body {
                call: pair(open, close.trim_start_matches('}')),
                body: CallBody::KeyValues {
                    before_name: before_name.to_owned(),
                    quote: Marker::text(quote),
                },
            });
        }
        self.parameters(open, close, source)
    }

    fn json_behind_name(&self, open: &str, close: &str) -> Option<Body> {
        let before = self.name_key.strip_suffix('"')?;
        let before = before.trim_end().strip_suffix('{')?;
        let close = close.strip_prefix('"')?.trim_start().strip_prefix('}')?;
        let (call_open, before_name, mut id) = opener(open);
        let (close_tag, after) = closer(close, call_open.is_some());
        let mut before_arguments = before.to_owned();
        if let Some((behind, rest)) = before.split_once(IDS[0]) {
            id = Some(IdPlace::Behind(marker(behind)));
            before_arguments = rest.to_owned();
        }
        let mut before_name = before_name;
        if let (Some(text), Some(rest)) = (&before_name, before.strip_prefix(":0"))
            && text.text.ends_with("functions.")
        {
            id = Some(IdPlace::AroundName);
            before_name = None;
            before_arguments = rest.to_owned();
        }
        Some(Body {
            call: call_open.map(|open| Around {
                open,
                close: close_tag,
            }),
            body: CallBody::NameThenJson(NameThenJson {
                before_name,
                id,
                before_arguments: match before_arguments.trim().is_empty() {
                    true => Marker::text(before_arguments.as_str()),
                    false => marker(&before_arguments),
                },
                after_arguments: after,
            }),
        })
    }

    fn parameters(&self, open: &str, close: &str, source: &str) -> Option<Body> {
        let (vk, nk) = (tags(self.value_key), tags(self.name_key));
        let same = vk
            .iter()
            .rev()
            .zip(nk.iter().rev())
            .take_while(|(a, b)| a == b)
            .count();
        let same = same.max(1);
        let before_key: String = nk[nk.len().checked_sub(same)?..].concat();
        let after_name = nk[..nk.len() - same].concat();
        let after_value = vk[..vk.len().checked_sub(same)?].concat();
        if before_key.trim().is_empty() || after_value.trim().is_empty() {
            return None;
        }
        let kv = tags(self.key_value);
        let kv: Vec<&&str> = kv.iter().filter(|tag| !is_blank(tag)).collect();
        let (after_key, before_value) = match kv.as_slice() {
            [one] => (Marker::text(one.trim()), None),
            [first, .., last] => (Marker::text(first.trim()), Some(Marker::text(last.trim()))),
            [] => return None,
        };
        let rest = close.strip_prefix(after_value.trim_end()).unwrap_or(close);
        let (call_open, before_name, _) = opener(open);
        let (mut close_tag, mut after) = closer(rest, call_open.is_some());
        if before_name.is_some() && after.is_none() {
            after = close_tag.take();
        }
        Some(Body {
            call: call_open.map(|open| Around {
                open,
                close: close_tag,
            }),
            body: CallBody::Parameters(Parameters {
                before_name,
                after_name: match after_name.trim().is_empty() {
                    true => Marker::text(after_name.as_str()),
                    false => Marker::text(after_name.trim()),
                },
                before_key: Marker::text(before_key.trim()),
                after_key,
                before_value,
                after_value: marker(&after_value),
                after_arguments: after,
                has_cdata: source.contains("<![CDATA["),
            }),
        })
    }
}

/// What stands before a name: a call's opener, what is right before the name, and an id.
fn opener(open: &str) -> (Option<Marker>, Option<Marker>, Option<IdPlace>) {
    let all = tags(open);
    let visible: Vec<&&str> = all.iter().filter(|tag| !is_blank(tag)).collect();
    let text = |tag: &&&str| Marker::text(tag.trim_start());
    match visible.as_slice() {
        [] => (None, None, None),
        [only] if is_whole(only) && only.starts_with(['<', '[']) => (Some(text(only)), None, None),
        [only] => (None, Some(text(only)), None),
        [first, .., last] => {
            let has_id = visible.iter().any(|tag| tag.contains(IDS[0]));
            let id = has_id.then_some(IdPlace::BeforeName);
            (Some(text(first)), Some(text(last)), id)
        }
    }
}

/// What stands behind arguments: a call's closer, and what is before it.
fn closer(close: &str, has_opener: bool) -> (Option<Marker>, Option<Marker>) {
    let all = tags(close);
    let visible: Vec<&&str> = all.iter().filter(|tag| !is_blank(tag)).collect();
    let text = |tag: &&&str| Marker::text(tag.trim());
    match visible.as_slice() {
        [] => (None, None),
        [only] if has_opener => (Some(text(only)), None),
        [only] => (None, Some(text(only))),
        [first, .., last] => (Some(text(last)), Some(text(first))),
    }
}
