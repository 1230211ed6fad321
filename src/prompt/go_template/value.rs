//! What templates work with: values as Go has them, and of each text which bytes are the template's own.

use std::ops::Range;
use std::sync::Arc;

use super::built::Built;
use super::run::Fault;

#[derive(Clone, Debug)]
pub(in crate::prompt) enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Text),
    List(List),
    Map(Arc<Map>),
}

#[derive(Clone, Debug)]
pub(in crate::prompt) struct Text {
    pub text: Arc<str>,
    /// In order and apart from each other.
    pub own: Arc<[Range<usize>]>,
    /// All that the last message of a conversation says.
    pub is_last: bool,
}

#[derive(Clone, Debug)]
pub(in crate::prompt) struct List {
    pub items: Arc<[Value]>,
    pub range: Range<usize>,
    /// Written as JSON.
    pub is_json: bool,
    /// The types that a property may be, of which a single one is written alone.
    pub are_types: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::prompt) enum Kind {
    /// What is not in it is nothing.
    Root,
    /// Fields that are known.
    Record,
    /// Keys of a client's.
    Map,
}

#[derive(Clone, Debug)]
pub(in crate::prompt) struct Map {
    pub members: Vec<Member>,
    pub kind: Kind,
    /// Written as JSON.
    pub is_json: bool,
}

#[derive(Clone, Debug)]
pub(in crate::prompt) struct Member {
    /// Of a record: as templates name it; none that only JSON has.
    pub name: Arc<str>,
    /// In JSON.
    pub key: Arc<str>,
    pub value: Value,
    /// Not in JSON where there is nothing.
    pub may_be_left_out: bool,
}

impl Text {
    /// A client's.
    pub fn of_client(text: impl Into<Arc<str>>) -> Self {
        Self {
            text: text.into(),
            own: Arc::default(),
            is_last: false,
        }
    }

    /// The template's.
    pub fn own(text: impl Into<Arc<str>>) -> Self {
        let text: Arc<str> = text.into();
        Self {
            own: (!text.is_empty())
                .then_some(0..text.len())
                .into_iter()
                .collect(),
            text,
            is_last: false,
        }
    }

    /// A part of it; `None`: not between characters.
    pub fn part(&self, range: Range<usize>) -> Option<Self> {
        let text = self.text.get(range.clone())?;
        let own = self.own.iter().filter_map(|own| {
            let (start, end) = (own.start.max(range.start), own.end.min(range.end));
            (start < end).then(|| start - range.start..end - range.start)
        });
        Some(Self {
            own: own.collect(),
            text: text.into(),
            is_last: false,
        })
    }
}

impl List {
    pub fn of(items: Vec<Value>, is_json: bool) -> Self {
        Self {
            range: 0..items.len(),
            items: items.into(),
            is_json,
            are_types: false,
        }
    }

    pub fn items(&self) -> &[Value] {
        &self.items[self.range.clone()]
    }

    fn is_single_type(&self) -> bool {
        self.are_types && self.range.len() == 1
    }
}

impl Map {
    pub fn get(&self, name: &str) -> Option<&Value> {
        let mut members = self.members.iter();
        let found = members.find(|member| match self.kind {
            Kind::Map => &*member.key == name,
            Kind::Root | Kind::Record => !name.is_empty() && &*member.name == name,
        });
        found.map(|member| &member.value)
    }

    /// In the order of their keys, as Go goes through them.
    pub fn sorted(&self) -> Vec<&Member> {
        let mut members: Vec<&Member> = self.members.iter().collect();
        members.sort_by(|one, other| one.key.cmp(&other.key));
        members
    }
}

impl Value {
    pub fn of_client(text: impl Into<Arc<str>>) -> Self {
        Self::Text(Text::of_client(text))
    }

    /// Whether conditions hold for it.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.text.is_empty(),
            Self::List(list) => !list.range.is_empty(),
            Self::Map(map) => map.kind != Kind::Map || !map.members.is_empty(),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(map) if map.kind == Kind::Map => "a map",
            Self::Map(_) => "an object",
        }
    }

    /// Writes it as Go's `%v`.
    pub(super) fn write(&self, to: &mut Built<'_>) -> Result<(), Fault> {
        match self {
            Self::Nil => to.plain("<nil>"),
            Self::Bool(true) => to.plain("true"),
            Self::Bool(false) => to.plain("false"),
            Self::Int(number) => to.plain(&number.to_string()),
            Self::Float(number) => to.plain(&float(*number)),
            Self::Text(text) => to.text(text),
            Self::List(list) if list.is_single_type() => list.items()[0].write(to),
            Self::List(list) if list.are_types && list.range.is_empty() => Ok(()),
            Self::List(list) if list.is_json => self.json(to),
            Self::Map(map) if map.is_json => self.json(to),
            Self::List(list) => {
                to.plain("[")?;
                for (nth, item) in list.items().iter().enumerate() {
                    to.plain(if nth > 0 { " " } else { "" })?;
                    item.write(to)?;
                }
                to.plain("]")
            }
            Self::Map(map) if map.kind == Kind::Map => {
                to.plain("map[")?;
                for (nth, member) in map.sorted().into_iter().enumerate() {
                    to.plain(if nth > 0 { " " } else { "" })?;
                    to.plain(&member.key)?;
                    to.plain(":")?;
                    member.value.write(to)?;
                }
                to.plain("]")
            }
            Self::Map(_) => Err(Fault::problem(
                "an object is not written as it is; its fields are, and so is `json` of it",
            )),
        }
    }

    /// Writes it as Go's `json.Marshal`.
    pub(super) fn json(&self, to: &mut Built<'_>) -> Result<(), Fault> {
        match self {
            Self::Nil => to.plain("null"),
            Self::Bool(_) | Self::Int(_) => self.write(to),
            Self::Float(number) => to.plain(&json_float(*number)),
            Self::Text(text) => json_text(&text.text, to),
            Self::List(list) if list.is_single_type() => list.items()[0].json(to),
            Self::List(list) => {
                to.plain("[")?;
                for (nth, item) in list.items().iter().enumerate() {
                    to.plain(if nth > 0 { "," } else { "" })?;
                    item.json(to)?;
                }
                to.plain("]")
            }
            Self::Map(map) => {
                to.plain("{")?;
                let told = map.members.iter();
                let told = told.filter(|it| !it.may_be_left_out || it.value.is_true());
                for (nth, member) in told.enumerate() {
                    to.plain(if nth > 0 { "," } else { "" })?;
                    json_text(&member.key, to)?;
                    to.plain(":")?;
                    member.value.json(to)?;
                }
                to.plain("}")
            }
        }
    }
}

/// Go's writing keeps what means something in HTML out of texts.
fn json_text(text: &str, to: &mut Built<'_>) -> Result<(), Fault> {
    let mut piece = String::with_capacity(text.len() + 2);
    piece.push('"');
    for c in text.chars() {
        match c {
            '"' => piece.push_str("\\\""),
            '\\' => piece.push_str("\\\\"),
            '\n' => piece.push_str("\\n"),
            '\r' => piece.push_str("\\r"),
            '\t' => piece.push_str("\\t"),
            '\u{8}' => piece.push_str("\\b"),
            '\u{c}' => piece.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                piece.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => piece.push(c),
        }
    }
    piece.push('"');
    to.plain(&piece)
}

/// Go's shortest form, with an exponent where it is below -4 or at least 21.
pub(super) fn float(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => match number != 0.0 && !(1e-4..1e21).contains(&number.abs()) {
            true => with_exponent(number),
            false => number.to_string(),
        },
    }
}

fn json_float(number: f64) -> String {
    match number != 0.0 && !(1e-6..1e21).contains(&number.abs()) {
        // Of one digit as well as it is.
        true => with_exponent(number).replace("e-0", "e-"),
        false => number.to_string(),
    }
}

/// With two digits of the exponent at the least, and its sign.
fn with_exponent(number: f64) -> String {
    let written = format!("{number:e}");
    let Some((digits, exponent)) = written.split_once('e') else {
        return written;
    };
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}
