//! The functions that a model may call, as clients describe them, and how they say which.

use serde::Deserialize;
use utoipa::ToSchema;

use super::tool_choice::{Chosen, FUNCTION_CALL, TOOL_CHOICE, choice};
use crate::conversation::ToolChoice;
use crate::http::dialects::functions::{Choosing, Described, Functions, Known};
use crate::http::request::body::Object;
use crate::http::request::error::{RequestError, quote};
use crate::http::request::free_form::{FreeObject, ValuesLeft};
use crate::settings::ChatSettings;

/// The field by which it is told that a strict function is not kept to its schema.
const STRICT: &str = "tools[].function.strict";

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
    /// Refuses a schema that calls cannot be kept to. Where the runtime keeps none, true is named in
    /// `x-rkllmd-not-applied`.
    strict: Option<bool>,
}

/// The fields of a request that are about functions.
pub(crate) struct Given {
    pub tools: Option<Vec<Object<ToolParameter>>>,
    pub tool_choice: Option<Chosen>,
    pub functions: Option<Vec<Object<FunctionParameter>>>,
    pub function_call: Option<Chosen>,
    pub parallel_tool_calls: Option<bool>,
}

impl Given {
    /// They are given in the older form, so a call is answered in it.
    pub fn are_old(&self) -> bool {
        let functions = self.functions.as_ref();
        functions.is_some_and(|functions| !functions.is_empty())
    }

    pub fn functions(self, limits: &ChatSettings) -> Result<Functions, RequestError> {
        let are_old = self.are_old();
        let tools = self.tools.unwrap_or_default();
        let functions = self.functions.unwrap_or_default();
        if !tools.is_empty() && are_old {
            return Err(RequestError::out_of_range(
                "functions",
                "is the older form of `tools` and cannot be given with it",
            ));
        }
        let param = if are_old { "functions" } else { "tools" };
        let tools = tools.into_iter().enumerate();
        let tools = tools.map(|(index, Object(tool))| tool.described(&format!("tools[{index}]")));
        let functions = functions.into_iter().enumerate();
        let functions = functions
            .map(|(index, Object(function))| Ok(function.described(format!("functions[{index}]"))));
        let described = tools
            .chain(functions)
            .collect::<Result<_, RequestError>>()?;
        let mut values = ValuesLeft::of(limits);
        let known = Known::read(described, param, limits, &mut values)?;
        let of_tools = choice(
            self.tool_choice,
            TOOL_CHOICE,
            !known.is_empty() && !are_old,
            &mut values,
        )?;
        let of_functions = choice(self.function_call, FUNCTION_CALL, are_old, &mut values)?;
        let chosen = match of_tools {
            ToolChoice::Auto => of_functions,
            of_tools => of_tools,
        };
        let choosing = Choosing {
            param: if are_old { FUNCTION_CALL } else { TOOL_CHOICE },
            strict_param: STRICT,
            parallel: !are_old && self.parallel_tool_calls != Some(false),
        };
        known.chosen(&chosen, choosing)
    }
}

impl ToolParameter {
    fn described(self, at: &str) -> Result<Described, RequestError> {
        match self.r#type.as_deref() {
            None | Some("function") => {}
            Some(other) => {
                return Err(RequestError::unsupported(
                    format!("{at}.type"),
                    format!("only `function` is, not `{}`", quote(other)),
                ));
            }
        }
        let field = format!("{at}.function");
        let Object(function) = self
            .function
            .ok_or_else(|| RequestError::missing(field.as_str()))?;
        Ok(function.described(field))
    }
}

impl FunctionParameter {
    fn described(self, at: String) -> Described {
        Described {
            at,
            schema_field: "parameters",
            name: self.name,
            description: self.description,
            schema: self.parameters,
            strict: self.strict,
        }
    }
}
