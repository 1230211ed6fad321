//! `POST /completion`: a text that the model continues, in the shape of llama.cpp's server.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut, BytesMut};
use serde::Serialize;
use utoipa::ToSchema;

use super::named::this_or_the_only;
use super::probabilities::{self, TokenProbability};
use super::prompt_input::{self, PromptInput};
use crate::chat::{PromptPart, PromptSource, WholeReply};
use crate::conversation::ReplyPiece;
use crate::generation::{Completion, FinishReason, ModelId};
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::{Asked, Asking, ChatDialect, Identity, Options};
use crate::http::dialects::embedding::check_tokens;
use crate::http::dialects::format_fields::FormatParameters;
use crate::http::dialects::ignored::Ignored;
use crate::http::dialects::parameters::{
    SharedParameters, is_false, neutral, token_budget, within_count,
};
use crate::http::dialects::timings::TimingsBody;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::free_form::{Outline, ValuesLeft};
use crate::http::request::nul::refuse_nul;
use crate::http::request::together::{Together, fields_of};
use crate::http::response::append_json::append_json;
use crate::http::response::error_body::AnswerRefusals;
use crate::http::response::event_writer::EventWriter;
use crate::http::response::sse;
use crate::models::InstalledModel;
use crate::prompt::ControlTokenPolicy;

/// What `/completion` takes alone.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct CompletionParameters {
    /// What to continue: up to 64 prompts, unless `chat.max-prompts` says otherwise. Of several the answer is a list,
    /// and the pieces of a stream have their prompts' numbers.
    #[schema(schema_with = prompt_input::schema, required)]
    prompt: Option<PromptInput>,
}

fields_of!(CompletionParameters { prompt });

/// What texts take in the words of this server.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct RunParameters {
    /// Largest number of tokens to generate; -1: as many as the context leaves; 0 evaluates the prompt and
    /// answers an empty text. Default: the model's own, else -1.
    #[schema(minimum = -1)]
    n_predict: Option<i64>,
    /// How many of the likeliest tokens in each place are told, with the token itself. Default 0: none. Refused where
    /// the runtime cannot.
    #[schema(minimum = 0, maximum = 20)]
    n_probs: Option<i64>,
    /// Only false: what is told of tokens is what the model gave, not what the sampler made of it.
    #[schema(value_type = Option<bool>)]
    post_sampling_probs: Option<Outline>,
}

fields_of!(RunParameters {
    n_predict,
    n_probs,
    post_sampling_probs,
});

/// A continued text, or a piece of one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ContinuedText {
    /// Its prompt's number, from 0.
    index: usize,
    /// The text; in a stream one token's, and empty at its end.
    content: String,
    /// Whether this is the end. What follows stands in the answer, or at its stream's end.
    stop: bool,
    /// Id of the model that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    model: Option<ModelId>,
    /// Tokens generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_predicted: Option<u32>,
    /// Tokens of the prompt, cached ones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_evaluated: Option<u32>,
    /// Those of them that were found in the KV cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens_cached: Option<u32>,
    /// `limit`: the budget or the context is used up; `word`: one of `stop` was reached; `eos`: the model
    /// ended.
    #[schema(example = "eos")]
    stop_type: &'static str,
    /// Which one of `stop` was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopping_word: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<TimingsBody>,
    /// The tokens of the text, where `n_probs` asks for them; those of a stream's pieces stand in these.
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_probabilities: Option<Vec<TokenProbability>>,
}

/// How a text is continued.
#[derive(Clone, Copy, Debug)]
pub(super) struct CompletionAnswer {
    tells_probabilities: bool,
}

impl CompletionAnswer {
    fn end(self, index: usize, model: &ModelId, completion: &Completion) -> ContinuedText {
        let usage = completion.usage;
        ContinuedText {
            index,
            content: String::new(),
            stop: true,
            model: Some(Arc::clone(model)),
            tokens_predicted: usage
                .map(|usage| usage.completion_tokens)
                .or(completion.timings.predicted_n),
            tokens_evaluated: usage.map(|usage| usage.prompt_tokens),
            tokens_cached: usage.and_then(|usage| usage.cached_prompt_tokens),
            stop_type: match (completion.reason, &completion.stop_text) {
                (FinishReason::Length, _) => "limit",
                (FinishReason::Stop, Some(_)) => "word",
                (FinishReason::Stop, None) => "eos",
            },
            stopping_word: completion.stop_text.clone(),
            timings: TimingsBody::of(&completion.timings),
            completion_probabilities: None,
        }
    }

    fn of_whole(
        self,
        index: usize,
        model: &ModelId,
        reply: WholeReply,
        completion: &Completion,
    ) -> ContinuedText {
        let tokens = self.tells_probabilities.then_some(&reply.logprobs);
        ContinuedText {
            completion_probabilities: tokens.map(|tokens| TokenProbability::all(tokens)),
            content: reply.text,
            ..self.end(index, model, completion)
        }
    }
}

impl ChatDialect for CompletionAnswer {
    const PROMPT_PARAM: &'static str = "prompt";
    type Writer = CompletionWriter;

    fn whole(
        &self,
        identity: &Identity,
        reply: WholeReply,
        completion: &Completion,
    ) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&self.of_whole(0, &identity.model, reply, completion))
    }

    fn whole_of_all(
        &self,
        identity: &Identity,
        mut replies: Vec<(WholeReply, Completion)>,
        all: &Completion,
    ) -> serde_json::Result<Vec<u8>> {
        if replies.len() == 1 {
            let reply = replies.pop().map(|(reply, _)| reply);
            return self.whole(identity, reply.unwrap_or_default(), all);
        }
        let replies = replies.into_iter().enumerate();
        let texts = replies.map(|(index, (reply, completion))| {
            self.of_whole(index, &identity.model, reply, &completion)
        });
        serde_json::to_vec(&Vec::from_iter(texts))
    }

    fn writer(&self, identity: &Identity) -> CompletionWriter {
        CompletionWriter {
            answer: *self,
            index: identity.choice,
            model: Arc::clone(&identity.model),
        }
    }

    fn stream(body: Body) -> Response {
        sse::response(body)
    }
}

/// Writes the events of a text that goes on. A stream has no mark behind its last event.
pub(crate) struct CompletionWriter {
    answer: CompletionAnswer,
    index: usize,
    model: ModelId,
}

impl EventWriter for CompletionWriter {
    fn opening(&mut self, _buffer: &mut BytesMut) {}

    fn piece(&mut self, piece: &ReplyPiece, buffer: &mut BytesMut) {
        // Of a text that is no conversation there are no other pieces.
        let (text, tokens) = match piece {
            ReplyPiece::Text(text) => (text, None),
            ReplyPiece::ScoredText(scored) => (&scored.text, Some(&scored.tokens)),
            _ => return,
        };
        buffer.put_slice(b"data: {\"index\":");
        append_json(buffer, &self.index);
        buffer.put_slice(b",\"content\":");
        append_json(buffer, text.as_str());
        buffer.put_slice(b",\"stop\":false");
        if let Some(tokens) = tokens {
            buffer.put_slice(b",\"completion_probabilities\":");
            append_json(buffer, &TokenProbability::all(tokens));
        }
        buffer.put_slice(b"}\n\n");
    }

    fn finished(&mut self, completion: &Completion, buffer: &mut BytesMut) {
        buffer.put_slice(b"data: ");
        let end = self.answer.end(self.index, &self.model, completion);
        append_json(buffer, &end);
        buffer.put_slice(b"\n\n");
    }

    fn keep_alive(&mut self, buffer: &mut BytesMut) {
        buffer.put_slice(sse::KEEP_ALIVE);
    }

    fn failed(&mut self, error: &RequestError, buffer: &mut BytesMut) {
        sse::write_error(error, buffer);
    }
}

/// Continue a text
///
/// As `/v1/completions` does, in the shape of llama.cpp's server. With `stream: true` the answer is a stream
/// of `data:` lines, each a ContinuedText, the last of which has `stop: true`; an error after the stream has
/// begun is a `data:` line with an error object and ends it.
#[utoipa::path(post, path = "/completion", tag = "llama-server",
    request_body(content = super::bodies::LlamaCompletionRequest),
    responses(
        (status = 200, description = "The continuation", content(
            (ContinuedText = "application/json"),
            (ContinuedText = "text/event-stream"))),
        AnswerRefusals))]
pub(crate) async fn completion(asking: Asking) -> Result<Response, RequestError> {
    asking.answer(asked).await
}

/// What a path takes alone, and what it shares with others.
pub(super) type Read<X> = Together<X, RunFields>;
type RunFields =
    Together<RunParameters, Together<SharedParameters, Together<FormatParameters, Ignored>>>;

fn asked(
    state: &HttpState,
    context: &RequestContext,
    Together(own, run): Read<CompletionParameters>,
) -> Result<Asked<CompletionAnswer>, RequestError> {
    let (model, mut options) = run_of(state, context, run)?;
    let prompt = own.prompt.ok_or_else(|| RequestError::missing("prompt"))?;
    let mut sources = sources(state, &model, prompt)?.into_iter();
    let source = sources
        .next()
        .ok_or_else(|| RequestError::out_of_range("prompt", "must hold something to continue"))?;
    options.more_prompts = sources.collect();
    Ok(Asked {
        source,
        reading: None,
        dialect: CompletionAnswer::of(&options),
        options,
        model,
    })
}

impl CompletionAnswer {
    pub fn of(options: &Options) -> Self {
        Self {
            tells_probabilities: options.draws.logprobs.is_some(),
        }
    }
}

/// Which model is to run, and how.
pub(super) fn run_of(
    state: &HttpState,
    context: &RequestContext,
    Together(run, Together(mut shared, Together(format, ignored))): RunFields,
) -> Result<(Arc<InstalledModel>, Options), RequestError> {
    let model = this_or_the_only(state, context, shared.model.as_deref())?;
    shared.refuse_several()?;
    let param = "post_sampling_probs";
    neutral(param, &run.post_sampling_probs, is_false, "only false")?;
    // What this server says for none.
    shared.seed = shared.seed.filter(|seed| *seed != -1);
    let tokens = token_budget("n_predict", run.n_predict)?.or(shared.max_tokens()?);
    let tokens = tokens.or(model.facts.max_new_tokens);
    let mut options = Options {
        format: format.read(&mut ValuesLeft::of(&state.chat))?,
        ..shared.options(state, &model, tokens, ignored)?
    };
    options.draws.logprobs = probabilities::asked(run.n_probs)?;
    Ok((model, options))
}

/// Texts of clients that may write control tokens are as they are.
pub(super) fn policy(state: &HttpState) -> Option<ControlTokenPolicy> {
    (!state.chat.raw_completions).then_some(state.chat.control_tokens)
}

fn sources(
    state: &HttpState,
    model: &InstalledModel,
    prompt: PromptInput,
) -> Result<Vec<PromptSource>, RequestError> {
    match prompt {
        PromptInput::One(parts) => Ok(vec![source(state, model, parts, "prompt")?]),
        PromptInput::Several(prompts) => {
            within_count(&state.chat, prompts.len())?;
            let prompts = prompts.into_iter().enumerate();
            prompts
                .map(|(index, parts)| source(state, model, parts, &format!("prompt[{index}]")))
                .collect()
        }
    }
}

fn source(
    state: &HttpState,
    model: &InstalledModel,
    mut parts: Vec<PromptPart>,
    param: &str,
) -> Result<PromptSource, RequestError> {
    let mut is_empty = true;
    for part in &parts {
        match part {
            PromptPart::Text(text) => {
                refuse_nul(text, || param.to_owned())?;
                is_empty &= text.is_empty();
            }
            PromptPart::Tokens(tokens) => {
                check_tokens(model, tokens, param)?;
                is_empty = false;
            }
        }
    }
    if is_empty {
        return Err(RequestError::out_of_range(param, "must not be empty"));
    }
    let policy = policy(state);
    let only = match parts.len() {
        1 => parts.pop(),
        _ => None,
    };
    Ok(match only {
        Some(PromptPart::Text(text)) => PromptSource::Text { text, policy },
        Some(PromptPart::Tokens(tokens)) => PromptSource::Tokens {
            tokens,
            may_control: policy.is_none(),
        },
        None => PromptSource::Parts { parts, policy },
    })
}
