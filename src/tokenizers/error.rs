use std::time::Duration;

/// Why there are no tokens, or no text of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    #[error(
        "the tokenizer of `{model}` is not known: put its `tokenizer.json` beside the model's file, \
         in a folder of the model's own"
    )]
    Unknown { model: String },
    #[error("{waiting} requests are already waiting for the tokenizer of `{model}`")]
    Busy { model: String, waiting: usize },
    #[error("`tokens[{index}]` is not a token of this model")]
    NoSuchToken { index: usize },
    #[error("the tokenizer of `{model}` failed: {reason}")]
    Failed { model: String, reason: String },
    #[error("the tokenizer process of `{model}` ended: {reason}")]
    Ended { model: String, reason: String },
    #[error("the `{deadline}` deadline of {} ms passed", limit.as_millis())]
    DeadlineExceeded {
        deadline: &'static str,
        limit: Duration,
    },
}
