use super::logprobs::{ScoredText, TokenLogprobs};

/// What a model's words mean, piece by piece.
///
/// A piece is never taken back and never empty. Calls do not overlap: the pieces between a `ToolCall`
/// and its `ToolCallEnd` are its `ToolArguments`, and `index` counts calls from 0. A call that the
/// budget cut has no `ToolCallEnd`, and neither has one that the model left behind the key of its arguments;
/// behind that anything may follow, also further calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyPiece {
    /// A piece of the thought.
    Reasoning(String),
    /// A piece of the content.
    Text(String),
    /// The same of a reply whose log probabilities are asked for.
    ScoredText(ScoredText),
    /// How likely the next tokens of the prompt were. Before everything else.
    PromptLogprobs(Vec<TokenLogprobs>),
    /// A call begins; its name is whole.
    ToolCall {
        index: u32,
        /// Where the model's format has one; elsewhere the dialect that writes the reply mints it.
        id: Option<String>,
        name: String,
    },
    /// A piece of a call's arguments. All of them together are the JSON text that the model
    /// wrote, or that is made of what it wrote in another form.
    ToolArguments {
        index: u32,
        delta: String,
    },
    ToolCallEnd {
        index: u32,
    },
}
