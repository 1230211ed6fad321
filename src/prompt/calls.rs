//! Calls and functions on their way into a template: arguments in the form that it takes, and for a
//! template that knows no functions, all of it in words.
//!
//! Arguments are the client's, so they are read before the client's texts are looked through: what an
//! escape in them stands for must be seen there.

use std::borrow::Cow;

use serde_json::{Map, Value as Json};

use super::conversation::TemplateMessage;
use super::twins::{Swaps, Twins};
use super::{ChatMessage, ChatRole, RenderRequest, TemplateError, forms, numbers};

/// What a template does with functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Functions {
    /// It tells the model of functions.
    pub are_shown: bool,
    /// It writes the calls of earlier messages.
    pub calls_are_shown: bool,
    /// It writes what functions returned.
    pub results_are_shown: bool,
    /// It takes arguments as JSON text, which it writes as it is; otherwise as an object.
    pub arguments_as_text: bool,
    /// It takes ids of nine letters and digits only.
    pub nine_letter_ids: bool,
    /// What it does with an answer of several calls.
    pub several_calls: SeveralCalls,
}

/// What a template does with an answer that made more than one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SeveralCalls {
    #[default]
    Shown,
    /// It shows each only in an answer of its own.
    ShownApart,
    /// It shows one of them, however they are told.
    Lost,
}

impl Default for Functions {
    fn default() -> Self {
        Self {
            are_shown: true,
            calls_are_shown: true,
            results_are_shown: true,
            arguments_as_text: false,
            nine_letter_ids: false,
            several_calls: SeveralCalls::Shown,
        }
    }
}

impl Functions {
    /// Its template gets arguments as objects.
    pub(super) fn takes_objects(self) -> bool {
        // What is told in words is told as it was sent.
        !self.arguments_as_text && self.calls_are_shown
    }

    /// The messages as the template shows all of their calls.
    pub(super) fn with_all_calls(
        self,
        messages: Vec<TemplateMessage>,
    ) -> Result<Vec<TemplateMessage>, TemplateError> {
        // In words every call is told.
        match self.several_calls {
            _ if !self.calls_are_shown => Ok(messages),
            SeveralCalls::Shown => Ok(messages),
            SeveralCalls::ShownApart => Ok(forms::one_call_an_answer(messages)),
            SeveralCalls::Lost if messages.iter().any(forms::has_several_calls) => {
                Err(TemplateError::Unfit(SEVERAL_CALLS.to_owned()))
            }
            SeveralCalls::Lost => Ok(messages),
        }
    }
}

const SEVERAL_CALLS: &str = "it shows one call of an answer, and an answer in it has several";

/// The request with its calls' arguments and ids as the template takes them.
pub(super) fn fitted(request: &RenderRequest, functions: Functions) -> Cow<'_, RenderRequest> {
    let is_about_calls = |message: &ChatMessage| {
        message.more.contains_key("tool_calls") || message.more.contains_key("tool_call_id")
    };
    let is_as_it_is = !functions.takes_objects() && !functions.nine_letter_ids;
    if is_as_it_is || !request.arguments_are_text || !request.messages.iter().any(is_about_calls) {
        return Cow::Borrowed(request);
    }
    let mut request = request.clone();
    let fit = |id: &mut Json| {
        if let Some(text) = id.as_str()
            && functions.nine_letter_ids
        {
            *id = nine_letters(text).into();
        }
    };
    for message in &mut request.messages {
        message.more.get_mut("tool_call_id").map(fit);
        let calls = message.more.get_mut("tool_calls");
        for call in calls.and_then(Json::as_array_mut).into_iter().flatten() {
            call.get_mut("id").map(fit);
            if let Some(arguments) = call.pointer_mut("/function/arguments")
                && functions.takes_objects()
                && let Some(text) = arguments.as_str()
                // What is no object stays the text that it is, and `completion` has what is left to try.
                && let Some(object) = object(text)
            {
                *arguments = Json::Object(object);
            }
        }
    }
    Cow::Owned(request)
}

/// The object that a model's arguments are. Some models write none for no arguments, or write the object
/// into a string.
fn object(text: &str) -> Option<Map<String, Json>> {
    if text.trim().is_empty() {
        return Some(Map::new());
    }
    numbers::object(text).or_else(|| match serde_json::from_str(text).ok()? {
        Json::Null => Some(Map::new()),
        Json::String(inner) => numbers::object(&inner),
        _ => None,
    })
}

/// An id of nine letters and digits for this one, the same at every rendering.
fn nine_letters(id: &str) -> String {
    if id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return id.to_owned();
    }
    const DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    // FNV-1a: what matters is that it never changes.
    let mut hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut short = String::with_capacity(9);
    for _ in 0..9 {
        short.push(char::from(DIGITS[(hash % 36) as usize]));
        hash /= 36;
    }
    short
}

/// In words what the template does not show of functions, calls and results. The form is the one that
/// `reply` reads where it knows no other.
pub(super) fn in_words(
    messages: Vec<TemplateMessage>,
    request: &RenderRequest,
    twins: &Twins,
    swaps: &Swaps,
    shown: Functions,
) -> Vec<TemplateMessage> {
    if shown.are_shown && shown.calls_are_shown && shown.results_are_shown {
        return messages;
    }
    let own = |text: &str| swaps.apply(text).into_owned();
    // No client can write it.
    let end_of_result = twins.write(RESULT[1]);
    let mut worded: Vec<TemplateMessage> = Vec::with_capacity(messages.len() + 1);
    for (mut message, sent) in messages.into_iter().zip(&request.messages) {
        let calls = sent.more.get("tool_calls").and_then(Json::as_array);
        let calls = calls.filter(|_| !shown.calls_are_shown);
        if calls.is_some() {
            message.more.retain(|(name, _)| name != "tool_calls");
        }
        for call in calls.into_iter().flatten() {
            if !message.content.is_empty() {
                message.content.push('\n');
            }
            message
                .content
                .push_str(&between(twins, CALL, &own(&call_in_words(call))));
        }
        if message.role != ChatRole::Tool || shown.results_are_shown {
            worded.push(message);
            continue;
        }
        // Calls in words have no ids, so results stand in the order of the calls and have their names.
        let name = sent.name.as_ref().map(|name| own(&format!("{name}:\n")));
        let result = name.unwrap_or_default() + &between(twins, RESULT, &message.content);
        match worded.last_mut() {
            // Results of one answer's calls are one message.
            Some(last) if last.role == ChatRole::User && last.content.ends_with(&end_of_result) => {
                last.content.push('\n');
                last.content.push_str(&result);
            }
            _ => worded.push(TemplateMessage::new(ChatRole::User, result)),
        }
    }
    if shown.are_shown {
        return worded;
    }
    if let Some(tools) = request.tools.as_ref().and_then(Json::as_array) {
        let mut text = own(&functions_in_words(tools));
        text.push_str(&form_in_words(twins));
        match worded.first_mut() {
            Some(first) if first.role == ChatRole::System => {
                first.content.push_str("\n\n");
                first.content.push_str(&text);
            }
            _ => worded.insert(0, TemplateMessage::new(ChatRole::System, text)),
        }
    }
    worded
}

/// What stands before a call and behind it, where the template shows none.
const CALL: [&str; 2] = ["<tool_call>", "</tool_call>"];
/// The same of a result.
const RESULT: [&str; 2] = ["<tool_response>", "</tool_response>"];

/// The markers of `in_words`.
pub fn markers_in_words() -> impl Iterator<Item = &'static str> {
    CALL.into_iter().chain(RESULT)
}

/// What the markers of `in_words` are made of beside letters. They may be control tokens of the model
/// and are the daemon's own, so they are written in twins.
pub(super) const MARKS: &str = "<>/_";

fn between(twins: &Twins, [open, close]: [&str; 2], text: &str) -> String {
    format!("{}\n{text}\n{}", twins.write(open), twins.write(close))
}

fn call_in_words(call: &Json) -> String {
    let part = |name: &str| call.pointer(name).cloned().unwrap_or_default();
    let arguments = match part("/function/arguments") {
        Json::String(text) => text,
        other => other.to_string(),
    };
    let name = part("/function/name");
    format!("{{\"name\": {name}, \"arguments\": {arguments}}}")
}

fn functions_in_words(tools: &[Json]) -> String {
    let mut text = "You may call functions. Each of these lines describes one:\n".to_owned();
    for tool in tools {
        let function = tool.get("function").unwrap_or(tool);
        text.push_str(&numbers::to_json(function));
        text.push('\n');
    }
    text
}

fn form_in_words(twins: &Twins) -> String {
    let call = between(twins, CALL, "{\"name\": \"NAME\", \"arguments\": {}}");
    let [open, close] = RESULT.map(|marker| twins.write(marker));
    format!(
        "To call one, answer with its name and its arguments, in this form:\n\
         {call}\n\
         Its result follows its name, between {open} and {close}."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_nine_letters_and_stays_what_it_is() {
        assert_eq!(nine_letters("aB3dE6gH9"), "aB3dE6gH9");
        let minted = nine_letters("call_5a0c7d1e93b24f6ab8d01c2f");
        assert!(minted.len() == 9 && minted.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(minted, nine_letters("call_5a0c7d1e93b24f6ab8d01c2f"));
        assert_ne!(minted, nine_letters("call_5a0c7d1e93b24f6ab8d01c2e"));
    }
}
