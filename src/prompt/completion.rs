//! What a template may miss of a conversation that it was not made for, each added only where the template
//! refuses the conversation without it. Nothing that the client sent is left out.

use std::borrow::Cow;

use minijinja::value::{Value, ValueKind};
use serde_json::{Map, Value as Json};

use super::conversation::TemplateMessage;
use super::{RenderRequest, forms};

const CALLS: &str = "tool_calls";

/// Makes arguments that are no object the one member of one: a call that its budget cut is no JSON, and
/// some models write lists. Returns whether there are any.
pub(super) fn arguments_in_an_object(messages: &mut [TemplateMessage]) -> bool {
    let mut has_any = false;
    for message in messages {
        let Some(calls) = message.get(CALLS).and_then(|calls| calls.try_iter().ok()) else {
            continue;
        };
        let calls: Vec<Value> = calls
            .map(|call| {
                let Some(function) = with_object(&call) else {
                    return call;
                };
                has_any = true;
                with(&call, "function", function)
            })
            .collect();
        message.set(CALLS, Value::from(calls));
    }
    has_any
}

/// The function of a call whose arguments are a text, with an object instead.
fn with_object(call: &Value) -> Option<Value> {
    const ARGUMENTS: &str = "arguments";
    let function = call.get_attr("function").ok()?;
    let arguments = function.get_attr(ARGUMENTS).ok()?;
    let is_text = arguments.kind() == ValueKind::String;
    let object = || Value::from_pairs([(ARGUMENTS, arguments.clone())]);
    is_text.then(|| with(&function, ARGUMENTS, object()))
}

/// A dict with another value of a key.
fn with(dict: &Value, key: &str, value: Value) -> Value {
    let keys = dict.try_iter().into_iter().flatten();
    Value::from_pairs(keys.map(|name| {
        let value = match name.as_str() == Some(key) {
            true => value.clone(),
            false => dict.get_item(&name).unwrap_or_default(),
        };
        (name, value)
    }))
}

/// Gives functions without a description an empty one. Returns whether there are any.
pub(super) fn empty_descriptions(request: &mut Cow<'_, RenderRequest>) -> bool {
    const DESCRIPTION: &str = "description";
    let lacks_one = |tool: &Json| {
        let function = tool.get("function").and_then(Json::as_object);
        function.is_some_and(|function| !function.contains_key(DESCRIPTION))
    };
    let tools = request.tools.as_ref().and_then(Json::as_array);
    if !tools.is_some_and(|tools| tools.iter().any(lacks_one)) {
        return false;
    }
    let tools = request.to_mut().tools.as_mut();
    for tool in tools.and_then(Json::as_array_mut).into_iter().flatten() {
        if !lacks_one(tool) {
            continue;
        }
        if let Some(function) = tool.get_mut("function").and_then(Json::as_object_mut) {
            let mut described = Map::new();
            for (key, value) in std::mem::take(function) {
                let is_name = key == "name";
                described.insert(key, value);
                // It stands where clients write it.
                if is_name {
                    described.insert(DESCRIPTION.to_owned(), "".into());
                }
            }
            *function = described;
        }
    }
    true
}

/// Names of a message's reasoning.
const THOUGHTS: [&str; 2] = ["thinking", "reasoning_content"];

/// Puts what an answer with calls says behind what it thought, for templates that show one of both.
/// Returns whether there is such an answer.
pub(super) fn contents_in_thoughts(messages: &mut Vec<TemplateMessage>) -> bool {
    let mut has_any = false;
    for message in messages.iter_mut() {
        let thought = message.get(THOUGHTS[0]).and_then(Value::as_str);
        let thought = thought.filter(|thought| !thought.is_empty());
        let has_call = message.get(CALLS).is_some() && !message.content.is_empty();
        let Some(thought) = thought.filter(|_| has_call) else {
            continue;
        };
        let both = Value::from(format!("{thought}\n\n{}", message.content));
        has_any = true;
        message.content.clear();
        for name in THOUGHTS {
            message.set(name, both.clone());
        }
    }
    // Such a template may also show one of several calls.
    if has_any {
        *messages = forms::one_call_an_answer(std::mem::take(messages));
    }
    has_any
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::conversation::client_value;
    use crate::prompt::twins::Swaps;
    use serde_json::json;

    #[test]
    fn only_what_lacks_something_is_completed() {
        let call = |arguments: Json| json!([{"id": "a", "function": {"name": "f", "arguments": arguments}}]);
        let message = |arguments: Json| {
            let mut message = TemplateMessage::new(crate::prompt::ChatRole::Assistant, "");
            message.set(CALLS, client_value(&call(arguments), &Swaps::default()));
            message
        };
        let mut messages = vec![message(json!({"a": 1})), message(json!("cut"))];
        assert!(arguments_in_an_object(&mut messages));
        assert_eq!(messages[0], message(json!({"a": 1})));
        assert_eq!(messages[1], message(json!({"arguments": "cut"})));
        assert!(!arguments_in_an_object(&mut messages));
        assert!(!contents_in_thoughts(&mut messages));
        messages[0].set("thinking", Value::from("A thought."));
        assert!(!contents_in_thoughts(&mut messages));
        messages[0].content = "A text.".to_owned();
        assert!(contents_in_thoughts(&mut messages));
        assert_eq!(
            messages[0].get("thinking").and_then(Value::as_str),
            Some("A thought.\n\nA text.")
        );

        let mut request = RenderRequest::new(Vec::new(), jiff::civil::DateTime::ZERO);
        let tools = json!([
            {"function": {"name": "f", "parameters": {}}},
            {"function": {"name": "g", "description": "x"}},
        ]);
        request.tools = Some(tools);
        let mut completed = Cow::Borrowed(&request);
        assert!(empty_descriptions(&mut completed));
        assert_eq!(
            completed.tools.as_ref().unwrap().to_string(),
            "[{\"function\":{\"name\":\"f\",\"description\":\"\",\"parameters\":{}}},\
             {\"function\":{\"name\":\"g\",\"description\":\"x\"}}]"
        );
        assert!(!empty_descriptions(&mut completed));
    }
}
