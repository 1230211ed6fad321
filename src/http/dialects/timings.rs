//! What was measured of an answer, as OpenAI's dialect and llama.cpp's server tell it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::generation::Timings;

/// Measured times. A figure that was not measured is absent.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct TimingsBody {
    /// Prompt tokens evaluated in prefill.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_n: Option<u32>,
    /// Milliseconds of prefill.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_ms: Option<f32>,
    /// `prompt_n` per second of `prompt_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_per_second: Option<f32>,
    /// Tokens generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted_n: Option<u32>,
    /// Milliseconds for the tokens after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted_ms: Option<f32>,
    /// Tokens after the first per second of `predicted_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted_per_second: Option<f32>,
    /// Peak resident memory of the worker as the runtime reports it, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime_memory_mb: Option<f32>,
    /// Milliseconds in the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_ms: Option<f32>,
    /// Requests that were to be served before this one when it entered the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_position: Option<u32>,
    /// How often the answer went on with another worker because its own had died; absent where it
    /// did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumptions: Option<u32>,
}

impl TimingsBody {
    /// `None` when nothing was measured.
    pub fn of(timings: &Timings) -> Option<Self> {
        let finite = |value: Option<f32>| value.filter(|value| value.is_finite());
        let body = Self {
            prompt_n: timings.prompt_n,
            prompt_ms: finite(timings.prompt_ms),
            prompt_per_second: per_second(timings.prompt_n, timings.prompt_ms),
            predicted_n: timings.predicted_n,
            predicted_ms: finite(timings.predicted_ms),
            predicted_per_second: finite(timings.predicted_per_second),
            runtime_memory_mb: finite(timings.runtime_memory_mb),
            queue_ms: finite(timings.queue_ms),
            queue_position: timings.queue_position,
            resumptions: (timings.resumptions > 0).then_some(timings.resumptions),
        };
        (body != Self::default()).then_some(body)
    }
}

fn per_second(tokens: Option<u32>, ms: Option<f32>) -> Option<f32> {
    let rate = tokens? as f32 / ms? * 1000.0;
    rate.is_finite().then_some(rate)
}
