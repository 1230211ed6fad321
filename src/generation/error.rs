use std::time::Duration;

use super::Deadline;

/// Everything that can keep a generation from ending well. The one map to HTTP statuses is in
/// `http/status.rs`; a client never sees a line the runtime printed, only these.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GenerationError {
    #[error("the model `{model}` does not exist")]
    UnknownModel { model: String },
    #[error("the model `{model}` cannot be loaded: {reason}")]
    ModelUnavailable {
        model: String,
        reason: String,
        retry_after: Option<Duration>,
    },
    #[error("{waiting} requests are already waiting for `{model}`")]
    QueueFull {
        model: String,
        waiting: usize,
        retry_after: Duration,
    },
    #[error("no worker became free for `{model}` within {} s", waited.as_secs())]
    QueueDeadline { model: String, waited: Duration },
    /// In the words of OpenAI's API, by which its clients know that they have to cut their prompt.
    #[error(
        "This model's maximum context length is {limit_tokens} tokens. However, your messages \
         resulted in {prompt_tokens} tokens. Please reduce the length of the messages."
    )]
    ContextLengthExceeded {
        prompt_tokens: u32,
        limit_tokens: u32,
    },
    /// So long that its tokens need not be counted.
    #[error(
        "This model's maximum context length is {limit_tokens} tokens. However, your messages are \
         {prompt_bytes} bytes long, and no so many tokens are. Please reduce the length of the messages."
    )]
    PromptTooLong {
        prompt_bytes: usize,
        limit_tokens: u32,
    },
    #[error("this runtime cannot vary per request: {}", parameters.join(", "))]
    ParametersNotApplied { parameters: Vec<&'static str> },
    #[error(
        "the runtime of this model can be kept to a format only where the prompt's tokens are known: put the \
         model's `tokenizer.json` beside its file, in a folder of the model's own; and never by a model with `batch`"
    )]
    CannotConstrain,
    #[error(
        "the runtime of this model cannot tell how likely these tokens are: the CPU runtime can, with models \
         in GGUF files; the vendor's library can for an answer's tokens, if the model has a `tokenizer.json` \
         beside its file; and none can by a model with `batch`"
    )]
    CannotTellLogprobs,
    /// In its middle.
    #[error("the answer could not be kept to its format any longer: {reason}")]
    NotKept { reason: String },
    #[error("the runtime refused the prompt (request {request}); its reason is in the log")]
    RunRefused { request: String },
    /// By a model that answers other prompts.
    #[error("the runtime takes no such prompt (request {request}); its reason is in the log")]
    PromptRefused { request: String },
    #[error("the runtime failed while generating (request {request}); its reason is in the log")]
    RunFailed { request: String },
    #[error("the worker ended while serving this request: {cause}")]
    WorkerDied { cause: String },
    #[error("the answer was interrupted ({cause}) and cannot be continued: {reason}")]
    AnswerInterrupted { cause: String, reason: &'static str },
    #[error("two workers ended while serving this request, so it is not tried again: {cause}")]
    PoisonRequest { cause: String },
    /// Not the request's fault: the model serves no other either.
    #[error("the model `{model}` does not even serve a short prompt of the daemon's own: {cause}")]
    ModelFailed { model: String, cause: String },
    #[error("the `{deadline}` deadline of {} ms passed", limit.as_millis())]
    DeadlineExceeded { deadline: Deadline, limit: Duration },
    #[error("the client did not read its answer for {} s", stalled.as_secs())]
    SlowReader { stalled: Duration },
    #[error(
        "tensors that wait to be read hold the memory for {whose}, {limit_bytes} bytes \
         (`tensors-held-limit-bytes` in the [library] settings); try again when one of them was read"
    )]
    TensorsHeld {
        whose: &'static str,
        limit_bytes: u64,
    },
    #[error("the daemon is shutting down")]
    ShuttingDown,
    #[error("internal error: {0}")]
    Internal(String),
}
