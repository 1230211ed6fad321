//! The resource: a response as it begins, as it ends, and as it fails. Every key is always there. What has ended and
//! may be gone on from is kept before its client is told of its end.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Serialize;
use utoipa::ToSchema;

use super::echo::Echo;
use super::last_response::LastResponse;
use super::output::{COMPLETED, INCOMPLETE, OutputItem};
use crate::auth::SealingKey;
use crate::generation::{ClientKey, Completion, FinishReason, Usage};
use crate::http::dialects::chat_dialect::{Identity, unix_seconds};
use crate::http::dialects::kept_items::Item;
use crate::http::dialects::kept_responses::{KeptResponse, KeptResponses};
use crate::http::request::id;
use crate::http::response::error_body::ErrorBody;
use crate::memory::Charge;

/// A response.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResponseResource {
    /// With the digits of its request's id.
    #[schema(example = "resp_5a0c7d1e93b24f6ab8d01c2f")]
    id: String,
    /// Always `response`.
    #[schema(example = "response")]
    object: &'static str,
    /// Seconds since the epoch.
    created_at: u64,
    /// Likewise; null of one that has not come to its end.
    #[schema(required)]
    completed_at: Option<u64>,
    /// `completed`; `incomplete` where the answer was cut; `failed`; `in_progress` in a stream. In the background also
    /// `queued` and `cancelled`.
    #[schema(example = "completed")]
    status: &'static str,
    #[schema(required)]
    error: Option<ResponseError>,
    #[schema(required)]
    incomplete_details: Option<IncompleteDetails>,
    /// Id of the model that answered.
    #[schema(value_type = String)]
    model: Arc<str>,
    output: Vec<OutputItem>,
    /// Null as long as a count is not known.
    #[schema(required)]
    usage: Option<ResponseUsage>,
    #[serde(flatten)]
    echo: Echo,
}

/// Why a response failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResponseError {
    /// Stable and machine-readable.
    code: &'static str,
    /// For a person.
    message: String,
}

/// Why an answer is not whole.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IncompleteDetails {
    /// `max_output_tokens`: these, or the context, are used up.
    #[schema(example = "max_output_tokens")]
    reason: &'static str,
}

/// Token counts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResponseUsage {
    /// Tokens of the prompt, cached ones included.
    input_tokens: u32,
    /// Null where it is not known.
    #[schema(required)]
    input_tokens_details: Option<InputTokensDetails>,
    /// Tokens generated.
    output_tokens: u32,
    /// Null where thoughts were not looked for.
    #[schema(required)]
    output_tokens_details: Option<OutputTokensDetails>,
    /// The sum of both.
    total_tokens: u32,
}

/// Where tokens of the prompt came from.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponseInputTokensDetails)]
pub(crate) struct InputTokensDetails {
    /// Those that were found in the KV cache and not evaluated again.
    cached_tokens: u32,
    /// Always 0: nothing is kept because a request asks for it.
    cache_write_tokens: u32,
}

/// What generated tokens were for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ResponseOutputTokensDetails)]
pub(crate) struct OutputTokensDetails {
    /// Tokens of thoughts, their markers included.
    reasoning_tokens: u32,
}

impl ResponseUsage {
    pub(super) fn of(usage: Usage) -> Self {
        let Usage {
            prompt_tokens,
            completion_tokens,
            cached_prompt_tokens,
            reasoning_tokens,
        } = usage;
        Self {
            input_tokens: prompt_tokens,
            input_tokens_details: cached_prompt_tokens.map(|cached_tokens| InputTokensDetails {
                cached_tokens,
                cache_write_tokens: 0,
            }),
            output_tokens: completion_tokens,
            output_tokens_details: reasoning_tokens
                .map(|reasoning_tokens| OutputTokensDetails { reasoning_tokens }),
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
        }
    }
}

/// What the answer to one request needs to know of it.
pub(super) struct Answered {
    pub echo: Echo,
    /// The conversation that is answered.
    pub items: Vec<Arc<Item>>,
    /// Seconds since the epoch.
    pub created: u64,
    /// Whose response it is.
    pub client: ClientKey,
    /// Where it is kept, if it is.
    pub kept: Option<Arc<KeptResponses>>,
    /// Where it is the last of its connection, if it is kept nowhere else.
    pub last: Option<Arc<LastResponse>>,
    /// Whether nothing is to be answered: then it is whole when the prompt has been evaluated.
    pub is_warm_up: bool,
    /// With it thoughts are sealed.
    pub sealing: Option<SealingKey>,
    /// In the background: the response at its end.
    pub at_end: OnceLock<Bytes>,
    /// Of what is here.
    pub _held: Charge,
}

impl Answered {
    /// The response before there is an answer.
    pub fn begun(&self, identity: &Identity, status: &'static str) -> ResponseResource {
        ResponseResource {
            id: id::for_response(&identity.id),
            object: "response",
            created_at: self.created,
            completed_at: None,
            status,
            error: None,
            incomplete_details: None,
            model: Arc::clone(&identity.model),
            output: Vec::new(),
            usage: None,
            echo: self.echo.clone(),
        }
    }

    /// JSON of the response at its end. It is kept if it is to be.
    pub fn ended(
        &self,
        identity: &Identity,
        output: Vec<OutputItem>,
        completion: &Completion,
    ) -> serde_json::Result<Vec<u8>> {
        let (status, incomplete) = status(self.reason(completion));
        let mut resource = ResponseResource {
            completed_at: (status == COMPLETED).then(unix_seconds),
            status,
            incomplete_details: incomplete.map(|reason| IncompleteDetails { reason }),
            output,
            usage: completion.usage.map(ResponseUsage::of),
            ..self.begun(identity, status)
        };
        self.keep(&mut resource, true)
    }

    /// Why it has ended, as its client is told.
    pub fn reason(&self, completion: &Completion) -> FinishReason {
        match self.is_warm_up {
            true => FinishReason::Stop,
            false => completion.reason,
        }
    }

    /// The response as it fails, with what there is of its answer. `None`: its client has cancelled it.
    pub fn failed(
        &self,
        identity: &Identity,
        output: Vec<OutputItem>,
        error: Option<&ErrorBody>,
    ) -> ResponseResource {
        let status = match error {
            Some(_) => "failed",
            None => "cancelled",
        };
        let mut resource = ResponseResource {
            error: error.map(|error| ResponseError {
                code: error.error.code,
                message: error.error.message.clone(),
            }),
            output,
            ..self.begun(identity, status)
        };
        // Only in the background there may be no client that is told of it now.
        match self.echo.background {
            true => {
                let kept = self.keep(&mut resource, false);
                kept.expect("these types have JSON forms");
            }
            false => resource.echo.store = false,
        }
        resource
    }

    /// JSON of the response at its end, which is kept if it is to be.
    fn keep(
        &self,
        resource: &mut ResponseResource,
        is_answered: bool,
    ) -> serde_json::Result<Vec<u8>> {
        let mut json = serde_json::to_vec(resource)?;
        let response = |json: &[u8], resource: &ResponseResource| {
            let mut items = self.items.clone();
            items.extend(resource.output.iter().map(OutputItem::kept));
            KeptResponse {
                id: resource.id.clone(),
                json: Bytes::copy_from_slice(json),
                items,
                asked: self.items.len(),
                is_answered,
                is_background: self.echo.background,
            }
        };
        let kept = self.kept.as_ref();
        let is_kept = kept.is_some_and(|kept| kept.keep(&self.client, response(&json, resource)));
        if kept.is_some() && !is_kept {
            resource.echo.store = false;
            json = serde_json::to_vec(resource)?;
        }
        if let Some(last) = self.last.as_ref().filter(|_| !is_kept) {
            // It is gone on from, and not shown.
            last.keep(response(&[], resource));
        }
        if self.echo.background {
            // There is one end.
            let _ = self.at_end.set(json.clone().into());
        }
        Ok(json)
    }
}

#[cfg(test)]
impl Answered {
    /// Of a request that asks for nothing.
    pub fn example() -> Self {
        use crate::memory::{Accountant, Standing};
        let accountant = Accountant::new(1 << 20);
        let client = ClientKey::new("c");
        Self {
            echo: Echo {
                background: false,
                instructions: None,
                max_output_tokens: None,
                max_tool_calls: None,
                metadata: serde_json::Map::new(),
                parallel_tool_calls: true,
                temperature: None,
                top_p: None,
                presence_penalty: None,
                frequency_penalty: None,
                previous_response_id: None,
                prompt_cache_key: None,
                reasoning: super::echo::EchoedReasoning::default(),
                safety_identifier: None,
                service_tier: None,
                store: false,
                text: super::echo::EchoedText {
                    format: super::echo::compact(r#"{"type":"text"}"#),
                },
                tool_choice: super::echo::compact(r#""auto""#),
                tools: Vec::new(),
                top_logprobs: 0,
                truncation: "disabled",
                user: None,
            },
            items: Vec::new(),
            created: 7,
            client: client.clone(),
            kept: None,
            last: None,
            is_warm_up: false,
            sealing: None,
            at_end: OnceLock::new(),
            _held: accountant.account(client, Standing::Ordinary).open(),
        }
    }
}

/// How a response is at its end, and what it lacks.
fn status(reason: FinishReason) -> (&'static str, Option<&'static str>) {
    match reason {
        FinishReason::Stop => (COMPLETED, None),
        FinishReason::Length => (INCOMPLETE, Some("max_output_tokens")),
    }
}
