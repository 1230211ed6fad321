//! From a format to its machine.

use super::format::{
    CallBody, Calls, IdPlace, JsonKeys, Marker, NameThenJson, Parameters, Reasoning, ReplyFormat,
};
use super::machine::{
    AFTER_CALL, AFTER_THOUGHT, Action, CONTENT, Guard, Machine, START, Sink, StateId, THOUGHT,
    THOUGHT_START,
};

/// The states in which a call may begin.
const OPEN_TO_CALLS: [StateId; 6] = [
    START,
    CONTENT,
    AFTER_THOUGHT,
    AFTER_CALL,
    THOUGHT_START,
    THOUGHT,
];

/// A shorter closer is an ordinary word in content.
const SHORTEST_STRAY: usize = 5;

/// What is to be told apart from content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub thoughts: bool,
    pub calls: bool,
}

pub(super) fn build(format: &ReplyFormat, wanted: Wanted) -> Machine {
    let mut machine = Machine::new();
    machine.tells_thoughts = wanted.thoughts;
    machine.tells_calls = wanted.calls;
    if format.harmony {
        super::harmony::build(&mut machine, format);
        return machine;
    }
    if let Some(reasoning) = &format.reasoning {
        match wanted.thoughts {
            true => add_reasoning(&mut machine, reasoning),
            false => {
                for marker in [&reasoning.open, &reasoning.close] {
                    let printed = marker.id.map(|id| (id, marker.text.clone()));
                    machine.printed.extend(printed);
                }
            }
        }
    }
    if let Some(content) = &format.content {
        for from in [START, AFTER_THOUGHT, AFTER_CALL] {
            machine.on(from, &content.open, Action::BeginContent, CONTENT);
        }
        if let Some(close) = &content.close {
            for from in [CONTENT, AFTER_CALL] {
                machine.on(from, close, Action::None, AFTER_CALL);
            }
        }
    }
    if let Some(calls) = format.calls.as_ref().filter(|_| wanted.calls) {
        for calls in [calls].into_iter().chain(&format.also_calls) {
            add_calls(&mut machine, calls);
        }
    } else if format.content.is_none() && (format.reasoning.is_none() || !wanted.thoughts) {
        // Nothing is looked for at the start, so nothing is held back there.
        machine.states[START].sink = Sink::Content;
    }
    machine
}

fn add_reasoning(machine: &mut Machine, reasoning: &Reasoning) {
    let Reasoning { open, label, close } = reasoning;
    let label = Marker::text(label.clone());
    for from in [START, AFTER_THOUGHT, AFTER_CALL] {
        machine.on(from, open, Action::OpenThought, THOUGHT_START);
        machine.on(from, close, Action::StrayCloser, AFTER_THOUGHT);
    }
    // A marker that content mentions is content; one that the runtime hides cannot be.
    machine.guarded(
        CONTENT,
        open,
        Guard::Silent,
        Action::OpenThought,
        THOUGHT_START,
    );
    machine.guarded(
        CONTENT,
        close,
        Guard::NoThoughtYet,
        Action::StrayCloser,
        AFTER_THOUGHT,
    );
    machine.on(THOUGHT_START, &label, Action::None, THOUGHT_START);
    machine.on(THOUGHT_START, open, Action::None, THOUGHT_START);
    machine.on(THOUGHT_START, close, Action::CloseThought, AFTER_THOUGHT);
    machine.on(THOUGHT, close, Action::CloseThought, AFTER_THOUGHT);
}

fn add_calls(machine: &mut Machine, calls: &Calls) {
    let body = Body::add(machine, calls);
    for marker in &calls.skipped {
        machine.on(body.entry, marker, Action::None, body.entry);
    }
    if calls.also_python {
        let python = machine.add(Sink::Python { json: body.entry });
        if let Sink::JsonCalls { other, .. } = &mut machine.states[body.entry].sink {
            *other = python;
        }
    }
    let section = calls.section.as_ref();
    let section_close = section.and_then(|section| section.close.as_ref());
    let call_openers = calls.call.iter().map(|around| &around.open);
    for from in OPEN_TO_CALLS {
        if let Some(section) = section {
            let inside = match calls.call.is_empty() {
                true => body.entry,
                false => body.between,
            };
            machine.on(from, &section.open, Action::BeginCall, inside);
        }
        for open in call_openers.clone() {
            machine.on(from, open, Action::BeginCall, body.entry);
        }
        if let Some(open) = &body.own_opener {
            machine.on(from, open, Action::BeginCall, body.behind_own_opener);
        }
    }
    if let Some(open) = &body.own_opener {
        machine.on(
            body.between,
            open,
            Action::BeginCall,
            body.behind_own_opener,
        );
        machine.on(AFTER_CALL, open, Action::BeginCall, body.behind_own_opener);
    }
    let behind_call = match section {
        Some(_) => body.between,
        None => AFTER_CALL,
    };
    let closers = calls.call.iter().filter_map(|around| around.close.as_ref());
    for state in body.inside.iter().copied().chain([body.between]) {
        // A text may hold every marker but its own closer.
        let guard = match machine.states[state].sink {
            Sink::Value | Sink::QuotedText => Guard::Silent,
            _ => Guard::Always,
        };
        for close in closers.clone() {
            machine.guarded(state, close, guard, Action::EndCall, behind_call);
        }
        if let Some(close) = section_close {
            machine.guarded(state, close, guard, Action::EndCall, AFTER_CALL);
        }
        // A call that was not closed ends where the next one begins.
        for open in call_openers.clone() {
            machine.guarded(state, open, guard, Action::NextCall, body.entry);
        }
    }
    for close in closers.chain(section_close) {
        machine.on(AFTER_CALL, close, Action::None, AFTER_CALL);
        // Left over from what was no call.
        if close.text.len() >= SHORTEST_STRAY {
            machine.on(CONTENT, close, Action::None, CONTENT);
        }
    }
    if calls.bare_json
        && let CallBody::Json(keys) = &calls.body
    {
        let bare = machine.add(Sink::JsonCalls {
            keys: keys.clone(),
            is_bare: true,
            other: AFTER_CALL,
        });
        for from in [START, AFTER_THOUGHT, AFTER_CALL] {
            if let Sink::Gap { json, .. } = &mut machine.states[from].sink {
                *json = Some(bare);
            }
        }
    }
}

/// The states of a call.
struct Body {
    /// Behind a call's opener.
    entry: StateId,
    /// Between calls in a section.
    between: StateId,
    /// A text that begins a call even where its marker is left out.
    own_opener: Option<Marker>,
    behind_own_opener: StateId,
    /// The states that a call's closer ends.
    inside: Vec<StateId>,
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
    fn add(machine: &mut Machine, calls: &Calls) -> Self {
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
        Self {
            entry,
            between,
            own_opener: before.filter(is_telling).map(behind_a_line),
            behind_own_opener: name,
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
        Self {
            entry,
            between,
            own_opener: before
                .filter(|marker| marker.id.is_none())
                .map(behind_a_line),
            behind_own_opener: name,
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
            inside: vec![entry, json],
        }
    }
}
