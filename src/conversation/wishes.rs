use serde::{Deserialize, Serialize};

/// Whether a model thinks before it answers, where its template can tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Thinking {
    /// As the template has it.
    #[default]
    Default,
    Off,
    On,
}

/// How much a model is to think.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasoningWish {
    pub thinking: Thinking,
    /// A word such as `low`, for templates that know it.
    pub effort: Option<String>,
}
