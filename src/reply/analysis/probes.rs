//! Conversations that differ in one thing, and what the template writes of them.

use serde_json::{Map, Value, json};

use super::Render;
use crate::reply::found::TemplateTraits;

/// What is rendered. Its words occur in no template.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// As a template sees them.
    pub messages: Vec<Map<String, Value>>,
    pub tools: Option<Value>,
    pub variables: Map<String, Value>,
    /// With what opens an answer.
    pub asks_for_answer: bool,
}

pub(super) const QUESTION: &str = "zqquestion";
pub(super) const ANSWER: &str = "zqanswer";
pub(super) const THOUGHT: &str = "zqthought";
pub(super) const RESULT: &str = "zqresult";
pub(super) const NAMES: [&str; 2] = ["zqfirst", "zqsecond"];
pub(super) const KEYS: [&str; 2] = ["zqkeya", "zqkeyb"];
pub(super) const VALUES: [&str; 2] = ["zqvala", "zqvalb"];
/// Nine letters and digits, as some templates demand.
pub(super) const IDS: [&str; 2] = ["zqcall001", "zqcall002"];
const LONG_ID: &str = "call_zq0123456789abcdef";

pub(super) fn message(role: &str, content: &str) -> Map<String, Value> {
    object(json!({"role": role, "content": content}))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

pub(super) fn tools() -> Value {
    let tool = |name: &str| {
        json!({"type": "function", "function": {
            "name": name,
            "description": "Does it.",
            "parameters": {"type": "object", "properties": {
                KEYS[0]: {"type": "string", "description": "One."},
                KEYS[1]: {"type": "string", "description": "Two."},
            }, "required": [KEYS[0]]},
        }})
    };
    json!([tool(NAMES[0]), tool(NAMES[1])])
}

/// How arguments and ids are given to a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub arguments_as_text: bool,
    pub has_long_ids: bool,
}

/// Messages of a question and calls with so many arguments each.
pub(super) fn calling(way: Way, content: &str, calls: &[usize]) -> Conversation {
    let call = |(index, arguments): (usize, &usize)| {
        let arguments: Map<String, Value> = KEYS
            .iter()
            .zip(VALUES)
            .take(*arguments)
            .map(|(key, value)| ((*key).to_owned(), Value::from(value)))
            .collect();
        let arguments = match way.arguments_as_text {
            true => Value::from(Value::Object(arguments).to_string()),
            false => Value::Object(arguments),
        };
        let id = if way.has_long_ids {
            LONG_ID
        } else {
            IDS[index % 2]
        };
        json!({"id": id, "type": "function", "function": {
            "name": NAMES[index % 2], "arguments": arguments,
        }})
    };
    let calls: Vec<Value> = calls.iter().enumerate().map(call).collect();
    let mut answer = message("assistant", content);
    answer.insert("tool_calls".to_owned(), Value::Array(calls));
    Conversation {
        messages: vec![message("user", QUESTION), answer],
        tools: Some(tools()),
        ..Conversation::default()
    }
}

pub(super) fn answered() -> Conversation {
    Conversation {
        messages: vec![message("user", QUESTION), message("assistant", ANSWER)],
        tools: Some(tools()),
        ..Conversation::default()
    }
}

pub(super) fn asked(variables: &[(&str, Value)], tools: Option<Value>) -> Conversation {
    Conversation {
        messages: vec![message("user", QUESTION)],
        tools,
        variables: variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
        asks_for_answer: true,
    }
}

/// A template with the way in which it writes calls.
pub(super) struct Probed<'r> {
    pub render: Render<'r>,
    /// `None`: it writes none.
    pub way: Option<Way>,
}

impl<'r> Probed<'r> {
    pub fn new(render: Render<'r>) -> Self {
        let ways = [false, true].map(|arguments_as_text| Way {
            arguments_as_text,
            has_long_ids: false,
        });
        let shows = |way: &Way| {
            let written = render(&calling(*way, "", &[1]));
            written.is_some_and(|text| {
                let call = after_question(&text).unwrap_or_default();
                call.contains(NAMES[0]) && call.contains(VALUES[0])
            })
        };
        // Text that is escaped again as a text of JSON is not how arguments are written.
        let is_escaped =
            |way: &Way| render(&calling(*way, "", &[1])).is_some_and(|text| text.contains("\\\""));
        let shown: Vec<Way> = ways.into_iter().filter(shows).collect();
        let way = shown.iter().find(|way| !is_escaped(way)).or(shown.first());
        Self {
            render,
            way: way.copied(),
        }
    }

    pub fn traits(&self) -> TemplateTraits {
        let render = self.render;
        let way = self.way.unwrap_or(Way {
            arguments_as_text: false,
            has_long_ids: false,
        });
        let long = Way {
            has_long_ids: true,
            ..way
        };
        let takes_long_ids = || render(&calling(long, "", &[1])).is_some();
        let mut with_result = calling(way, "", &[1]);
        with_result.messages.push(result(0));
        with_result.asks_for_answer = true;
        let shows_both = |conversation: &Conversation| {
            let written = render(conversation);
            written.map(|text| {
                let calls = after_question(&text).unwrap_or_default();
                NAMES.iter().all(|name| calls.contains(name))
            })
        };
        // One that refuses them loses none.
        let hides_calls =
            self.way.is_some() && shows_both(&calling(way, "", &[1, 1])) == Some(false);
        TemplateTraits {
            shows_tools: render(&asked(&[], Some(tools())))
                .is_some_and(|text| text.contains(NAMES[1])),
            shows_calls: self.way.is_some(),
            shows_results: render(&with_result).is_some_and(|text| text.contains(RESULT)),
            arguments_as_text: way.arguments_as_text,
            nine_letter_ids: self.way.is_some() && !takes_long_ids(),
            hides_calls,
            shows_calls_apart: hides_calls && shows_both(&calling_apart(way)) == Some(true),
        }
    }
}

/// What the call of this index returned.
fn result(index: usize) -> Map<String, Value> {
    let mut result = message("tool", RESULT);
    result.insert("tool_call_id".to_owned(), Value::from(IDS[index]));
    result.insert("name".to_owned(), Value::from(NAMES[index]));
    result
}

/// A question and two calls, each in an answer of its own and with its result.
fn calling_apart(way: Way) -> Conversation {
    let mut apart = calling(way, "", &[1, 1]);
    let both = apart.messages.pop().unwrap_or_default();
    let calls = both.get("tool_calls").and_then(Value::as_array);
    for (index, call) in calls.into_iter().flatten().enumerate() {
        let mut answer = message("assistant", "");
        answer.insert("tool_calls".to_owned(), json!([call]));
        apart.messages.extend([answer, result(index)]);
    }
    apart.asks_for_answer = true;
    apart
}

pub(super) fn after_question(written: &str) -> Option<&str> {
    let at = written.rfind(QUESTION)?;
    Some(&written[at + QUESTION.len()..])
}
