//! The functions that a model may call, and which of them it is to call. Tools of other kinds, which OpenAI's own
//! servers run or which are no functions, are not known here.

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};

use super::echo::{EchoedTool, compact};
use crate::conversation::ToolChoice;
use crate::http::dialects::functions::{Choosing, Described, Functions, Known};
use crate::http::request::body::Object;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::free_form::{FreeObject, ValuesLeft, fields_within};
use crate::http::response::notices;
use crate::settings::ChatSettings;

const TOOLS: &str = "tools";
const TOOL_CHOICE: &str = "tool_choice";

/// A tool.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ResponseTool {
    /// `function`. Others are not known, and named in `x-rkllmd-not-applied`.
    #[schema(required, nullable = false, example = "function")]
    #[expect(dead_code, reason = "it was read before the others")]
    r#type: Option<String>,
    /// What a call names; required of a function.
    name: Option<String>,
    /// What it does, for the model.
    description: Option<String>,
    /// The JSON schema of its arguments; absent where it takes none.
    #[schema(value_type = Option<Object>)]
    parameters: Option<FreeObject>,
    /// Refuses a schema that calls cannot be kept to. Where the runtime keeps none, true is named in
    /// `x-rkllmd-not-applied`. Default false.
    strict: Option<bool>,
}

/// Fields of other kinds of tools may have these names and other types.
#[derive(Deserialize)]
struct Kind {
    r#type: Option<String>,
}

#[derive(Deserialize)]
struct ChosenObject {
    r#type: Option<String>,
    name: Option<String>,
    mode: Option<String>,
    tools: Option<Vec<Object<ChosenTool>>>,
}

#[derive(Deserialize)]
struct ChosenTool {
    r#type: Option<String>,
    name: Option<String>,
}

/// What is said of tools.
pub(super) struct Read {
    pub functions: Functions,
    /// Functions as the client described them.
    pub echoed: Vec<EchoedTool>,
    /// Kinds of tools that are not known.
    pub unread: Vec<String>,
}

pub(super) fn read(
    tools: Option<Vec<Box<RawValue>>>,
    choice: Option<&RawValue>,
    parallel: bool,
    limits: &ChatSettings,
    values: &mut ValuesLeft,
) -> Result<Read, RequestError> {
    let (mut described, mut echoed, mut unread) = (Vec::new(), Vec::new(), Vec::new());
    for (index, tool) in tools.into_iter().flatten().enumerate() {
        let at = format!("{TOOLS}[{index}]");
        let Kind { r#type } = fields_within(&tool, &at)?;
        match r#type.as_deref() {
            None => return Err(RequestError::missing(format!("{at}.type"))),
            Some("function") => {
                let tool: ResponseTool = fields_within(&tool, &at)?;
                echoed.push(EchoedTool {
                    r#type: "function",
                    name: tool.name.clone().unwrap_or_default(),
                    description: tool.description.clone(),
                    parameters: (tool.parameters.as_ref())
                        .map(|parameters| compact(parameters.text())),
                    strict: tool.strict == Some(true),
                });
                described.push(Described {
                    at,
                    schema_field: "parameters",
                    name: tool.name,
                    description: tool.description,
                    schema: tool.parameters,
                    strict: tool.strict,
                });
            }
            Some(other) => {
                notices::tell_unread(&mut unread, &format!("{TOOLS}[].{other}"));
            }
        }
    }
    let known = Known::read(described, TOOLS, limits, values)?;
    let chosen = match choice {
        None => ToolChoice::Auto,
        Some(choice) => chosen(choice, !known.is_empty(), &mut unread)?,
    };
    let choosing = Choosing {
        param: TOOL_CHOICE,
        strict_param: "tools[].strict",
        parallel,
    };
    Ok(Read {
        functions: known.chosen(&chosen, choosing)?,
        echoed,
        unread,
    })
}

/// Kinds of tools that are not known are added to `unread`.
fn chosen(
    choice: &RawValue,
    has_functions: bool,
    unread: &mut Vec<String>,
) -> Result<ToolChoice, RequestError> {
    let needs_functions = |chosen: ToolChoice| match has_functions {
        true => Ok(chosen),
        false => Err(RequestError::unsupported(
            TOOL_CHOICE,
            "without functions, only `auto` and `none` are",
        )),
    };
    if choice.get().starts_with('{') {
        let chosen = named(fields_within(choice, TOOL_CHOICE)?, unread)?;
        return match &chosen {
            // None of what may be called is known, so nothing is.
            ToolChoice::Allowed { names, .. } if names.is_empty() => Ok(chosen),
            _ => needs_functions(chosen),
        };
    }
    let word: Result<String, _> = serde_json::from_str(choice.get());
    match word.as_deref() {
        Ok("auto") => Ok(ToolChoice::Auto),
        Ok("none") => Ok(ToolChoice::None),
        Ok("required") => needs_functions(ToolChoice::Required),
        Ok(other) => Err(RequestError::out_of_range(
            TOOL_CHOICE,
            format!(
                "must be `auto`, `none`, `required` or an object that names a function, not `{}`",
                quote(other)
            ),
        )),
        Err(_) => Err(RequestError::WrongType {
            param: TOOL_CHOICE.to_owned(),
            reason: "it must be a string or an object".to_owned(),
        }),
    }
}

fn named(choice: ChosenObject, unread: &mut Vec<String>) -> Result<ToolChoice, RequestError> {
    const TYPE: &str = "tool_choice.type";
    const MODE: &str = "tool_choice.mode";
    const NAMED: &str = "tool_choice.tools";
    let kind = choice.r#type.ok_or_else(|| RequestError::missing(TYPE))?;
    match kind.as_str() {
        "function" => {
            let name = choice.name.filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| RequestError::missing("tool_choice.name"))?;
            Ok(ToolChoice::Named(name))
        }
        "allowed_tools" => {
            let is_required = match choice.mode.as_deref() {
                Some("auto") => false,
                Some("required") => true,
                _ => {
                    return Err(RequestError::out_of_range(
                        MODE,
                        "must be `auto` or `required`",
                    ));
                }
            };
            let tools = choice.tools.filter(|tools| !tools.is_empty());
            let tools = tools.ok_or_else(|| RequestError::missing(NAMED))?;
            let mut names = Vec::new();
            for (index, Object(tool)) in tools.into_iter().enumerate() {
                match tool.r#type.as_deref() {
                    None | Some("function") => {
                        let missing = || RequestError::missing(format!("{NAMED}[{index}].name"));
                        names.push(tool.name.ok_or_else(missing)?);
                    }
                    Some(other) => notices::tell_unread(unread, &format!("{NAMED}[].{other}")),
                }
            }
            match names.is_empty() && is_required {
                true => Err(RequestError::unsupported(
                    NAMED,
                    "none of them is a function, of which one is to be called",
                )),
                false => Ok(ToolChoice::Allowed { names, is_required }),
            }
        }
        other => Err(RequestError::unsupported(
            TYPE,
            format!("`function` and `allowed_tools` are, not `{}`", quote(other)),
        )),
    }
}

pub(super) fn choice_schema() -> Schema {
    let words = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(["none", "auto", "required"]));
    OneOfBuilder::new()
        .item(words)
        .item(ObjectBuilder::new().schema_type(Type::Object))
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .description(Some(
            "`none`: the model is not told of the functions; `auto`: it calls them as it likes; `required`: it calls \
             at least one; `{\"type\":\"function\",\"name\"}`: it calls this one, once; \
             `{\"type\":\"allowed_tools\",\"mode\",\"tools\"}`: as `auto` or `required`, with some of them. Default \
             `auto`.",
        ))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read_choice(given: serde_json::Value) -> Result<ToolChoice, RequestError> {
        let raw = RawValue::from_string(given.to_string()).expect("JSON");
        chosen(&raw, true, &mut Vec::new())
    }

    #[test]
    fn every_form_of_a_choice_is_read() {
        let f = || ToolChoice::Named("f".to_owned());
        let tools = json!([{"type": "function", "name": "f"}]);
        for (given, expected) in [
            (json!("auto"), ToolChoice::Auto),
            (json!("none"), ToolChoice::None),
            (json!("required"), ToolChoice::Required),
            (json!({"type": "function", "name": "f"}), f()),
            (
                json!({"type": "allowed_tools", "mode": "required", "tools": tools}),
                ToolChoice::Allowed {
                    names: vec!["f".to_owned()],
                    is_required: true,
                },
            ),
        ] {
            assert_eq!(read_choice(given.clone()).ok(), Some(expected), "{given}");
        }
    }

    #[test]
    fn of_what_may_be_called_only_functions_are_known() {
        let allowed = |mode: &str, tools: serde_json::Value, has_functions: bool| {
            let given = json!({"type": "allowed_tools", "mode": mode, "tools": tools});
            let raw = RawValue::from_string(given.to_string()).expect("JSON");
            let mut unread = Vec::new();
            let choice = chosen(&raw, has_functions, &mut unread);
            choice.map(|choice| (choice, unread))
        };
        let others = json!([{"type": "mcp", "server_label": "s"}, {"type": "custom", "name": "c"}]);
        let mut mixed = others.clone();
        mixed
            .as_array_mut()
            .expect("tools")
            .push(json!({"type": "function", "name": "f"}));
        let told = ["mcp", "custom"].map(|kind| format!("tool_choice.tools[].{kind}"));
        for (mode, tools, has_functions, names) in [
            ("auto", &mixed, true, vec!["f".to_owned()]),
            ("required", &mixed, true, vec!["f".to_owned()]),
            ("auto", &others, true, Vec::new()),
            ("auto", &others, false, Vec::new()),
        ] {
            let is_required = mode == "required";
            let expected = ToolChoice::Allowed { names, is_required };
            let read = allowed(mode, tools.clone(), has_functions).expect("a choice");
            assert_eq!(read, (expected, told.to_vec()), "{mode} {tools}");
        }
        for (mode, tools, has_functions) in [
            ("required", &others, true),
            ("required", &mixed, false),
            ("auto", &mixed, false),
        ] {
            assert!(allowed(mode, tools.clone(), has_functions).is_err());
        }
    }

    #[test]
    fn what_is_no_choice_is_refused_by_its_field() {
        for (given, field) in [
            (json!("any"), "tool_choice"),
            (json!(7), "tool_choice"),
            (json!({}), "tool_choice.type"),
            (json!({"type": "function"}), "tool_choice.name"),
            (json!({"type": "mcp"}), "tool_choice.type"),
            (json!({"type": "allowed_tools"}), "tool_choice.mode"),
            (
                json!({"type": "allowed_tools", "mode": "auto", "tools": [{}]}),
                "tool_choice.tools[0].name",
            ),
        ] {
            let refused = read_choice(given).expect_err("it is refused").to_string();
            assert!(refused.contains(&format!("`{field}`")), "{refused}");
        }
    }
}
