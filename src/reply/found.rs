//! What was found of how a model replies, and from where.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::families::ReplyFamily;
use super::format::ReplyFormat;

/// Where a part of a format comes from, the first that tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FormatSource {
    /// `[replies]` in the model's `model.toml`.
    ModelToml,
    /// `response_template` in its `tokenizer_config.json`.
    ResponseTemplate,
    /// What the model's own template writes of a conversation.
    Template,
    /// A family that the template speaks of.
    Family(ReplyFamily),
    /// The template knows no form of its own.
    Generic,
    /// There is none.
    #[default]
    None,
}

impl fmt::Display for FormatSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ModelToml => f.write_str("model.toml"),
            Self::ResponseTemplate => f.write_str("response_template"),
            Self::Template => f.write_str("template"),
            Self::Family(family) => write!(f, "family {family}"),
            Self::Generic => f.write_str("generic"),
            Self::None => f.write_str("none"),
        }
    }
}

/// What a model's template does with what concerns thoughts and calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TemplateTraits {
    /// It tells the model what functions there are.
    pub shows_tools: bool,
    /// It writes calls of earlier turns.
    pub shows_calls: bool,
    /// It writes what functions returned.
    pub shows_results: bool,
    /// It wants arguments as text, not as an object.
    pub arguments_as_text: bool,
    /// It takes ids of nine letters and digits only.
    pub nine_letter_ids: bool,
}

/// How a model replies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FoundFormat {
    pub format: ReplyFormat,
    pub reasoning_from: FormatSource,
    pub calls_from: FormatSource,
    pub template: TemplateTraits,
}
