use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The JSON schema of its arguments, keys in the client's order. `None`: it takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Map<String, Value>>,
}

/// Whether functions are called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// None is: the model is not told of them.
    None,
    /// At least one is.
    Required,
    /// This one is, once.
    Named(String),
    /// Only these may be, and the model is told of no others.
    Allowed {
        names: Vec<String>,
        is_required: bool,
    },
}
