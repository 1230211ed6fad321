//! From a format to its machine.

mod body;

use super::CallsAt;
use super::format::{CallBody, Calls, Marker, Reasoning, ReplyFormat};
use super::machine::{
    AFTER_CALL, AFTER_THOUGHT, Action, CONTENT, Guard, Machine, START, Sink, StateId, THOUGHT,
    THOUGHT_START,
};
use body::{BareValue, Body};

/// The states in which a call may begin.
const OPEN_TO_CALLS: [StateId; 6] = [
    START,
    AFTER_THOUGHT,
    AFTER_CALL,
    CONTENT,
    THOUGHT_START,
    THOUGHT,
];

/// Of these, those that stand before any text.
const BEFORE_TEXT: usize = 3;

/// A shorter closer is an ordinary word in content.
const SHORTEST_STRAY: usize = 5;

/// What is to be told apart from content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub thoughts: bool,
    pub calls: bool,
    pub calls_at: CallsAt,
}

pub(super) fn build(format: &ReplyFormat, wanted: Wanted) -> Machine {
    let mut machine = Machine::new();
    machine.tells_thoughts = wanted.thoughts;
    machine.finds_thoughts = wanted.thoughts;
    machine.tells_calls = wanted.calls;
    if format.harmony {
        super::harmony::build(&mut machine, format);
        return machine;
    }
    let is_kept = wanted.calls_at.is_kept();
    let calls = format.calls.as_ref().filter(|_| wanted.calls);
    if wanted.calls_at == CallsAt::FirstCharacter {
        for from in [START, AFTER_THOUGHT] {
            machine.states[from].sink = Sink::Opening { json: None };
        }
    }
    if let Some(reasoning) = &format.reasoning {
        match wanted.thoughts {
            true if is_kept => add_only_thought(&mut machine, reasoning),
            true => add_reasoning(&mut machine, reasoning),
            false => {
                for marker in [&reasoning.open, &reasoning.close] {
                    let printed = marker.id.map(|id| (id, marker.text.clone()));
                    machine.printed.extend(printed);
                }
                // Calls stand behind it, and no longer where the text of the format has begun.
                if is_kept && calls.is_some() {
                    add_shown_thought(&mut machine, reasoning);
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
    if let Some(calls) = calls {
        // At a beginning, what has no marker is text wherever other calls have one.
        let may_be_bare = !is_kept || !format.begins_calls_with_markers();
        let open_to_calls = match is_kept {
            true => &OPEN_TO_CALLS[..BEFORE_TEXT],
            false => &OPEN_TO_CALLS[..],
        };
        for calls in [calls].into_iter().chain(&format.also_calls) {
            add_calls(&mut machine, calls, open_to_calls);
            if may_be_bare {
                add_bare_calls(&mut machine, calls);
            }
        }
    } else if format.content.is_none() && (format.reasoning.is_none() || !wanted.thoughts) {
        // Nothing is looked for at the start, so nothing is held back there.
        machine.states[START].sink = Sink::Content;
    }
    machine
}

fn add_reasoning(machine: &mut Machine, reasoning: &Reasoning) {
    let Reasoning {
        open,
        label,
        close,
        opened_by_prompts,
    } = reasoning;
    let label = Marker::text(label.clone());
    // Where the model itself writes every opener, a closer that is printed without one is content.
    let (at_start, in_content) = match opened_by_prompts {
        true => (Guard::Always, Guard::NoThoughtYet),
        false => (Guard::BehindThought, Guard::Silent),
    };
    for from in [START, AFTER_THOUGHT, AFTER_CALL] {
        machine.on(from, open, Action::OpenThought, THOUGHT_START);
        machine.guarded(from, close, at_start, Action::StrayCloser, AFTER_THOUGHT);
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
        in_content,
        Action::StrayCloser,
        AFTER_THOUGHT,
    );
    machine.on(THOUGHT_START, &label, Action::None, THOUGHT_START);
    machine.on(THOUGHT_START, open, Action::None, THOUGHT_START);
    machine.on(THOUGHT_START, close, Action::CloseThought, AFTER_THOUGHT);
    machine.on(THOUGHT, close, Action::CloseThought, AFTER_THOUGHT);
}

/// The thought before an answer that is kept to a format. There is no other: what the answer mentions is text.
fn add_only_thought(machine: &mut Machine, reasoning: &Reasoning) {
    let Reasoning {
        open, label, close, ..
    } = reasoning;
    let label = Marker::text(label.clone());
    let first = as_first(machine, START, open);
    machine.on(START, &first, Action::OpenThought, THOUGHT_START);
    machine.on(THOUGHT_START, &label, Action::None, THOUGHT_START);
    machine.on(THOUGHT_START, open, Action::None, THOUGHT_START);
    for from in [THOUGHT_START, THOUGHT] {
        machine.on(from, close, Action::CloseThought, AFTER_THOUGHT);
    }
}

/// The same of one that stays in the content, with its markers and the white space in it.
fn add_shown_thought(machine: &mut Machine, reasoning: &Reasoning) {
    machine.finds_thoughts = true;
    if let Sink::Gap { is_dropped, .. } = &mut machine.states[AFTER_THOUGHT].sink {
        *is_dropped = false;
    }
    let [open, close] = [&reasoning.open, &reasoning.close].map(|marker| marker.clone().after(""));
    machine.on(START, &open, Action::OpenThought, THOUGHT);
    machine.on(THOUGHT, &close, Action::CloseThought, AFTER_THOUGHT);
}

/// A marker that `from` leads to; without white space before it where a text may begin with that.
fn as_first(machine: &Machine, from: StateId, marker: &Marker) -> Marker {
    match machine.states[from].sink {
        Sink::Opening { .. } => marker.clone().after(""),
        _ => marker.clone(),
    }
}

fn add_calls(machine: &mut Machine, calls: &Calls, open_to_calls: &[StateId]) {
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
    for &from in open_to_calls {
        if let Some(section) = section {
            let inside = match calls.call.is_empty() {
                true => body.entry,
                false => body.between,
            };
            let open = as_first(machine, from, &section.open);
            machine.on(from, &open, Action::BeginCall, inside);
        }
        for open in call_openers.clone() {
            let open = as_first(machine, from, open);
            machine.on(from, &open, Action::BeginCall, body.entry);
        }
        if let Some(open) = &body.own_opener {
            let open = as_first(machine, from, open);
            machine.on(from, &open, Action::BeginCall, body.behind_own_opener);
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
        // A text may hold every marker but its own closer; what is a token is a marker for certain.
        let is_text = matches!(machine.states[state].sink, Sink::Value | Sink::QuotedText);
        let guard = if is_text { Guard::Token } else { Guard::Always };
        let value = body.value.as_ref().filter(|value| value.state == state);
        for close in closers.clone() {
            let lead = value.map_or(&close.lead, |value| &value.lead);
            let close = close.clone().after(lead);
            machine.guarded(state, &close, guard, Action::EndCall, behind_call);
        }
        if let Some(close) = section_close {
            machine.guarded(state, close, guard, Action::EndCall, AFTER_CALL);
        }
        // A call that was not closed ends where the next one begins.
        for open in call_openers.clone() {
            machine.guarded(state, open, guard, Action::NextCall, body.entry);
        }
        if let Some(value) = value {
            if let Some((close, after)) = &value.after_arguments {
                let close = close.clone().after(&value.lead);
                machine.guarded(state, &close, guard, Action::EndParameters, *after);
            }
            add_ends_in_a_row(machine, value, calls, &body, behind_call);
        }
    }
    let has_section = section_close.is_some();
    let closers = closers.map(|close| (close, !has_section));
    for (close, is_last) in closers.chain(section_close.map(|close| (close, true))) {
        let action = if is_last {
            Action::LateCloser
        } else {
            Action::None
        };
        machine.on(AFTER_CALL, close, action, AFTER_CALL);
        // Left over from a call; what content mentions is content.
        if close.text.len() >= SHORTEST_STRAY {
            machine.guarded(CONTENT, close, Guard::CallUnclosed, action, CONTENT);
        }
    }
}

/// Calls that are the JSON of an answer, without a marker.
fn add_bare_calls(machine: &mut Machine, calls: &Calls) {
    if calls.bare_json
        && let CallBody::Json(keys) = &calls.body
    {
        let bare = machine.add(Sink::JsonCalls {
            keys: keys.clone(),
            is_bare: true,
            other: AFTER_CALL,
        });
        for from in [START, AFTER_THOUGHT, AFTER_CALL] {
            if let Sink::Gap { json, .. } | Sink::Opening { json } = &mut machine.states[from].sink
            {
                *json = Some(bare);
            }
        }
    }
}

/// A value that was not closed ends where the ends of what is around it stand in a row, or such an end
/// before another call.
fn add_ends_in_a_row(
    machine: &mut Machine,
    value: &BareValue,
    calls: &Calls,
    body: &Body,
    behind_call: StateId,
) {
    let of_arguments = value.after_arguments.iter().map(|(marker, _)| marker);
    let closers = calls.call.iter().filter_map(|around| around.close.as_ref());
    let openers = calls.call.iter().map(|around| (&around.open, body.entry));
    let own_opener = body.own_opener.iter();
    let openers = openers.chain(own_opener.map(|open| (open, body.behind_own_opener)));
    let mut add = |first: &Marker, second: &Marker, action, to| {
        for between in ["\n", "", "\n\n"] {
            let text = format!("{}{between}{}", first.text, second.text);
            // Where tokens are known these two are looked for by theirs.
            let both = Marker {
                id: first.id.and(second.id),
                ..Marker::text(text).after(&value.lead)
            };
            machine.on(value.state, &both, action, to);
        }
    };
    for first in closers.clone().chain(of_arguments.clone()) {
        for (open, to) in openers.clone() {
            add(first, open, Action::NextCall, to);
        }
    }
    for first in of_arguments {
        for close in closers.clone() {
            add(first, close, Action::EndCall, behind_call);
        }
    }
}

#[cfg(test)]
mod tests;
