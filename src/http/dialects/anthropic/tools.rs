//! Tools that the client runs, and which of them the model is to call. Tools of other kinds, which
//! Anthropic's own servers run or describe, are not known here.

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

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
pub(crate) struct AnthropicTool {
    /// `custom` or absent: the client runs it. Others are not known, and named in `x-rkllmd-not-applied`.
    #[schema(example = "custom")]
    #[expect(dead_code, reason = "it was read before the others")]
    r#type: Option<String>,
    /// What a call names; required of a tool that the client runs.
    name: Option<String>,
    /// What it does, for the model.
    description: Option<String>,
    /// The JSON schema of its input; absent where it takes none.
    #[schema(value_type = Option<Object>)]
    input_schema: Option<FreeObject>,
    /// Refuses a schema that calls cannot be kept to. Where the runtime keeps none, true is named in
    /// `x-rkllmd-not-applied`.
    strict: Option<bool>,
}

/// Fields of other kinds of tools may have these names and other types.
#[derive(Deserialize)]
struct Kind {
    r#type: Option<String>,
}

/// Which tools are called.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct AnthropicToolChoice {
    /// `auto`: as the model likes; `any`: at least one is; `tool`: the one that `name` says; `none`: the
    /// model is not told of them.
    #[schema(required, nullable = false, example = "auto")]
    r#type: Option<String>,
    /// With the type `tool`.
    name: Option<String>,
    /// Whether an answer may hold no more than one call. Default false.
    disable_parallel_tool_use: Option<bool>,
}

/// What is said of tools.
pub(super) struct Read {
    pub functions: Functions,
    /// Kinds of tools that are not known.
    pub unread: Vec<String>,
}

pub(super) fn read(
    tools: Option<Vec<Box<RawValue>>>,
    choice: Option<Object<AnthropicToolChoice>>,
    limits: &ChatSettings,
    values: &mut ValuesLeft,
) -> Result<Read, RequestError> {
    let (mut described, mut unread) = (Vec::new(), Vec::new());
    for (index, tool) in tools.into_iter().flatten().enumerate() {
        let at = format!("{TOOLS}[{index}]");
        let Kind { r#type } = fields_within(&tool, &at)?;
        match r#type.as_deref() {
            None | Some("custom") => {
                let tool: AnthropicTool = fields_within(&tool, &at)?;
                described.push(Described {
                    at,
                    schema_field: "input_schema",
                    name: tool.name,
                    description: tool.description,
                    schema: tool.input_schema,
                    strict: tool.strict,
                });
            }
            Some(other) => notices::tell_unread(&mut unread, &format!("{TOOLS}[].{other}")),
        }
    }
    let known = Known::read(described, TOOLS, limits, values)?;
    let (chosen, is_single) = match choice {
        None => (ToolChoice::Auto, false),
        Some(Object(choice)) => choice.read(!known.is_empty())?,
    };
    let choosing = Choosing {
        param: TOOL_CHOICE,
        strict_param: "tools[].strict",
        parallel: !is_single,
    };
    Ok(Read {
        functions: known.chosen(&chosen, choosing)?,
        unread,
    })
}

impl AnthropicToolChoice {
    /// What is chosen, and whether one call is all that an answer may hold.
    fn read(self, has_tools: bool) -> Result<(ToolChoice, bool), RequestError> {
        const TYPE: &str = "tool_choice.type";
        let kind = self.r#type.ok_or_else(|| RequestError::missing(TYPE))?;
        let needs_tools = || match has_tools {
            true => Ok(()),
            false => Err(RequestError::unsupported(
                TOOL_CHOICE,
                "without tools that the client runs, only `auto` and `none` are",
            )),
        };
        let chosen = match kind.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "any" => {
                needs_tools()?;
                ToolChoice::Required
            }
            "tool" => {
                needs_tools()?;
                let name = self.name.filter(|name| !name.is_empty());
                ToolChoice::Named(name.ok_or_else(|| RequestError::missing("tool_choice.name"))?)
            }
            other => {
                return Err(RequestError::out_of_range(
                    TYPE,
                    format!(
                        "must be `auto`, `any`, `tool` or `none`, not `{}`",
                        quote(other)
                    ),
                ));
            }
        };
        Ok((chosen, self.disable_parallel_tool_use == Some(true)))
    }
}
