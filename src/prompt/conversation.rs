//! A conversation on its way into a template: texts of the client in characters that are no twins, and
//! the end of an answer to be continued marked.

use std::ops::Range;

use minijinja::value::Value;
use serde_json::Value as Json;

use super::twins::{Swaps, Twins};
use super::{
    ChatMessage, ChatRole, ClientField, ControlTokenPolicy, ControlTokens, PromptEnd,
    RenderRequest, TemplateError, numbers,
};

/// One message whose texts hold no twin.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TemplateMessage {
    pub role: ChatRole,
    pub content: String,
    /// Every other key.
    pub more: Vec<(String, Value)>,
}

impl TemplateMessage {
    pub fn new(role: ChatRole, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            more: Vec::new(),
        }
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        let found = self.more.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value)
    }

    /// Gives a key another value, or adds it.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.more.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.more.push((key.to_owned(), value)),
        }
    }

    pub fn shares_a_key(&self, other: &Self) -> bool {
        self.more.iter().any(|(name, _)| other.get(name).is_some())
    }

    /// The dict that templates see, with the role as `role` writes it.
    pub fn to_value(&self, role: impl FnOnce(&str) -> Value) -> Value {
        let fields = [
            ("role", role(self.role.name())),
            ("content", Value::from(self.content.as_str())),
        ];
        let more = self
            .more
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone()));
        Value::from_pairs(fields.into_iter().chain(more))
    }
}

/// Every text that the client sent.
pub(super) fn client_texts(request: &RenderRequest) -> Vec<&str> {
    let mut texts = message_texts(request);
    collect_fields(&request.variables, &mut texts);
    for value in [&request.tools, &request.documents].into_iter().flatten() {
        collect(value, &mut texts);
    }
    texts
}

/// Where the client's texts hold control tokens; what a template puts together of them counts as the
/// messages'.
pub(super) fn fields_with_tokens(
    request: &RenderRequest,
    tokens: &ControlTokens,
) -> Vec<ClientField> {
    let holds_one = |texts: Vec<&str>| texts.into_iter().any(|text| tokens.find(text).is_some());
    let (mut tools, mut variables) = (Vec::new(), Vec::new());
    if let Some(value) = &request.tools {
        collect(value, &mut tools);
    }
    collect_fields(&request.variables, &mut variables);
    let mut fields = Vec::new();
    fields.extend(holds_one(tools).then_some(ClientField::Tools));
    fields.extend(holds_one(variables).then_some(ClientField::Variables));
    if fields.is_empty() || holds_one(message_texts(request)) {
        fields.insert(0, ClientField::Texts);
    }
    fields
}

fn message_texts(request: &RenderRequest) -> Vec<&str> {
    request.messages.iter().flat_map(texts_of).collect()
}

pub(super) fn texts_of(message: &ChatMessage) -> Vec<&str> {
    let mut texts = vec![message.content.as_str()];
    texts.extend(message.name.as_deref());
    collect_fields(&message.more, &mut texts);
    texts
}

impl ChatMessage {
    /// Bytes of all texts in it.
    pub fn bytes(&self) -> usize {
        texts_of(self).into_iter().map(str::len).sum()
    }
}

fn collect<'v>(value: &'v Json, texts: &mut Vec<&'v str>) {
    match value {
        Json::String(text) => texts.push(text),
        Json::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        Json::Object(fields) => collect_fields(fields, texts),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

fn collect_fields<'v>(fields: &'v serde_json::Map<String, Json>, texts: &mut Vec<&'v str>) {
    for (name, value) in fields {
        texts.push(name);
        collect(value, texts);
    }
}

/// What messages are refused for, if that is the policy.
pub(super) struct Refused<'t> {
    pub tokens: &'t ControlTokens,
    /// Opener and closer of the thought that an answer may begin with.
    pub thought: Option<&'t [String; 2]>,
}

impl Refused<'_> {
    /// The first control token in what a message says. `is_continued`: its client has it gone on with.
    fn find<'m>(&self, message: &'m ChatMessage, is_continued: bool) -> Option<&'m str> {
        let content = &message.content;
        let thought = self.thought.filter(|_| message.role == ChatRole::Assistant);
        let Some(thought) = thought else {
            return self.tokens.find(content);
        };
        let mut rest = 0;
        for marker in markers_of_thought(content, thought, is_continued) {
            let found = self.tokens.find(&content[rest..marker.start]);
            if found.is_some() {
                return found;
            }
            rest = marker.end;
        }
        self.tokens.find(&content[rest..])
    }
}

/// The messages as templates may see them, or why they are refused if that is the policy.
pub(super) fn template_messages(
    request: &RenderRequest,
    refused: &Refused<'_>,
    swaps: &Swaps,
) -> Result<Vec<TemplateMessage>, TemplateError> {
    let template_message = |(index, message): (usize, &ChatMessage)| {
        if request.control_tokens == ControlTokenPolicy::Reject {
            let mut others: Vec<&str> = message.name.as_deref().into_iter().collect();
            collect_fields(&message.more, &mut others);
            let is_continued = Some(index) == continued(request.end, request.messages.len());
            let content = refused.find(message, is_continued);
            let mut others = others.into_iter();
            let found = content.or_else(|| others.find_map(|text| refused.tokens.find(text)));
            if let Some(token) = found {
                return Err(TemplateError::ControlToken {
                    index: request.sent_at.get(index).copied().unwrap_or(index),
                    is_in_content: content.is_some(),
                    token: token.to_owned(),
                });
            }
        }
        let more = message
            .more
            .iter()
            .filter(|(name, _)| !["role", "content", "name"].contains(&name.as_str()))
            .map(|(name, value)| (swaps.apply(name).into_owned(), client_value(value, swaps)));
        let reasoning = reasoning(message).map(|text| client_value(text, swaps));
        let name = message.name.as_deref();
        let name = name.map(|name| ("name".to_owned(), Value::from(swaps.apply(name))));
        Ok(TemplateMessage {
            role: message.role,
            content: swaps.apply(&message.content).into_owned(),
            more: with_reasoning(name.into_iter().chain(more).collect(), reasoning),
        })
    };
    request
        .messages
        .iter()
        .enumerate()
        .map(template_message)
        .collect()
}

/// Names that an answer's reasoning has; templates know one of the first two.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

fn reasoning(message: &ChatMessage) -> Option<&Json> {
    REASONING
        .iter()
        .find_map(|name| message.more.get(*name).filter(|value| !value.is_null()))
}

/// Reasoning under every name that a template may look for it, as transformers has it.
fn with_reasoning(
    mut more: Vec<(String, Value)>,
    reasoning: Option<Value>,
) -> Vec<(String, Value)> {
    if let Some(reasoning) = reasoning {
        more.retain(|(name, _)| name != "reasoning_content");
        if !more.iter().any(|(name, _)| name == "thinking") {
            more.push(("thinking".to_owned(), reasoning.clone()));
        }
        more.push(("reasoning_content".to_owned(), reasoning));
    }
    more
}

/// A client's value as templates may see it.
pub(super) fn client_value(value: &Json, swaps: &Swaps) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => numbers::value(number),
        Json::String(text) => Value::from(swaps.apply(text)),
        Json::Array(items) => items.iter().map(|item| client_value(item, swaps)).collect(),
        Json::Object(fields) => {
            let text = |text: &str| swaps.apply(text).into_owned();
            numbers::of_object(fields, text).unwrap_or_else(|| {
                let fields = fields.iter();
                Value::from_pairs(
                    fields.map(|(name, value)| (text(name), client_value(value, swaps))),
                )
            })
        }
    }
}

/// Keeps the thought that an answer begins with, or in which its client has it continued, in the markers
/// that its model reads. Whatever else looks like one stays text.
pub(super) fn keep_thoughts(
    messages: &mut [TemplateMessage],
    thought: &[String; 2],
    twins: &Twins,
    end: PromptEnd,
) {
    let continued = continued(end, messages.len());
    for (index, message) in messages.iter_mut().enumerate() {
        if message.role != ChatRole::Assistant {
            continue;
        }
        let is_continued = Some(index) == continued;
        let markers: Vec<_> = markers_of_thought(&message.content, thought, is_continued).collect();
        // From behind, because twins take more bytes.
        for marker in markers.into_iter().rev() {
            let own = twins.write(&message.content[marker.clone()]);
            message.content.replace_range(marker, &own);
        }
    }
}

/// Which of so many messages is gone on with.
fn continued(end: PromptEnd, messages: usize) -> Option<usize> {
    match end {
        PromptEnd::Continuation => messages.checked_sub(1),
        PromptEnd::Answer | PromptEnd::Messages => None,
    }
}

/// Where in an answer the markers of the thought are that it begins with, in order. `is_continued`: it may be
/// in the middle of one.
fn markers_of_thought(
    content: &str,
    [open, close]: &[String; 2],
    is_continued: bool,
) -> impl Iterator<Item = Range<usize>> {
    let start = content.len() - content.trim_start().len();
    let opener = (content[start..].starts_with(open)).then(|| start..start + open.len());
    let from = opener.as_ref().map_or(0, |opener| opener.end);
    let may_close = opener.is_some() || is_continued;
    let closer = content[from..].find(close).filter(|_| may_close);
    let closer = closer.map(|at| from + at..from + at + close.len());
    opener.into_iter().chain(closer)
}

/// Marks the end of the last message, which the model is to continue.
///
/// The mark goes in before rendering, so the end is found also where a template changes the text or
/// drops its beginning. It is one character that no client and no template can write.
pub(super) fn mark_open_end(messages: &mut [TemplateMessage], mark: char) {
    if let Some(last) = messages.last_mut() {
        last.content.push(mark);
        // Tells whether the template keeps white space at the end of a message.
        last.content.push(' ');
    }
}

/// Ends the prompt where the mark is, if it is there; white space before it goes if the template
/// trims.
pub(super) fn cut_at_mark(prompt: &mut String, mark: char) -> Option<()> {
    let end = prompt.rfind(mark)?;
    let keeps_white_space = prompt[end + mark.len_utf8()..].starts_with(' ');
    prompt.truncate(end);
    if !keeps_white_space {
        prompt.truncate(prompt.trim_end().len());
    }
    // A template may show a message more than once.
    if prompt.contains(mark) {
        *prompt = prompt.replace(&format!("{mark} "), "").replace(mark, "");
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_ends_where_the_last_message_does() {
        for (shown, expected) in [
            ("a| so\u{10FFFD} end", "a| so"),
            ("so \u{10FFFD} <|end|>", "so "),
            ("so \u{10FFFD}<|end|>", "so"),
            ("so\u{10FFFD} so\u{10FFFD} x", "soso"),
        ] {
            let mut prompt = shown.to_owned();
            cut_at_mark(&mut prompt, '\u{10FFFD}').unwrap();
            assert_eq!(prompt, expected);
        }
        assert_eq!(cut_at_mark(&mut "so".to_owned(), '\u{10FFFD}'), None);
    }
}
