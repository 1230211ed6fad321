//! The states that a call's body is read in.

use crate::reply::format::{CallBody, Calls, IdPlace, JsonKeys, Marker, NameThenJson, Parameters};
use crate::reply::machine::{AFTER_CALL, Action, CONTENT, Machine, Sink, StateId};

/// The states of a call.
pub(super) struct Body {
    /// Behind a call's opener.
    pub entry: StateId,
    /// Between calls in a section.
    pub between: StateId,
    /// A text that begins a call even where its marker is left out.
    pub own_opener: Option<Marker>,
    pub behind_own_opener: StateId,
    pub value: Option<BareValue>,
    /// The states that a call's closer ends.
    pub inside: Vec<StateId>,
}

/// A parameter's value that stands in no quotes.
pub(super) struct BareValue {
    pub state: StateId,
    /// White space before what ends it.
    pub lead: String,
    /// What ends all arguments, and where that leads.
    pub after_arguments: Option<(Marker, StateId)>,
}

fn gap(next: StateId, drops_brackets: bool) -> Sink {
    Sink::Gap {
        next,
        is_dropped: true,
        drops_brackets,
        json: None,
    }
}

/// A call that begins without another marker begins a line, which is not the content's.
fn behind_a_line(opener: &Marker) -> Marker {
    match opener.lead.is_empty() {
        true => opener.clone().after("\n"),
        false => opener.clone(),
    }
}

/// What models write where another form was expected.
fn any_json() -> Sink {
    Sink::JsonCalls {
        keys: JsonKeys {
            id: Some("id".to_owned()),
            ..JsonKeys::new("name", "arguments")
        },
        is_bare: false,
        other: AFTER_CALL,
    }
}

impl Body {
    pub fn add(machine: &mut Machine, calls: &Calls) -> Self {
        let between = machine.add(gap(CONTENT, false));
        match &calls.body {
            CallBody::Json(keys) => Self::json(machine, between, keys),
            CallBody::NameThenJson(body) => Self::name_then_json(machine, between, body),
            CallBody::Parameters(body) => Self::parameters(machine, between, body),
            CallBody::KeyValues { before_name, quote } => {
                Self::key_values(machine, between, before_name, quote)
            }
            CallBody::Python => Self::python(machine, between),
        }
    }

    fn json(machine: &mut Machine, between: StateId, keys: &JsonKeys) -> Self {
        let entry = machine.add(Sink::JsonCalls {
            keys: keys.clone(),
            is_bare: false,
            other: AFTER_CALL,
        });
        Self {
            entry,
            between,
            own_opener: None,
            behind_own_opener: entry,
            value: None,
            inside: vec![entry],
        }
    }

    fn name_then_json(machine: &mut Machine, between: StateId, body: &NameThenJson) -> Self {
        let json = machine.add(any_json());
        let after = machine.add(gap(CONTENT, true));
        let arguments = machine.add(Sink::JsonArguments { done: after });
        let name = machine.add(Sink::Name {
            json: body.before_name.is_none().then_some(json),
            arguments: Some(arguments),
            is_id: body.id == Some(IdPlace::AroundName),
        });
        let mut inside = vec![json, after, arguments, name];
        let mut entry = name;
        machine.on(name, &body.before_arguments, Action::EndName, arguments);
        if let Some(before) = &body.before_name {
            let is_id = body.id == Some(IdPlace::BeforeName);
            entry = machine.add(if is_id { Sink::Id } else { Sink::Skipped });
            let action = if is_id {
                Action::EndId
            } else {
                Action::BeginName
            };
            machine.on(entry, before, action, name);
            inside.push(entry);
        }
        if let Some(IdPlace::Behind(marker)) = &body.id {
            let id = machine.add(Sink::Id);
            machine.on(name, marker, Action::TakeName, id);
            machine.on(id, &body.before_arguments, Action::EndId, arguments);
            inside.push(id);
        }
        if let Some(marker) = &body.after_arguments {
            machine.on(after, marker, Action::EndCall, after);
            machine.on(arguments, marker, Action::EndCall, after);
        }
        // A text such as `<function=` says by itself that a call begins.
        let before = body.before_name.as_ref();
        let is_telling = |marker: &&Marker| marker.text.starts_with('<') && marker.id.is_none();
        let own_opener = before.filter(is_telling).map(behind_a_line);
        if let Some(open) = &own_opener {
            machine.on(after, open, Action::NextCall, name);
        }
        Self {
            entry,
            between,
            own_opener,
            behind_own_opener: name,
            value: None,
            inside,
        }
    }

    fn parameters(machine: &mut Machine, between: StateId, body: &Parameters) -> Self {
        let json = machine.add(any_json());
        let after = machine.add(gap(CONTENT, true));
        let object = machine.add(gap(CONTENT, true));
        let name = machine.add(Sink::Name {
            json: Some(json),
            arguments: None,
            is_id: false,
        });
        let key = machine.add(Sink::Key);
        let value = machine.add(Sink::Value);
        let mut inside = vec![json, after, object, name, key, value];
        let mut entry = name;
        if let Some(before) = &body.before_name {
            entry = machine.add(Sink::Gap {
                next: CONTENT,
                is_dropped: true,
                drops_brackets: false,
                json: Some(json),
            });
            machine.on(entry, before, Action::None, name);
            inside.push(entry);
        }
        machine.on(name, &body.after_name, Action::EndName, object);
        machine.on(name, &body.before_key, Action::BeginKey, key);
        machine.on(object, &body.before_key, Action::BeginKey, key);
        match &body.before_value {
            None => machine.on(key, &body.after_key, Action::EndKey, value),
            Some(before) => {
                let behind_key = machine.add(gap(object, true));
                machine.on(key, &body.after_key, Action::None, behind_key);
                machine.on(key, before, Action::EndKey, value);
                machine.on(behind_key, before, Action::EndKey, value);
                inside.push(behind_key);
            }
        }
        machine.on(value, &body.after_value, Action::EndValue, object);
        if body.has_cdata {
            let data = machine.add(Sink::Value);
            machine.on(value, &Marker::text("<![CDATA["), Action::None, data);
            machine.on(data, &Marker::text("]]>"), Action::None, value);
            inside.push(data);
        }
        if let Some(marker) = &body.after_arguments {
            machine.on(object, marker, Action::EndParameters, after);
            machine.on(name, marker, Action::EndParameters, after);
        }
        let before = body.before_name.as_ref();
        let own_opener = before
            .filter(|marker| marker.id.is_none())
            .map(behind_a_line);
        if let Some(open) = &own_opener {
            machine.on(after, open, Action::NextCall, name);
        }
        Self {
            entry,
            between,
            own_opener,
            behind_own_opener: name,
            value: Some(BareValue {
                state: value,
                lead: body.after_value.lead.clone(),
                after_arguments: body.after_arguments.clone().map(|marker| (marker, after)),
            }),
            inside,
        }
    }

    fn key_values(
        machine: &mut Machine,
        between: StateId,
        before_name: &str,
        quote: &Marker,
    ) -> Self {
        let after = machine.add(gap(CONTENT, true));
        let outside = machine.add(Sink::KeyValues { done: after });
        let text = machine.add(Sink::QuotedText);
        let name = machine.add(Sink::Name {
            json: None,
            arguments: None,
            is_id: false,
        });
        let entry = machine.add(gap(name, true));
        machine.on(entry, &Marker::text(before_name), Action::None, name);
        machine.on(name, &Marker::text("{"), Action::BeginKeyValues, outside);
        machine.on(outside, quote, Action::Quote, text);
        machine.on(text, quote, Action::Quote, outside);
        Self {
            entry,
            between,
            own_opener: None,
            behind_own_opener: entry,
            value: None,
            inside: vec![entry, name, outside, text, after],
        }
    }

    fn python(machine: &mut Machine, between: StateId) -> Self {
        let json = machine.add(any_json());
        let entry = machine.add(Sink::Python { json });
        Self {
            entry,
            between,
            own_opener: None,
            behind_own_opener: entry,
            value: None,
            inside: vec![entry, json],
        }
    }
}
