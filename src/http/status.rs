//! The one map from what went wrong to what HTTP says about it.

use std::time::Duration;

use axum::http::StatusCode;

use super::request_error::RequestError;
use crate::generation::GenerationError;

/// How an error looks from outside, apart from its message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub status: StatusCode,
    /// OpenAI's coarse class, `error.type`.
    pub class: &'static str,
    /// Stable and machine-readable, `error.code`.
    pub code: &'static str,
    /// The field of the request that is to blame, where one is.
    pub param: Option<String>,
    pub retry_after_s: Option<u64>,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

impl Verdict {
    fn new(status: StatusCode, class: &'static str, code: &'static str) -> Self {
        Self {
            status,
            class,
            code,
            param: None,
            retry_after_s: None,
        }
    }

    fn invalid(code: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, code)
    }

    fn unavailable(code: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, code)
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

pub(crate) fn verdict(error: &RequestError) -> Verdict {
    use RequestError as E;
    match error {
        E::MalformedJson { .. } | E::NotAnObject => Verdict::invalid("invalid_json"),
        E::WrongType { param, .. } => Verdict::invalid("invalid_type").about(param),
        E::Missing { param } => Verdict::invalid("missing_required_parameter").about(param),
        E::OutOfRange { param, .. } => Verdict::invalid("invalid_value").about(param),
        E::Unsupported { param, .. } => Verdict::invalid("unsupported_parameter").about(param),
        E::BodyTooLarge { .. } => {
            Verdict::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, "request_too_large")
        }
        E::BodyStalled { .. } | E::BodyTooSlow { .. } => {
            Verdict::new(StatusCode::REQUEST_TIMEOUT, INVALID, "request_timeout")
        }
        E::BodyBroken { .. } | E::ClientLeft => Verdict::invalid("invalid_body"),
        E::UnknownModel { .. } => unknown_model(),
        E::NoChatTemplate { .. } => Verdict::invalid("no_chat_template").about("model"),
        E::TemplateRefused { .. } => Verdict::invalid("chat_template_refused").about("messages"),
        E::TemplateBroken { .. } => Verdict::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            SERVER,
            "chat_template_broken",
        ),
        E::ControlToken { param, .. } => Verdict::invalid("control_token_in_message").about(param),
        E::UnknownPath { .. } => Verdict::new(StatusCode::NOT_FOUND, INVALID, "unknown_url"),
        E::MethodNotAllowed { .. } => Verdict::new(
            StatusCode::METHOD_NOT_ALLOWED,
            INVALID,
            "method_not_allowed",
        ),
        E::BadHost { .. } => Verdict::invalid("invalid_host"),
        E::ForeignHost { .. } => Verdict::new(StatusCode::FORBIDDEN, INVALID, "host_not_allowed"),
        E::MissingKey => Verdict::new(StatusCode::UNAUTHORIZED, INVALID, "missing_api_key"),
        E::InvalidKey => Verdict::new(StatusCode::UNAUTHORIZED, INVALID, "invalid_api_key"),
        E::RoleNotAllowed { .. } => {
            Verdict::new(StatusCode::FORBIDDEN, INVALID, "role_not_allowed")
        }
        E::ModelNotAllowed { .. } => {
            Verdict::new(StatusCode::FORBIDDEN, INVALID, "model_not_allowed").about("model")
        }
        E::NotReady { retry_after_s, .. } => {
            Verdict::unavailable("not_ready").retry_after(*retry_after_s)
        }
        E::Generation {
            error,
            prompt_param,
        } => generation_verdict(error, prompt_param),
    }
}

fn unknown_model() -> Verdict {
    Verdict::new(StatusCode::NOT_FOUND, INVALID, "model_not_found").about("model")
}

fn generation_verdict(error: &GenerationError, prompt_param: &str) -> Verdict {
    use GenerationError as E;
    match error {
        E::UnknownModel { .. } => unknown_model(),
        E::ModelUnavailable { retry_after, .. } => {
            Verdict::unavailable("model_unavailable").retry_after(retry_after.map(whole_seconds))
        }
        E::QueueFull { retry_after, .. } => Verdict::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_error",
            "queue_full",
        )
        .retry_after(Some(whole_seconds(*retry_after))),
        E::QueueDeadline { .. } => Verdict::unavailable("queue_deadline"),
        E::ContextLengthExceeded { .. } => {
            Verdict::invalid("context_length_exceeded").about(prompt_param)
        }
        E::ParametersNotApplied { parameters } => {
            let verdict = Verdict::invalid("parameter_not_applicable");
            match parameters.first() {
                Some(first) => verdict.about(*first),
                None => verdict,
            }
        }
        E::RunRefused { .. } => Verdict::unavailable("run_refused"),
        E::RunFailed { .. } => Verdict::unavailable("run_failed"),
        E::WorkerDied { .. } => Verdict::unavailable("worker_died"),
        E::AnswerInterrupted { .. } => Verdict::unavailable("answer_interrupted"),
        // Not a 5xx: clients repeat those by themselves, and each repetition costs two workers.
        E::PoisonRequest { .. } => {
            Verdict::new(StatusCode::UNPROCESSABLE_ENTITY, INVALID, "poison_request")
        }
        E::DeadlineExceeded { .. } => Verdict::unavailable("deadline_exceeded"),
        E::SlowReader { .. } => Verdict::new(StatusCode::REQUEST_TIMEOUT, INVALID, "slow_reader"),
        E::ShuttingDown => Verdict::unavailable("shutting_down"),
        E::Internal(_) => Verdict::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, "internal_error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_never_announced_shorter_than_it_is() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
        assert_eq!(whole_seconds(Duration::from_millis(3001)), 4);
    }
}
