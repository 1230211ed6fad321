//! The functions that a model may call, whatever a dialect calls their fields: read, bounded, and narrowed
//! to those that the request chooses among them.

use std::sync::Arc;

use super::calls::AskedCalls;
use crate::constraint::{CallableTool, HowMany};
use crate::conversation::{Tool, ToolChoice};
use crate::http::request::error::{RequestError, quote};
use crate::http::request::free_form::{FreeObject, ValuesLeft};
use crate::http::request::nul::{refuse_nul, refuse_nul_within};
use crate::models::InstalledModel;
use crate::reply::ToolTypes;
use crate::settings::ChatSettings;

/// A function as a client describes it.
pub(crate) struct Described {
    /// The path of the object that describes it.
    pub at: String,
    /// Its field with the schema of the arguments.
    pub schema_field: &'static str,
    pub name: Option<String>,
    pub description: Option<String>,
    pub schema: Option<FreeObject>,
    pub strict: Option<bool>,
}

/// All functions of a request.
pub(crate) struct Known {
    tools: Vec<Tool>,
    callable: Vec<CallableTool>,
}

/// How a request chooses among its functions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choosing {
    /// The field that does.
    pub param: &'static str,
    /// How it is told that a strict function is not kept to its schema.
    pub strict_param: &'static str,
    /// Whether an answer may hold more than one call.
    pub parallel: bool,
}

/// What a request says of functions.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    /// Those that the model is told of.
    pub tools: Vec<Tool>,
    /// Those that it may call, and how often; `None`: none.
    pub calls: Option<AskedCalls>,
    /// Whether an answer may hold more than one call.
    pub parallel: bool,
    /// One of them was chosen.
    pub is_named: bool,
}

impl Described {
    fn read(self, values: &mut ValuesLeft) -> Result<(Tool, CallableTool), RequestError> {
        let field = |name: &str| format!("{}.{name}", self.at);
        let name = self.name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| RequestError::missing(field("name")))?;
        refuse_nul(&name, || field("name"))?;
        let description = self.description;
        refuse_nul(description.as_deref().unwrap_or_default(), || {
            field("description")
        })?;
        let at_schema = field(self.schema_field);
        let schema = self.schema;
        let parameters = schema.map(|schema| schema.read(&at_schema, values));
        let parameters = parameters.transpose()?;
        for (name, schema) in parameters.iter().flatten() {
            let field = || at_schema.clone();
            refuse_nul(name, field)?;
            refuse_nul_within(schema, field)?;
        }
        let callable = CallableTool {
            name: name.clone(),
            parameters: parameters.clone(),
            strict: self.strict == Some(true),
            place: as_pointer(&at_schema),
        };
        let tool = Tool {
            name,
            description,
            parameters,
        };
        Ok((tool, callable))
    }
}

/// The path of a field as a JSON pointer.
fn as_pointer(param: &str) -> String {
    let parts = param.split(['.', '[', ']']);
    let parts = parts.filter(|part| !part.is_empty());
    parts.map(|part| format!("/{part}")).collect()
}

impl Known {
    /// Reads functions that stand in the field `param`.
    pub fn read(
        described: Vec<Described>,
        param: &'static str,
        limits: &ChatSettings,
        values: &mut ValuesLeft,
    ) -> Result<Self, RequestError> {
        let (count, most) = (described.len(), limits.max_tools);
        if count > most {
            let problem =
                format!("has {count} functions; `max-tools` in the [chat] settings allows {most}");
            return Err(RequestError::out_of_range(param, problem));
        }
        let read = described.into_iter().map(|function| function.read(values));
        let (tools, callable): (Vec<Tool>, _) =
            read.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let bytes = tools.iter().map(bytes).sum::<usize>();
        let most = limits.tools_limit_bytes;
        if bytes > most {
            let problem = format!(
                "has {bytes} bytes; `tools-limit-bytes` in the [chat] settings allows {most}"
            );
            return Err(RequestError::out_of_range(param, problem));
        }
        Ok(Self { tools, callable })
    }

    pub fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// Those that are chosen.
    pub fn chosen(
        self,
        chosen: &ToolChoice,
        Choosing {
            param,
            strict_param,
            parallel,
        }: Choosing,
    ) -> Result<Functions, RequestError> {
        let Self {
            tools,
            mut callable,
        } = self;
        let keep = |callable: &mut Vec<CallableTool>, names: &[String]| {
            if let Some(unknown) = names
                .iter()
                .find(|name| tools.iter().all(|tool| tool.name != **name))
            {
                let problem = format!("names `{}`, which is none of the functions", quote(unknown));
                return Err(RequestError::out_of_range(param, problem));
            }
            callable.retain(|tool| names.contains(&tool.name));
            Ok(())
        };
        let forced = if parallel {
            HowMany::Several
        } else {
            HowMany::One
        };
        let free = HowMany::AsLiked { several: parallel };
        let how_many = match chosen {
            ToolChoice::None => {
                callable.clear();
                free
            }
            ToolChoice::Auto => free,
            ToolChoice::Required => forced,
            ToolChoice::Named(name) => {
                keep(&mut callable, std::slice::from_ref(name))?;
                HowMany::One
            }
            ToolChoice::Allowed { names, is_required } => {
                keep(&mut callable, names)?;
                if *is_required { forced } else { free }
            }
        };
        // The model cannot call what it is not told of.
        let is_told = |tool: &Tool| match chosen {
            ToolChoice::None => false,
            ToolChoice::Allowed { names, .. } => names.contains(&tool.name),
            _ => true,
        };
        Ok(Functions {
            tools: tools.iter().filter(|tool| is_told(tool)).cloned().collect(),
            calls: (!callable.is_empty()).then_some(AskedCalls {
                tools: callable,
                how_many,
                param,
                strict_param,
            }),
            parallel: parallel && how_many != HowMany::One,
            is_named: matches!(chosen, ToolChoice::Named(_)),
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

impl Functions {
    /// Refuses them for a model whose calls could not be told from content. `param` is the field that they
    /// stand in.
    pub fn check_for(&self, model: &InstalledModel, param: &str) -> Result<(), RequestError> {
        if self.tools.is_empty() || model.takes_functions() {
            return Ok(());
        }
        // Ollama's clients know it by these words and ask again without.
        let problem = format!("\"{}\" does not support tools", model.name());
        Err(RequestError::unsupported(param, problem))
    }

    /// What they say of their parameters, where there are any functions.
    pub fn types(&self) -> Option<Arc<ToolTypes>> {
        let tools = self.tools.iter();
        let schemas = tools.map(|tool| (tool.name.as_str(), tool.parameters.as_ref()));
        (!self.tools.is_empty()).then(|| Arc::new(ToolTypes::new(schemas)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_named_as_a_place() {
        assert_eq!(
            as_pointer("tools[12].function.parameters"),
            "/tools/12/function/parameters"
        );
    }
}
