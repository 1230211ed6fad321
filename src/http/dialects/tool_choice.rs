//! What a request chooses among its functions: `tool_choice`, and the older `function_call`.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};

use super::parameters::is_empty;
use crate::conversation::ToolChoice;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::{FreeObject, Outline, ValuesLeft};

pub(super) const TOOL_CHOICE: &str = "tool_choice";
pub(super) const FUNCTION_CALL: &str = "function_call";

/// A word, or an object that names functions.
#[derive(Clone, Debug)]
pub(crate) enum Chosen {
    Object(FreeObject),
    Other(Outline),
}

impl<'de> Deserialize<'de> for Chosen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Box::<RawValue>::deserialize(deserializer)?;
        let read = match written.get().starts_with('{') {
            true => serde_json::from_str(written.get()).map(Self::Object),
            false => serde_json::from_str(written.get()).map(Self::Other),
        };
        read.map_err(D::Error::custom)
    }
}

/// What is chosen among the functions, where there are any.
pub(super) fn choice(
    given: Option<Chosen>,
    param: &'static str,
    has_functions: bool,
    values: &mut ValuesLeft,
) -> Result<ToolChoice, RequestError> {
    let word = match given {
        None => return Ok(ToolChoice::Auto),
        Some(Chosen::Object(object)) => {
            let object = object.read(param, values)?;
            return match has_functions || object.is_empty() {
                true if object.is_empty() && !has_functions => Ok(ToolChoice::Auto),
                true => named(&object, param),
                false => Err(without_functions(param)),
            };
        }
        Some(Chosen::Other(Outline(word))) => word,
    };
    match word.as_str() {
        Some("auto") => Ok(ToolChoice::Auto),
        Some("none") => Ok(ToolChoice::None),
        _ if !has_functions && is_empty(&word) => Ok(ToolChoice::Auto),
        _ if !has_functions => Err(without_functions(param)),
        Some("required") if param == TOOL_CHOICE => Ok(ToolChoice::Required),
        _ => Err(not_a_choice(param)),
    }
}

fn without_functions(param: &'static str) -> RequestError {
    RequestError::unsupported(
        param,
        "without functions, only `none`, `auto` or null is accepted",
    )
}

fn not_a_choice(param: &'static str) -> RequestError {
    let problem = match param {
        FUNCTION_CALL => "must be `none`, `auto` or an object that names a function",
        _ => "must be `none`, `auto`, `required` or an object that names a function",
    };
    RequestError::out_of_range(param, problem)
}

fn text<'v>(of: &'v Map<String, Value>, field: &str) -> Option<&'v str> {
    of.get(field).and_then(Value::as_str)
}

fn object<'v>(of: &'v Map<String, Value>, field: &str) -> Option<&'v Map<String, Value>> {
    of.get(field).and_then(Value::as_object)
}

/// The name in `{"type":"function","function":{"name"}}`, or right beside the type.
fn name(of: &Map<String, Value>) -> Option<&str> {
    let inner = object(of, "function").and_then(|function| text(function, "name"));
    inner.or_else(|| text(of, "name"))
}

fn named(choice: &Map<String, Value>, param: &'static str) -> Result<ToolChoice, RequestError> {
    let kind = choice.get("type").filter(|kind| !kind.is_null());
    match kind.map(Value::as_str) {
        None | Some(Some("function")) => {
            let name = match param {
                FUNCTION_CALL => text(choice, "name"),
                _ => name(choice),
            };
            let missing = match param {
                FUNCTION_CALL => "function_call.name",
                _ => "tool_choice.function.name",
            };
            name.map(|name| ToolChoice::Named(name.to_owned()))
                .ok_or_else(|| RequestError::missing(missing))
        }
        Some(Some("allowed_tools")) if param == TOOL_CHOICE => {
            allowed(object(choice, "allowed_tools").unwrap_or(choice))
        }
        _ => Err(RequestError::unsupported(
            format!("{param}.type"),
            "`function` and, of `tool_choice`, `allowed_tools` are",
        )),
    }
}

fn allowed(choice: &Map<String, Value>) -> Result<ToolChoice, RequestError> {
    const MODE: &str = "tool_choice.allowed_tools.mode";
    const TOOLS: &str = "tool_choice.allowed_tools.tools";
    let is_required = match text(choice, "mode") {
        Some("auto") => false,
        Some("required") => true,
        _ => {
            return Err(RequestError::out_of_range(
                MODE,
                "must be `auto` or `required`",
            ));
        }
    };
    let tools = choice.get("tools").and_then(Value::as_array);
    let tools = tools.filter(|tools| !tools.is_empty());
    let tools = tools.ok_or_else(|| RequestError::missing(TOOLS))?;
    let names = tools.iter().enumerate().map(|(index, tool)| {
        let name = tool.as_object().and_then(name);
        name.map(str::to_owned)
            .ok_or_else(|| RequestError::missing(format!("{TOOLS}[{index}].function.name")))
    });
    Ok(ToolChoice::Allowed {
        names: names.collect::<Result<_, _>>()?,
        is_required,
    })
}

pub(super) fn tool_choice_schema() -> Schema {
    choice_schema(
        &["none", "auto", "required"],
        "`none`: the model is not told of the functions; `auto`: it calls them as it likes; `required`: it \
         calls at least one; `{\"type\":\"function\",\"function\":{\"name\"}}`: it calls this one, once; \
         `{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\",\"tools\"}}`: as `auto` or `required`, with \
         some of them. Default `auto`.",
    )
}

pub(super) fn function_call_schema() -> Schema {
    choice_schema(
        &["none", "auto"],
        "The older form of `tool_choice`: `none`, `auto` or `{\"name\"}`.",
    )
}

fn choice_schema(words: &[&str], description: &str) -> Schema {
    let words = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(words.iter().copied()));
    OneOfBuilder::new()
        .item(words)
        .item(ObjectBuilder::new().schema_type(Type::Object))
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .description(Some(description))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::ChatSettings;
    use serde_json::json;

    fn read(given: &Value, param: &'static str) -> Result<ToolChoice, RequestError> {
        let given: Chosen = serde_json::from_str(&given.to_string()).expect("a value");
        let mut values = ValuesLeft::of(&ChatSettings::default());
        choice(Some(given), param, true, &mut values)
    }

    #[test]
    fn every_form_of_a_choice_is_read() {
        let f = || ToolChoice::Named("f".to_owned());
        for (given, expected) in [
            (json!("auto"), ToolChoice::Auto),
            (json!("none"), ToolChoice::None),
            (json!("required"), ToolChoice::Required),
            (json!({"type": "function", "function": {"name": "f"}}), f()),
            (json!({"type": "function", "name": "f"}), f()),
        ] {
            assert_eq!(read(&given, TOOL_CHOICE).ok(), Some(expected), "{given}");
        }
        assert_eq!(read(&json!({"name": "f"}), FUNCTION_CALL).ok(), Some(f()));
        let tools: Vec<Value> = (0..100)
            .map(|n| json!({"type": "function", "function": {"name": format!("f{n}")}}))
            .collect();
        for (mode, is_required) in [("auto", false), ("required", true)] {
            let own = json!({"mode": mode, "tools": tools});
            let given = json!({"type": "allowed_tools", "allowed_tools": own});
            let Ok(ToolChoice::Allowed {
                names,
                is_required: read,
            }) = read(&given, TOOL_CHOICE)
            else {
                panic!("{mode} is one");
            };
            assert_eq!((names.len(), read), (100, is_required));
        }
    }

    #[test]
    fn what_is_no_choice_is_refused_by_its_field() {
        for (given, param, field) in [
            (json!("any"), TOOL_CHOICE, "tool_choice"),
            (json!(7), TOOL_CHOICE, "tool_choice"),
            (json!("required"), FUNCTION_CALL, "function_call"),
            (json!({}), TOOL_CHOICE, "tool_choice.function.name"),
            (json!({"type": "custom"}), TOOL_CHOICE, "tool_choice.type"),
            (
                json!({"type": "allowed_tools", "allowed_tools": {"mode": "x"}}),
                TOOL_CHOICE,
                "tool_choice.allowed_tools.mode",
            ),
            (
                json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{}]}}),
                TOOL_CHOICE,
                "tool_choice.allowed_tools.tools[0].function.name",
            ),
        ] {
            let refused = read(&given, param).expect_err("it is refused").to_string();
            assert!(refused.contains(&format!("`{field}`")), "{refused}");
        }
    }
}
