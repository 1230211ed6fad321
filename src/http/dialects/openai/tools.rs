//! The functions that a model may call, as clients describe them, and how they say which.

use std::sync::Arc;

use serde::Deserialize;
use utoipa::ToSchema;

use super::parameters::{is_empty, neutral};
use crate::conversation::{Tool, ToolChoice};
use crate::http::request::body::Object;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::free_form::{FreeObject, Outline, ValuesLeft};
use crate::http::request::nul::{refuse_nul, refuse_nul_within};
use crate::reply::ToolTypes;
use crate::settings::ChatSettings;

/// A tool.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ToolParameter {
    /// Only `function`.
    #[schema(example = "function")]
    r#type: Option<String>,
    #[schema(value_type = FunctionParameter, required, nullable = false)]
    function: Option<Object<FunctionParameter>>,
}

/// A function that the model may call.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct FunctionParameter {
    /// What a call names.
    #[schema(required, nullable = false, min_length = 1)]
    name: Option<String>,
    /// What it does, for the model.
    description: Option<String>,
    /// The JSON schema of its arguments; absent where it takes none.
    #[schema(value_type = Option<Object>)]
    parameters: Option<FreeObject>,
    /// Not kept: true is named in `x-rkllmd-not-applied`.
    strict: Option<bool>,
}

/// What a request says of functions.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    /// Those that the model is told of.
    pub tools: Vec<Tool>,
    /// Whether an answer may hold more than one call.
    pub parallel: bool,
    /// They were given in the older form, so a call is answered in it.
    pub are_old: bool,
    /// Arguments are asked for that keep to their schema.
    pub wants_strict: bool,
}

impl Functions {
    /// What they say of their parameters, where there are any functions.
    pub fn types(&self) -> Option<Arc<ToolTypes>> {
        let tools = self.tools.iter();
        let schemas = tools.map(|tool| (tool.name.as_str(), tool.parameters.as_ref()));
        (!self.tools.is_empty()).then(|| Arc::new(ToolTypes::new(schemas)))
    }
}

/// The fields of a request that are about functions.
pub(crate) struct Given {
    pub tools: Option<Vec<Object<ToolParameter>>>,
    pub tool_choice: Option<Outline>,
    pub functions: Option<Vec<Object<FunctionParameter>>>,
    pub function_call: Option<Outline>,
    pub parallel_tool_calls: Option<bool>,
}

impl Given {
    pub fn functions(self, limits: &ChatSettings) -> Result<Functions, RequestError> {
        let tools = self.tools.unwrap_or_default();
        let functions = self.functions.unwrap_or_default();
        if !tools.is_empty() && !functions.is_empty() {
            return Err(RequestError::out_of_range(
                "functions",
                "is the older form of `tools` and cannot be given with it",
            ));
        }
        let are_old = !functions.is_empty();
        let param = if are_old { "functions" } else { "tools" };
        let (count, most) = (tools.len() + functions.len(), limits.max_tools);
        if count > most {
            let problem =
                format!("has {count} functions; `max-tools` in the [chat] settings allows {most}");
            return Err(RequestError::out_of_range(param, problem));
        }
        let is_strict = |function: &Object<FunctionParameter>| function.0.strict == Some(true);
        let of_tools = tools
            .iter()
            .filter_map(|Object(tool)| tool.function.as_ref());
        let wants_strict = of_tools.chain(&functions).any(is_strict);
        let mut read = Vec::with_capacity(tools.len() + functions.len());
        let mut values = ValuesLeft::of(limits);
        for (index, Object(tool)) in tools.into_iter().enumerate() {
            read.push(tool.read(&format!("tools[{index}]"), &mut values)?);
        }
        for (index, Object(function)) in functions.into_iter().enumerate() {
            read.push(function.read(&format!("functions[{index}]"), &mut values)?);
        }
        let (bytes, most) = (
            read.iter().map(bytes).sum::<usize>(),
            limits.tools_limit_bytes,
        );
        if bytes > most {
            let problem = format!(
                "has {bytes} bytes; `tools-limit-bytes` in the [chat] settings allows {most}"
            );
            return Err(RequestError::out_of_range(param, problem));
        }
        let has_tools = !read.is_empty();
        let of_tools = choice("tool_choice", &self.tool_choice, has_tools && !are_old)?;
        let of_functions = choice("function_call", &self.function_call, are_old)?;
        let is_none = of_tools == ToolChoice::None || of_functions == ToolChoice::None;
        Ok(Functions {
            // The model cannot call what it is not told of.
            tools: if is_none { Vec::new() } else { read },
            parallel: !are_old && self.parallel_tool_calls != Some(false),
            are_old,
            wants_strict,
        })
    }
}

/// What a function says of itself.
fn bytes(tool: &Tool) -> usize {
    let schema = tool.parameters.as_ref().map(serde_json::to_vec);
    tool.name.len()
        + tool.description.as_ref().map_or(0, String::len)
        + schema.and_then(Result::ok).map_or(0, |json| json.len())
}

impl ToolParameter {
    fn read(self, param: &str, values: &mut ValuesLeft) -> Result<Tool, RequestError> {
        match self.r#type.as_deref() {
            None | Some("function") => {}
            Some(other) => {
                return Err(RequestError::unsupported(
                    format!("{param}.type"),
                    format!("only `function` is, not `{}`", quote(other)),
                ));
            }
        }
        let field = format!("{param}.function");
        let Object(function) = self
            .function
            .ok_or_else(|| RequestError::missing(field.as_str()))?;
        function.read(&field, values)
    }
}

impl FunctionParameter {
    fn read(self, param: &str, values: &mut ValuesLeft) -> Result<Tool, RequestError> {
        let field = |name: &str| format!("{param}.{name}");
        let name = self.name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| RequestError::missing(field("name")))?;
        refuse_nul(&name, || field("name"))?;
        let description = self.description;
        refuse_nul(description.as_deref().unwrap_or_default(), || {
            field("description")
        })?;
        let schema = self.parameters;
        let parameters = schema.map(|schema| schema.read(&field("parameters"), values));
        let parameters = parameters.transpose()?;
        for (name, schema) in parameters.iter().flatten() {
            let field = || field("parameters");
            refuse_nul(name, field)?;
            refuse_nul_within(schema, field)?;
        }
        Ok(Tool {
            name,
            description,
            parameters,
        })
    }
}

/// What is chosen among the functions, where there are any.
fn choice(
    param: &'static str,
    given: &Option<Outline>,
    has_functions: bool,
) -> Result<ToolChoice, RequestError> {
    let Some(Outline(value)) = given else {
        return Ok(ToolChoice::Auto);
    };
    match value.as_str() {
        Some("auto") => Ok(ToolChoice::Auto),
        Some("none") => Ok(ToolChoice::None),
        _ if !has_functions => {
            neutral(
                param,
                given,
                is_empty,
                "without functions, only `none`, `auto`",
            )?;
            Ok(ToolChoice::Auto)
        }
        Some("required") => Err(RequestError::unsupported(
            param,
            "a model cannot be made to call a function: `auto` and `none` are accepted",
        )),
        None if value.is_object() => Err(RequestError::unsupported(
            param,
            "a model cannot be made to call this function: `auto` and `none` are accepted",
        )),
        _ => Err(RequestError::out_of_range(
            param,
            "must be `none`, `auto`, `required` or an object that names a function",
        )),
    }
}
