//! Each failure of a generation: its status, its code, and what clients look for in it.

use std::time::Duration;

use crate::http_support::*;
use rkllmd::generation::{Deadline, GenerationError, ReplyEvent};
use rkllmd::settings::Settings;

#[tokio::test]
async fn a_full_context_is_told_in_the_words_that_clients_look_for() {
    let error = GenerationError::ContextLengthExceeded {
        prompt_tokens: 5000,
        limit_tokens: 4096,
    };
    let server = Server::start(Settings::default(), move |_| Err(error.clone())).await;
    let answer = server.ask(chat("")).await;
    let message = answer.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.starts_with("This model's maximum context length is 4096 tokens. However, "),
        "{message}"
    );
    assert!(message.contains("5000 tokens"), "{message}");
    assert_eq!(answer.error().2, "context_length_exceeded");
    server.shut_down().await;
}

/// A failure, and the status, code and `Retry-After` that its client is told.
pub type Failure = (GenerationError, u16, &'static str, Option<&'static str>);

/// Every kind of them.
pub fn failures() -> Vec<Failure> {
    vec![
        (
            GenerationError::UnknownModel { model: "m".into() },
            404,
            "model_not_found",
            None,
        ),
        (
            GenerationError::ModelUnavailable {
                model: "m".into(),
                reason: "no memory".into(),
                retry_after: Some(Duration::from_millis(2500)),
            },
            503,
            "model_unavailable",
            Some("3"),
        ),
        (
            GenerationError::QueueFull {
                model: "m".into(),
                waiting: 4,
                retry_after: Duration::from_millis(10),
            },
            429,
            "queue_full",
            Some("1"),
        ),
        (
            GenerationError::QueueDeadline {
                model: "m".into(),
                waited: Duration::from_secs(600),
            },
            503,
            "queue_deadline",
            None,
        ),
        (
            GenerationError::ContextLengthExceeded {
                prompt_tokens: 5000,
                limit_tokens: 4096,
            },
            400,
            "context_length_exceeded",
            None,
        ),
        (
            GenerationError::ParametersNotApplied {
                parameters: vec!["seed"],
            },
            400,
            "parameter_not_applicable",
            None,
        ),
        (
            GenerationError::RunRefused {
                request: "r".into(),
            },
            503,
            "run_refused",
            None,
        ),
        (
            GenerationError::RunFailed {
                request: "r".into(),
            },
            503,
            "run_failed",
            None,
        ),
        (
            GenerationError::WorkerDied { cause: "c".into() },
            503,
            "worker_died",
            None,
        ),
        (
            GenerationError::DeadlineExceeded {
                deadline: Deadline::Prefill,
                limit: Duration::from_secs(1),
            },
            503,
            "deadline_exceeded",
            None,
        ),
        (GenerationError::ShuttingDown, 503, "shutting_down", None),
        (
            GenerationError::Internal("i".into()),
            500,
            "internal_error",
            None,
        ),
        (
            GenerationError::PromptTooLong {
                prompt_bytes: 90_000,
                limit_tokens: 4096,
            },
            400,
            "context_length_exceeded",
            None,
        ),
        (
            GenerationError::CannotConstrain,
            400,
            "cannot_constrain",
            None,
        ),
        (
            GenerationError::CannotTellLogprobs,
            400,
            "cannot_tell_logprobs",
            None,
        ),
        (
            GenerationError::NotKept { reason: "r".into() },
            422,
            "format_not_kept",
            None,
        ),
        (
            GenerationError::PromptRefused {
                request: "r".into(),
            },
            400,
            "run_refused",
            None,
        ),
        (
            GenerationError::AnswerInterrupted {
                cause: "c".into(),
                reason: "r",
            },
            503,
            "answer_interrupted",
            None,
        ),
        (
            GenerationError::PoisonRequest { cause: "c".into() },
            422,
            "poison_request",
            None,
        ),
        (
            GenerationError::ModelFailed {
                model: "m".into(),
                cause: "c".into(),
            },
            503,
            "model_failed",
            None,
        ),
        (
            GenerationError::SlowReader {
                stalled: Duration::from_secs(1),
            },
            408,
            "slow_reader",
            None,
        ),
        (
            GenerationError::TensorsHeld {
                whose: "all clients",
                limit_bytes: 1,
            },
            503,
            "memory_used",
            Some("1"),
        ),
    ]
}

#[tokio::test]
async fn every_failure_of_a_generation_has_its_status() {
    for (failure, status, code, retry_after) in failures() {
        let submitted = failure.clone();
        let refusing = Server::start(Settings::default(), move |_| Err(submitted.clone())).await;
        let failing = Server::start(Settings::default(), move |_| {
            Ok(replay(vec![ReplyEvent::Failed(failure.clone())]))
        })
        .await;
        for server in [refusing, failing] {
            for fields in ["", r#","stream":true"#] {
                let answer = server.ask(chat(fields)).await;
                assert_eq!(answer.status, status, "{code}");
                assert_eq!(answer.error().2, code);
                assert_eq!(answer.header("retry-after"), retry_after, "{code}");
            }
            server.shut_down().await;
        }
    }
}
