//! The one map from what went wrong to what HTTP says about it.

use std::time::Duration;

use axum::http::StatusCode;

use crate::admission::EmbeddingError;
use crate::generation::GenerationError;
use crate::http::request::error::RequestError;
use crate::hub::PullError;
use crate::library_calls::LibraryError;
use crate::memory::OverBudget;
use crate::reader::ReaderError;

/// What all errors of a kind have in common.
#[derive(Clone, Copy)]
struct Kind {
    status: StatusCode,
    /// Stable and machine-readable, `error.code`.
    code: &'static str,
}

macro_rules! kinds {
    ($($kind:ident = $status:ident $code:literal;)+) => {
        $(const $kind: Kind = Kind { status: StatusCode::$status, code: $code };)+

        #[cfg(test)]
        const KINDS: &[Kind] = &[$($kind),+];
    };
}

// In the order of docs/errors.md.
kinds! {
    INVALID_JSON = BAD_REQUEST "invalid_json";
    INVALID_TYPE = BAD_REQUEST "invalid_type";
    INVALID_VALUE = BAD_REQUEST "invalid_value";
    TOO_MANY_VALUES = BAD_REQUEST "too_many_values";
    MISSING_REQUIRED_PARAMETER = BAD_REQUEST "missing_required_parameter";
    UNSUPPORTED_PARAMETER = BAD_REQUEST "unsupported_parameter";
    NOT_OFFERED = BAD_REQUEST "not_offered";
    PARAMETER_NOT_APPLICABLE = BAD_REQUEST "parameter_not_applicable";
    INVALID_BODY = BAD_REQUEST "invalid_body";
    INVALID_HTTP = BAD_REQUEST "invalid_http";
    INVALID_HOST = BAD_REQUEST "invalid_host";
    CONTEXT_LENGTH_EXCEEDED = BAD_REQUEST "context_length_exceeded";
    CONTROL_TOKEN_IN_MESSAGE = BAD_REQUEST "control_token_in_message";
    NO_CHAT_TEMPLATE = BAD_REQUEST "no_chat_template";
    CHAT_TEMPLATE_REFUSED = BAD_REQUEST "chat_template_refused";
    NO_HIDDEN_STATES = BAD_REQUEST "no_hidden_states";
    NOT_A_RERANKER = BAD_REQUEST "not_a_reranker";
    NO_LOGITS = BAD_REQUEST "no_logits";
    TOKENIZER_UNKNOWN = BAD_REQUEST "tokenizer_unknown";
    MODEL_HAS_NO_TOKENIZER = BAD_REQUEST "model_has_no_tokenizer";
    UNSUPPORTED_SCHEMA = BAD_REQUEST "unsupported_schema";
    SCHEMA_TOO_COMPLEX = BAD_REQUEST "schema_too_complex";
    CANNOT_CONSTRAIN = BAD_REQUEST "cannot_constrain";
    CANNOT_TELL_LOGPROBS = BAD_REQUEST "cannot_tell_logprobs";
    PROMPT_REFUSED = BAD_REQUEST "run_refused";
    OWN_DEADLINE_EXCEEDED = BAD_REQUEST "deadline_exceeded";
    NO_SUITABLE_FILE = BAD_REQUEST "no_suitable_file";
    PREVIOUS_RESPONSE_NOT_FOUND = BAD_REQUEST "previous_response_not_found";
    WEBSOCKET_CONNECTION_LIMIT_REACHED = BAD_REQUEST "websocket_connection_limit_reached";
    INVALID_STREAM_ID = BAD_REQUEST "invalid_stream_id";
    WEBSOCKET_STREAM_LIMIT_REACHED = BAD_REQUEST "websocket_stream_limit_reached";
    MODEL_NOT_FOUND = NOT_FOUND "model_not_found";
    NOT_ON_HUB = NOT_FOUND "not_on_hub";
    RESPONSE_NOT_FOUND = NOT_FOUND "previous_response_not_found";
    UNKNOWN_URL = NOT_FOUND "unknown_url";
    REQUEST_NOT_FOUND = NOT_FOUND "request_not_found";
    KEY_NOT_FOUND = NOT_FOUND "key_not_found";
    METHOD_NOT_ALLOWED = METHOD_NOT_ALLOWED "method_not_allowed";
    REQUEST_TIMEOUT = REQUEST_TIMEOUT "request_timeout";
    SLOW_READER = REQUEST_TIMEOUT "slow_reader";
    MODEL_IN_USE = CONFLICT "model_in_use";
    PULL_CONFLICT = CONFLICT "pull_conflict";
    RESPONSE_IN_FLIGHT = CONFLICT "response_in_flight";
    KEY_NAME_TAKEN = CONFLICT "key_name_taken";
    LAST_ADMIN_KEY = CONFLICT "last_admin_key";
    KEYS_NOT_WRITABLE = CONFLICT "keys_not_writable";
    REQUEST_TOO_LARGE = PAYLOAD_TOO_LARGE "request_too_large";
    TARGET_TOO_LARGE = URI_TOO_LONG "header_too_large";
    HEADER_TOO_LARGE = REQUEST_HEADER_FIELDS_TOO_LARGE "header_too_large";
    UNSUPPORTED_CONTENT_ENCODING = UNSUPPORTED_MEDIA_TYPE "unsupported_content_encoding";
    FORMAT_NOT_KEPT = UNPROCESSABLE_ENTITY "format_not_kept";
    POISON_REQUEST = UNPROCESSABLE_ENTITY "poison_request";
    ABORTED_BY_ADMINISTRATOR = UNPROCESSABLE_ENTITY "aborted_by_administrator";
    CANCELLED = UNPROCESSABLE_ENTITY "cancelled";
    HTTP_VERSION_NOT_SUPPORTED = HTTP_VERSION_NOT_SUPPORTED "http_version_not_supported";
    MISSING_API_KEY = UNAUTHORIZED "missing_api_key";
    INVALID_API_KEY = UNAUTHORIZED "invalid_api_key";
    ROLE_NOT_ALLOWED = FORBIDDEN "role_not_allowed";
    MODEL_NOT_ALLOWED = FORBIDDEN "model_not_allowed";
    HOST_NOT_ALLOWED = FORBIDDEN "host_not_allowed";
    QUEUE_FULL = TOO_MANY_REQUESTS "queue_full";
    MEMORY_SHARE_USED = TOO_MANY_REQUESTS "memory_share_used";
    TOO_MANY_EVENT_STREAMS = TOO_MANY_REQUESTS "too_many_event_streams";
    TOO_MANY_IN_BACKGROUND = TOO_MANY_REQUESTS "too_many_in_background";
    MEMORY_USED = SERVICE_UNAVAILABLE "memory_used";
    QUEUE_DEADLINE = SERVICE_UNAVAILABLE "queue_deadline";
    READERS_BUSY = SERVICE_UNAVAILABLE "readers_busy";
    NOT_READY = SERVICE_UNAVAILABLE "not_ready";
    KEYS_UNAVAILABLE = SERVICE_UNAVAILABLE "keys_unavailable";
    SHUTTING_DOWN = SERVICE_UNAVAILABLE "shutting_down";
    MODEL_FAILED = SERVICE_UNAVAILABLE "model_failed";
    CHAT_TEMPLATE_BROKEN = INTERNAL_SERVER_ERROR "chat_template_broken";
    CHAT_TEMPLATE_FAILED = INTERNAL_SERVER_ERROR "chat_template_failed";
    TOKENIZER_FAILED = INTERNAL_SERVER_ERROR "tokenizer_failed";
    MODEL_FILES_UNUSABLE = INTERNAL_SERVER_ERROR "model_files_unusable";
    EMBEDDING_NOT_FINITE = INTERNAL_SERVER_ERROR "embedding_not_finite";
    SCORE_NOT_FINITE = INTERNAL_SERVER_ERROR "score_not_finite";
    INTERNAL_ERROR = INTERNAL_SERVER_ERROR "internal_error";
    MODEL_UNAVAILABLE = SERVICE_UNAVAILABLE "model_unavailable";
    RUN_REFUSED = SERVICE_UNAVAILABLE "run_refused";
    RUN_FAILED = SERVICE_UNAVAILABLE "run_failed";
    WORKER_DIED = SERVICE_UNAVAILABLE "worker_died";
    ANSWER_INTERRUPTED = SERVICE_UNAVAILABLE "answer_interrupted";
    DEADLINE_EXCEEDED = SERVICE_UNAVAILABLE "deadline_exceeded";
    READER_UNAVAILABLE = SERVICE_UNAVAILABLE "reader_unavailable";
    HUB_REFUSED = BAD_GATEWAY "hub_refused";
    HUB_FAILED = BAD_GATEWAY "hub_failed";
    HUB_BUSY = SERVICE_UNAVAILABLE "hub_busy";
    PULL_ENDED = SERVICE_UNAVAILABLE "pull_ended";
    NO_ROOM = INSUFFICIENT_STORAGE "no_room";
}

/// How an error looks from outside, apart from its message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PublicError {
    pub status: StatusCode,
    /// OpenAI's coarse class, `error.type`.
    pub class: &'static str,
    pub code: &'static str,
    /// The field of the request that is to blame, where one is.
    pub param: Option<String>,
    pub retry_after_s: Option<u64>,
}

impl PublicError {
    fn new(Kind { status, code }: Kind) -> Self {
        let class = match status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            // The client's choice.
            StatusCode::HTTP_VERSION_NOT_SUPPORTED => "invalid_request_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        Self {
            status,
            class,
            code,
            param: None,
            retry_after_s: None,
        }
    }

    fn about(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    fn retry_after(mut self, seconds: Option<u64>) -> Self {
        self.retry_after_s = seconds;
        self
    }
}

/// `Retry-After` counts whole seconds; a wait is never announced shorter than it is.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    seconds.max(1)
}

impl PublicError {
    pub fn of(error: &RequestError) -> Self {
        use RequestError as E;
        match error {
            E::MalformedJson { .. } | E::NotAnObject => PublicError::new(INVALID_JSON),
            E::WrongType { param, .. } => PublicError::new(INVALID_TYPE).about(param),
            E::Missing { param } => PublicError::new(MISSING_REQUIRED_PARAMETER).about(param),
            E::OutOfRange { param, .. } => PublicError::new(INVALID_VALUE).about(param),
            E::TooManyValues { param, .. } => PublicError::new(TOO_MANY_VALUES).about(param),
            E::Unsupported { param, .. } => PublicError::new(UNSUPPORTED_PARAMETER).about(param),
            E::BodyTooLarge { .. } => PublicError::new(REQUEST_TOO_LARGE),
            E::UnknownCoding { .. } => PublicError::new(UNSUPPORTED_CONTENT_ENCODING),
            E::OverBudget(over) => of_over_budget(*over),
            E::BodyStalled { .. } | E::BodyTooSlow { .. } => PublicError::new(REQUEST_TIMEOUT),
            E::BodyBroken { .. } | E::ClientLeft => PublicError::new(INVALID_BODY),
            E::UnknownModel { .. } => unknown_model(),
            E::UnknownResponse { param, .. } => match param {
                Some(param) => PublicError::new(PREVIOUS_RESPONSE_NOT_FOUND).about(*param),
                None => PublicError::new(RESPONSE_NOT_FOUND),
            },
            E::ModelInUse { .. } => PublicError::new(MODEL_IN_USE).about("model"),
            E::NoChatTemplate { .. } => PublicError::new(NO_CHAT_TEMPLATE).about("model"),
            E::TemplateRefused { param, .. } => {
                PublicError::new(CHAT_TEMPLATE_REFUSED).about(*param)
            }
            E::TemplateBroken { .. } => PublicError::new(CHAT_TEMPLATE_BROKEN),
            E::ControlToken { param, .. } => {
                PublicError::new(CONTROL_TOKEN_IN_MESSAGE).about(param)
            }
            E::NotOffered { .. } => PublicError::new(NOT_OFFERED),
            E::UnknownPath { .. } => PublicError::new(UNKNOWN_URL),
            E::MethodNotAllowed { .. } => PublicError::new(METHOD_NOT_ALLOWED),
            E::Http2 => PublicError::new(HTTP_VERSION_NOT_SUPPORTED),
            E::NotHttp { status } => PublicError::new(match *status {
                StatusCode::PAYLOAD_TOO_LARGE => REQUEST_TOO_LARGE,
                StatusCode::HTTP_VERSION_NOT_SUPPORTED => HTTP_VERSION_NOT_SUPPORTED,
                StatusCode::URI_TOO_LONG => TARGET_TOO_LARGE,
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => HEADER_TOO_LARGE,
                _ => INVALID_HTTP,
            }),
            E::UnknownTransferCoding { .. } => PublicError::new(INVALID_HTTP),
            E::BadHost { .. } => PublicError::new(INVALID_HOST),
            E::ForeignHost { .. } | E::ForeignPage { .. } => PublicError::new(HOST_NOT_ALLOWED),
            E::MissingKey => PublicError::new(MISSING_API_KEY),
            E::InvalidKey => PublicError::new(INVALID_API_KEY),
            E::RoleNotAllowed { .. } | E::AdminNotOpen { .. } => PublicError::new(ROLE_NOT_ALLOWED),
            E::ModelNotAllowed { .. } => PublicError::new(MODEL_NOT_ALLOWED).about("model"),
            // Neither a 5xx nor 409: clients repeat those by themselves, and it was ended for good.
            E::Aborted => PublicError::new(ABORTED_BY_ADMINISTRATOR),
            E::Cancelled => PublicError::new(CANCELLED),
            E::TooManyInBackground { .. } => {
                PublicError::new(TOO_MANY_IN_BACKGROUND).retry_after(Some(1))
            }
            E::ResponseInFlight => PublicError::new(RESPONSE_IN_FLIGHT),
            E::SocketTooOld { .. } => PublicError::new(WEBSOCKET_CONNECTION_LIMIT_REACHED),
            E::BadStreamName => PublicError::new(INVALID_STREAM_ID).about("stream_id"),
            E::TooManyStreams { .. } => {
                PublicError::new(WEBSOCKET_STREAM_LIMIT_REACHED).about("stream_id")
            }
            E::UnknownRequest { .. } => PublicError::new(REQUEST_NOT_FOUND),
            E::UnknownKey { .. } => PublicError::new(KEY_NOT_FOUND),
            E::KeyNameTaken { .. } => PublicError::new(KEY_NAME_TAKEN).about("name"),
            E::LastAdminKey { .. } => PublicError::new(LAST_ADMIN_KEY),
            E::KeysNotWritable { .. } => PublicError::new(KEYS_NOT_WRITABLE),
            E::KeysUnavailable { .. } => PublicError::new(KEYS_UNAVAILABLE),
            E::TooManyEventStreams { .. } => {
                PublicError::new(TOO_MANY_EVENT_STREAMS).retry_after(Some(1))
            }
            E::NotReady { retry_after_s, .. } => {
                PublicError::new(NOT_READY).retry_after(*retry_after_s)
            }
            // Not a 5xx: repeated with the same deadline it may end in the same way.
            E::OwnDeadline { .. } => {
                PublicError::new(OWN_DEADLINE_EXCEEDED).about("total_deadline_ms")
            }
            E::Embedding { error, param } => of_embedding(error, param),
            E::NoEmbedding { param, .. } => PublicError::new(EMBEDDING_NOT_FINITE).about(param),
            E::NotAReranker { .. } => PublicError::new(NOT_A_RERANKER).about("model"),
            E::NoScore { param } => PublicError::new(SCORE_NOT_FINITE).about(param),
            E::NoTokenizer { .. } => PublicError::new(MODEL_HAS_NO_TOKENIZER).about("model"),
            E::Unenforceable { param, .. } => {
                PublicError::new(UNSUPPORTED_SCHEMA).about(param.clone())
            }
            E::CannotConstrain { param } => PublicError::new(CANNOT_CONSTRAIN).about(*param),
            E::FormatTooComplex { param } => PublicError::new(SCHEMA_TOO_COMPLEX).about(*param),
            E::Reader(error) => of_reader(error),
            E::Pull(error) => of_pull(error),
            E::Generation {
                error,
                prompt_param,
            } => of_generation(error, prompt_param),
        }
    }
}

/// Bytes come back when a request ends, which is soon.
fn of_over_budget(over: OverBudget) -> PublicError {
    match over {
        OverBudget::NeverFits { .. } => PublicError::new(REQUEST_TOO_LARGE),
        OverBudget::ClientsShare { .. } => PublicError::new(MEMORY_SHARE_USED).retry_after(Some(1)),
        OverBudget::All { .. } => PublicError::new(MEMORY_USED).retry_after(Some(1)),
    }
}

fn unknown_model() -> PublicError {
    PublicError::new(MODEL_NOT_FOUND).about("model")
}

fn of_embedding(error: &EmbeddingError, param: &str) -> PublicError {
    use EmbeddingError as E;
    match error {
        E::Generation(error) => of_generation(error, param),
        E::OverBudget(over) => of_over_budget(*over),
        E::NoHiddenStates { .. } => PublicError::new(NO_HIDDEN_STATES).about("model"),
        E::NoLogits { .. } => PublicError::new(NO_LOGITS).about("model"),
        E::TooFewColumns { .. } => PublicError::new(INVALID_VALUE).about("dimensions"),
        E::Refused { .. } => PublicError::new(PROMPT_REFUSED).about(param),
        E::Input { error, .. } => match error {
            LibraryError::Unavailable(error) => of_generation(error, param),
            LibraryError::NotInLibrary { .. } => PublicError::new(NO_HIDDEN_STATES).about("model"),
            LibraryError::BadValue { .. } | LibraryError::TooLarge { .. } => {
                PublicError::new(INVALID_VALUE).about(param)
            }
            LibraryError::Failed { .. } => PublicError::new(RUN_REFUSED).about(param),
            LibraryError::DeadlinePassed { .. } => PublicError::new(DEADLINE_EXCEEDED),
            LibraryError::WorkerDied { .. } => PublicError::new(WORKER_DIED),
            LibraryError::Closed => PublicError::new(SHUTTING_DOWN),
            LibraryError::Internal(_) | LibraryError::PromptCacheBroken { .. } => {
                PublicError::new(INTERNAL_ERROR)
            }
        },
    }
}

/// What a model's files cause is no request's fault.
fn of_reader(error: &ReaderError) -> PublicError {
    use ReaderError as E;
    match error {
        E::Template(_) => PublicError::new(CHAT_TEMPLATE_BROKEN),
        E::NoTokenizer { .. } => PublicError::new(TOKENIZER_UNKNOWN).about("model"),
        E::NoFillIn { .. } => PublicError::new(UNSUPPORTED_PARAMETER).about("suffix"),
        E::Unenforceable(_) => PublicError::new(UNSUPPORTED_SCHEMA),
        E::NoSuchToken { index } => {
            PublicError::new(INVALID_VALUE).about(format!("tokens[{index}]"))
        }
        E::ControlToken { .. } => PublicError::new(CONTROL_TOKEN_IN_MESSAGE),
        E::Unusable { .. } => PublicError::new(MODEL_FILES_UNUSABLE),
        E::Failed { doing, .. } | E::Ended { doing, .. } => PublicError::new(match *doing {
            "rendering" => CHAT_TEMPLATE_FAILED,
            "tokenizing" => TOKENIZER_FAILED,
            _ => MODEL_FILES_UNUSABLE,
        }),
        E::DeadlineExceeded { .. } => PublicError::new(DEADLINE_EXCEEDED),
        E::TooLarge { .. } => PublicError::new(REQUEST_TOO_LARGE),
        E::Busy { .. } => PublicError::new(READERS_BUSY).retry_after(Some(1)),
        E::Unavailable { .. } => PublicError::new(READER_UNAVAILABLE),
    }
}

/// What a hub says is told as a gateway's.
fn of_pull(error: &PullError) -> PublicError {
    use PullError as E;
    match error {
        E::BadName { .. } => PublicError::new(INVALID_VALUE).about("model"),
        E::NoChoice { .. } => PublicError::new(NO_SUITABLE_FILE).about("model"),
        E::Offline => PublicError::new(NOT_OFFERED),
        E::NotFound { .. } => PublicError::new(NOT_ON_HUB).about("model"),
        E::Exists { .. } | E::InUse { .. } | E::TooMany { .. } => {
            PublicError::new(PULL_CONFLICT).about("model")
        }
        E::Refused { .. } => PublicError::new(HUB_REFUSED),
        E::Busy { retry_after } => {
            PublicError::new(HUB_BUSY).retry_after(retry_after.map(whole_seconds))
        }
        E::Led { .. }
        | E::Corrupt { .. }
        | E::NoHash { .. }
        | E::BadAnswer { .. }
        | E::Network { .. } => PublicError::new(HUB_FAILED),
        E::NoSpace { .. } | E::Quota { .. } => PublicError::new(NO_ROOM),
        E::Ended { .. } => PublicError::new(PULL_ENDED),
        E::ShuttingDown => PublicError::new(SHUTTING_DOWN),
        E::Settings { .. } | E::Folder { .. } => PublicError::new(INTERNAL_ERROR),
    }
}

fn of_generation(error: &GenerationError, prompt_param: &str) -> PublicError {
    use GenerationError as E;
    match error {
        E::UnknownModel { .. } => unknown_model(),
        E::ModelUnavailable { retry_after, .. } => {
            PublicError::new(MODEL_UNAVAILABLE).retry_after(retry_after.map(whole_seconds))
        }
        E::QueueFull { retry_after, .. } => {
            PublicError::new(QUEUE_FULL).retry_after(Some(whole_seconds(*retry_after)))
        }
        E::QueueDeadline { .. } => PublicError::new(QUEUE_DEADLINE),
        E::ContextLengthExceeded { .. } | E::PromptTooLong { .. } => {
            PublicError::new(CONTEXT_LENGTH_EXCEEDED).about(prompt_param)
        }
        E::ParametersNotApplied { parameters } => {
            let public = PublicError::new(PARAMETER_NOT_APPLICABLE);
            match parameters.first() {
                Some(first) => public.about(*first),
                None => public,
            }
        }
        E::CannotConstrain => PublicError::new(CANNOT_CONSTRAIN).about("response_format"),
        E::CannotTellLogprobs => PublicError::new(CANNOT_TELL_LOGPROBS).about("logprobs"),
        E::NotKept { .. } => PublicError::new(FORMAT_NOT_KEPT),
        E::PromptRefused { .. } => PublicError::new(PROMPT_REFUSED).about(prompt_param),
        E::RunRefused { .. } => PublicError::new(RUN_REFUSED),
        E::RunFailed { .. } => PublicError::new(RUN_FAILED),
        E::WorkerDied { .. } => PublicError::new(WORKER_DIED),
        E::AnswerInterrupted { .. } => PublicError::new(ANSWER_INTERRUPTED),
        // Not a 5xx: clients repeat those by themselves, and each repetition costs two workers.
        E::PoisonRequest { .. } => PublicError::new(POISON_REQUEST),
        E::ModelFailed { .. } => PublicError::new(MODEL_FAILED),
        E::DeadlineExceeded { .. } => PublicError::new(DEADLINE_EXCEEDED),
        E::TensorsHeld { .. } => PublicError::new(MEMORY_USED).retry_after(Some(1)),
        E::SlowReader { .. } => PublicError::new(SLOW_READER),
        E::ShuttingDown => PublicError::new(SHUTTING_DOWN),
        E::Internal(_) => PublicError::new(INTERNAL_ERROR),
    }
}

#[cfg(test)]
mod tests;
