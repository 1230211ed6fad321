//! What a conversation is to a template: fields by the names that Ollama's templates have for them.

use std::sync::Arc;

use serde_json::{Map as JsonMap, Value as Json};

use super::value::{Kind, List, Map, Member, Text, Value};
use crate::prompt::{ChatMessage, ChatRole, RenderRequest, numbers};

/// Names of an answer's thoughts.
const THOUGHTS: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
/// Variables that tell a template whether to think.
const THINKS: [&str; 2] = ["enable_thinking", "thinking"];

/// A field by its name in templates, its key in JSON, and whether that may be left out.
type Field = (&'static str, &'static str, bool);

const TOOL: [Field; 3] = [
    ("Type", "type", false),
    ("Items", "items", true),
    ("Function", "function", false),
];
const FUNCTION: [Field; 3] = [
    ("Name", "name", false),
    ("Description", "description", true),
    ("Parameters", "parameters", false),
];
const PARAMETERS: [Field; 5] = [
    ("Type", "type", false),
    ("Defs", "$defs", true),
    ("Items", "items", true),
    ("Required", "required", true),
    ("Properties", "properties", false),
];
const PROPERTY: [Field; 7] = [
    ("AnyOf", "anyOf", true),
    ("Type", "type", true),
    ("Items", "items", true),
    ("Description", "description", true),
    ("Enum", "enum", true),
    ("Properties", "properties", true),
    ("Required", "required", true),
];

/// How what a client sent is seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Tool,
    Function,
    Parameters,
    /// By the names of what they describe.
    Properties,
    Property,
    AnyOf,
    Plain,
}

/// What a template is told of a turn of a conversation.
#[derive(Clone, Debug, Default)]
pub(in crate::prompt) struct TurnTexts {
    pub system: String,
    pub prompt: String,
    pub response: String,
    pub suffix: String,
}

fn member(name: &str, key: &str, value: Value) -> Member {
    Member {
        name: name.into(),
        key: key.into(),
        value,
        may_be_left_out: false,
    }
}

fn record(kind: Kind, members: Vec<Member>, is_json: bool) -> Value {
    Value::Map(Arc::new(Map {
        members,
        kind,
        is_json,
    }))
}

fn root(fields: Vec<(&str, Value)>, request: &RenderRequest) -> Value {
    let mut thinks = THINKS.iter();
    let thinks = thinks.find_map(|name| request.variables.get(*name)?.as_bool());
    let level = request.variables.get("reasoning_effort");
    let level = level.and_then(Json::as_str).unwrap_or_default();
    let more = [
        ("Think", Value::Bool(thinks.unwrap_or(false))),
        ("ThinkLevel", Value::of_client(level)),
        ("IsThinkSet", Value::Bool(thinks.is_some())),
    ];
    let fields = fields.into_iter().chain(more);
    let members = fields.map(|(name, value)| member(name, name, value));
    record(Kind::Root, members.collect(), false)
}

/// One turn, for a template that knows no messages.
pub(in crate::prompt) fn of_turn(turn: &TurnTexts, request: &RenderRequest) -> Value {
    let fields = [
        ("System", &turn.system),
        ("Prompt", &turn.prompt),
        ("Response", &turn.response),
        ("Suffix", &turn.suffix),
    ];
    let fields = fields.map(|(name, text)| (name, Value::of_client(text.as_str())));
    let fields = fields.into();
    root(fields, request)
}

/// A whole conversation, its neighbours of one role as one message.
pub(in crate::prompt) fn of_conversation(request: &RenderRequest) -> Value {
    let mut said: Vec<ChatMessage> = Vec::new();
    for message in &request.messages {
        let is_plain = message.role != ChatRole::Tool && message.more.is_empty();
        match said.last_mut() {
            Some(last) if is_plain && last.role == message.role && last.more.is_empty() => {
                last.content.push_str("\n\n");
                last.content.push_str(&message.content);
            }
            _ => said.push(message.clone()),
        }
    }
    let systems = request.messages.iter();
    let systems = systems.filter(|message| message.role == ChatRole::System);
    let systems: Vec<&str> = systems.map(|message| message.content.as_str()).collect();
    let count = said.len();
    let messages = said.into_iter().enumerate();
    let messages = messages.map(|(nth, message)| of_message(&message, request, nth + 1 == count));
    let tools = match request.tools.as_ref() {
        Some(tools) => list(tools, Shape::Tool, true),
        None => Value::List(List::of(Vec::new(), true)),
    };
    let fields = vec![
        ("System", Value::of_client(systems.join("\n\n"))),
        ("Messages", Value::List(List::of(messages.collect(), false))),
        ("Tools", tools),
        // Asked for, in templates that are written for both.
        ("Prompt", Value::of_client("")),
        ("Response", Value::of_client("")),
        ("Suffix", Value::of_client("")),
    ];
    root(fields, request)
}

fn of_message(message: &ChatMessage, request: &RenderRequest, is_last: bool) -> Value {
    let text = |name: &str| message.more.get(name).and_then(Json::as_str);
    let text = |name: &str| Value::of_client(text(name).unwrap_or_default());
    let thought = THOUGHTS
        .iter()
        .find_map(|name| message.more.get(*name)?.as_str());
    let calls = message.more.get("tool_calls").and_then(Json::as_array);
    let calls = calls.into_iter().flatten();
    let calls = calls.map(|call| of_call(call, request.arguments_are_text));
    let name = message.name.as_deref().unwrap_or_default();
    let members = vec![
        // One of four words, as the template would write them.
        member("Role", "role", Value::Text(Text::own(message.role.name()))),
        member(
            "Content",
            "content",
            Value::Text(Text {
                is_last,
                ..Text::of_client(message.content.as_str())
            }),
        ),
        left_out(
            "Thinking",
            "thinking",
            Value::of_client(thought.unwrap_or_default()),
        ),
        left_out("Images", "images", Value::List(List::of(Vec::new(), false))),
        left_out(
            "ToolCalls",
            "tool_calls",
            Value::List(List::of(calls.collect(), false)),
        ),
        left_out("ToolName", "tool_name", Value::of_client(name)),
        left_out("ToolCallID", "tool_call_id", text("tool_call_id")),
    ];
    record(Kind::Record, members, false)
}

fn left_out(name: &str, key: &str, value: Value) -> Member {
    Member {
        may_be_left_out: true,
        ..member(name, key, value)
    }
}

fn of_call(call: &Json, arguments_are_text: bool) -> Value {
    let function = call.get("function").unwrap_or(&Json::Null);
    let text = |of: &Json, name: &str| {
        Value::of_client(of.get(name).and_then(Json::as_str).unwrap_or_default())
    };
    let nothing = Json::Object(JsonMap::new());
    let arguments = function.get("arguments").unwrap_or(&nothing);
    let read = match arguments {
        Json::String(written) if arguments_are_text => numbers::object(written).map(Json::Object),
        _ => None,
    };
    let index = function.get("index").and_then(Json::as_i64).unwrap_or(0);
    let function = vec![
        left_out("Index", "index", Value::Int(index)),
        member("Name", "name", text(function, "name")),
        member(
            "Arguments",
            "arguments",
            shaped(read.as_ref().unwrap_or(arguments), Shape::Plain, true),
        ),
    ];
    let members = vec![
        left_out("ID", "id", text(call, "id")),
        member("Function", "function", record(Kind::Record, function, true)),
    ];
    record(Kind::Record, members, false)
}

fn list(of: &Json, shape: Shape, is_json: bool) -> Value {
    let items = of.as_array().into_iter().flatten();
    let items = items.map(|item| shaped(item, shape, matches!(shape, Shape::Tool)));
    Value::List(List::of(items.collect(), is_json))
}

/// `is_json`: it is written as JSON.
fn shaped(of: &Json, shape: Shape, is_json: bool) -> Value {
    let (fields, is_json): (&[Field], bool) = match shape {
        Shape::Tool => (&TOOL, true),
        Shape::Function => (&FUNCTION, true),
        Shape::Parameters => (&PARAMETERS, true),
        Shape::Property => (&PROPERTY, false),
        Shape::Properties => (&[], true),
        Shape::AnyOf | Shape::Plain => (&[], is_json),
    };
    match of {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::of_client(text.as_str()),
        Json::Array(_) if shape == Shape::AnyOf => list(of, Shape::Property, is_json),
        Json::Array(_) => list(of, Shape::Plain, is_json),
        Json::Object(object) if fields.is_empty() => {
            let large = numbers::of_object(object, str::to_owned);
            let large = large.as_ref().and_then(numbers::written);
            if let Some(large) = large.and_then(|large| large.parse().ok()) {
                return Value::Float(large);
            }
            let inner = match shape {
                Shape::Properties => Shape::Property,
                _ => Shape::Plain,
            };
            let members = object.iter();
            let members = members.map(|(key, value)| member("", key, shaped(value, inner, false)));
            record(Kind::Map, members.collect(), is_json)
        }
        Json::Object(object) => {
            let known = fields.iter().map(|(name, key, may_be_left_out)| {
                let value = object.get(*key).filter(|value| !value.is_null());
                let value = match value {
                    Some(value) if shape == Shape::Property && *key == "type" => types(value),
                    Some(value) => shaped(value, inner(key), false),
                    None if shape == Shape::Property && *key == "type" => {
                        types(&Json::Array(Vec::new()))
                    }
                    None => absent(key),
                };
                Member {
                    may_be_left_out: *may_be_left_out,
                    ..member(name, key, value)
                }
            });
            let is_more = |key: &str| fields.iter().all(|field| field.1 != key);
            // Ollama leaves these out; a schema says less without them.
            let more = object.iter().filter(|(key, _)| is_more(key));
            let more = more.map(|(key, value)| member("", key, shaped(value, Shape::Plain, false)));
            record(Kind::Record, known.chain(more).collect(), is_json)
        }
    }
}

/// What a property may be: clients write one, or a list.
fn types(of: &Json) -> Value {
    let types = match of {
        Json::Array(types) => types.as_slice(),
        one => std::slice::from_ref(one),
    };
    let types = types.iter().map(|one| shaped(one, Shape::Plain, false));
    Value::List(List {
        are_types: true,
        ..List::of(types.collect(), false)
    })
}

/// What is under this key of an object that is known.
fn inner(key: &str) -> Shape {
    match key {
        "function" => Shape::Function,
        "parameters" => Shape::Parameters,
        "properties" => Shape::Properties,
        "anyOf" => Shape::AnyOf,
        _ => Shape::Plain,
    }
}

/// What a field is that a client has left out.
fn absent(key: &str) -> Value {
    match key {
        "type" | "name" | "description" => Value::of_client(""),
        "required" | "enum" | "anyOf" => Value::List(List::of(Vec::new(), false)),
        "function" | "parameters" | "properties" => {
            shaped(&Json::Object(JsonMap::new()), inner(key), false)
        }
        _ => Value::Nil,
    }
}
