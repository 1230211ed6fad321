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
    /// It writes calls of earlier answers.
    pub shows_calls: bool,
    /// It writes what functions returned.
    pub shows_results: bool,
    /// It wants arguments as text, not as an object.
    pub arguments_as_text: bool,
    /// It takes ids of nine letters and digits only.
    pub nine_letter_ids: bool,
    /// Of several calls of one answer it does not write all.
    pub hides_calls: bool,
    /// It writes each where every call has an answer of its own.
    pub shows_calls_apart: bool,
}

/// Why what was found may not be all that is to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FormatNote {
    /// The model's files list no tokens, and its format has markers.
    TokensUnknown,
    /// The model is told of functions in words, and its messages have headers.
    WordsUnread,
}

impl fmt::Display for FormatNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TokensUnknown => {
                "no file lists its tokens, so a marker of its thoughts or calls is known by its text \
                 only; one that is a special token is not printed, and what stands behind it is \
                 content: put its tokenizer.json or its tokenizer_config.json into its folder"
            }
            Self::WordsUnread => {
                "its template shows no functions, and in messages with headers the form in which it \
                 is told of them is not read: a call in that form is content"
            }
        })
    }
}

/// How a model replies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FoundFormat {
    pub format: ReplyFormat,
    pub reasoning_from: FormatSource,
    pub calls_from: FormatSource,
    pub template: TemplateTraits,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<FormatNote>,
}

impl FoundFormat {
    /// Whether calls are told from content.
    pub fn knows_calls(&self) -> bool {
        let format = &self.format;
        format.calls.is_some() || format.also_calls.is_some() || format.harmony
    }

    /// Whether thoughts are told from content.
    pub fn knows_thoughts(&self) -> bool {
        self.format.reasoning.is_some() || self.format.harmony
    }

    /// Whether it looks for more than the form that a model is told in words, which is no token.
    pub fn has_own_markers(&self) -> bool {
        let format = &self.format;
        let has_calls = !matches!(self.calls_from, FormatSource::Generic | FormatSource::None);
        has_calls
            || format.harmony
            || format.reasoning.is_some()
            || format.also_calls.is_some()
            || format.content.is_some()
    }
}
