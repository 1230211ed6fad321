use std::time::Duration;

use crate::constraint::Unenforceable;
use crate::generation::Deadline;
use crate::prompt::TemplateError;

/// Why a reader gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReaderError {
    #[error("{0}")]
    Template(TemplateError),
    #[error(
        "the tokenizer of `{model}` is not known: put its `tokenizer.json` beside the model's file, \
         in a folder of the model's own"
    )]
    NoTokenizer { model: String },
    #[error("`{model}` cannot fill in a text: its vocabulary has no tokens that mark one")]
    NoFillIn { model: String },
    #[error("{0}")]
    Unenforceable(Unenforceable),
    #[error("`tokens[{index}]` is not a token of this model")]
    NoSuchToken { index: usize },
    /// The text of this index holds a control token and the policy is to refuse.
    #[error("text {index} contains the control token `{token}`")]
    ControlToken { index: usize, token: String },
    #[error("the files of `{model}` cannot be used: {reason}")]
    Unusable { model: String, reason: String },
    #[error("{doing} with the files of `{model}` failed: {reason}")]
    Failed {
        model: String,
        doing: &'static str,
        reason: String,
    },
    /// The model's files ended who read them, or used all that it may use.
    #[error("{doing} with the files of `{model}` ended the process that did it: {reason}")]
    Ended {
        model: String,
        doing: &'static str,
        reason: String,
    },
    #[error("{doing} with the files of `{model}` took longer than the `{deadline}` deadline of {} ms", limit.as_millis())]
    DeadlineExceeded {
        model: String,
        doing: &'static str,
        deadline: Deadline,
        limit: Duration,
    },
    #[error("{bytes} bytes are more than a reader takes, or answers, at once")]
    TooLarge { bytes: usize },
    #[error("all readers were busy for {} ms", waited.as_millis())]
    Busy { waited: Duration },
    /// Nothing of a model's: the machine, or its disks.
    #[error("no process to read the files of `{model}` can be started: {reason}")]
    Unavailable { model: String, reason: String },
}
