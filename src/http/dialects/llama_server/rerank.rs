//! `POST /v1/rerank`: how well documents answer a query, by a model that was made to judge that. Jina's and
//! Cohere's clients ask so, and llama.cpp's.
//!
//! The model reads each document with the query, in the words of its `model.toml`, and is asked for its next
//! token; the score is how much likelier its yes is than its no, from 0 to 1. No text of a client's becomes a
//! control token in that.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::rerank_input::{Document, Documents};
use crate::admission::{EmbeddingError, EmbeddingRequest};
use crate::chat::{ContextLimit, Follows};
use crate::generation::{GenerationError, ModelId};
use crate::http::HttpState;
use crate::http::dialects;
use crate::http::dialects::chat_dialect::plain_error;
use crate::http::dialects::embedding::{input_error, too_long_input};
use crate::http::dialects::ignored::Ignored;
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::installed::installed;
use crate::http::request::nul::refuse_nul;
use crate::http::request::parsed::parsed;
use crate::http::request::together::{Together, fields_of};
use crate::http::response::error_body::ErrorBody;
use crate::http::response::notices::add_notices;
use crate::library_calls::{Input, WantedRow};
use crate::models::InstalledModel;
use crate::reader::Judge;

/// A query, and what may answer it.
#[derive(Debug, Default, ToSchema)]
pub(crate) struct RerankRequest {
    /// Id or alias of an installed model that is a reranker.
    #[schema(required, nullable = false, min_length = 1)]
    model: Option<String>,
    /// What is asked.
    #[schema(required, nullable = false, min_length = 1)]
    query: Option<String>,
    /// What may answer it: texts, or objects with a `text`.
    #[schema(value_type = Vec<RerankDocument>, required, nullable = false, min_items = 1)]
    documents: Option<Documents>,
    /// So many of the best are answered. Default: all.
    #[schema(minimum = 1)]
    top_n: Option<i64>,
    /// Whether each answer holds its document. Default false.
    return_documents: Option<bool>,
}

fields_of!(RerankRequest {
    model,
    query,
    documents,
    top_n,
    return_documents,
});

/// A document of a request.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what is read")]
pub(crate) enum RerankDocument {
    Text(String),
    Object(DocumentText),
}

/// A document's text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DocumentText {
    /// The text.
    text: String,
}

/// Documents by how well they answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reranked {
    /// Also in the `x-request-id` header.
    #[schema(value_type = String)]
    id: Arc<str>,
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Id of the model.
    #[schema(value_type = String)]
    model: ModelId,
    /// The best first; of equal ones the one that was sent first.
    results: Vec<Relevance>,
    /// Null where the runtime did not tell.
    #[schema(required)]
    usage: Option<RerankUsage>,
}

/// One document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Relevance {
    /// Its place in the request, from 0.
    index: usize,
    /// From 0 to 1: the likelihood of the model's yes where it says yes or no.
    #[schema(minimum = 0, maximum = 1)]
    relevance_score: f64,
    /// Where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<DocumentText>,
}

/// Tokens that the model read.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RerankUsage {
    /// Tokens of all prompts.
    prompt_tokens: u32,
    /// The same.
    total_tokens: u32,
}

/// A checked request.
struct Asked {
    model: Arc<InstalledModel>,
    judge: Arc<Judge>,
    query: String,
    documents: Vec<String>,
    top: usize,
    returns_documents: bool,
    ignored: Vec<&'static str>,
}

/// Order documents by how well they answer a query
///
/// Needs a model whose `model.toml` says that it is a reranker. Each document is read alone with the query.
#[utoipa::path(post, path = "/v1/rerank", tag = "llama-server",
    request_body(content = RerankRequest),
    responses(
        (status = 200, description = "The documents, the best first", body = Reranked),
        (status = 400, description = "The request is wrong, or the model is no reranker", body = ErrorBody),
        (status = 403, description = "The key may not use this model; or a foreign Origin", body = ErrorBody),
        (status = 404, description = "There is no such model", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 429, description = "The model's queue is full; see Retry-After", body = ErrorBody),
        (status = 500, description = "The model's answer is no number", body = ErrorBody),
        (status = 503, description = "The model cannot be loaded, or its worker failed", body = ErrorBody)))]
pub(crate) async fn rerank(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    context.is_generation(state.engine.metrics());
    let answered = answer(&state, &context, request).await;
    let (prompt_tokens, response) = answered.map_err(|error| dialects::failed(&context, error))?;
    context.embedded(prompt_tokens);
    Ok(response)
}

/// The answer, and how many tokens were read for it.
async fn answer(
    state: &Arc<HttpState>,
    context: &Arc<RequestContext>,
    request: Request,
) -> Result<(Option<u32>, Response), RequestError> {
    let mut asked = parsed(state, context, request, check).await?;
    let (inputs, neutralised) = prompts(state, context, &mut asked).await?;
    let request = EmbeddingRequest {
        keep_alive: None,
        model: Arc::clone(&asked.model.id),
        adapter: asked.model.adapter().cloned(),
        client: context.client.clone(),
        inputs,
        wanted: WantedRow::Logits([asked.judge.yes, asked.judge.no]),
        least_columns: None,
        total_deadline: state.total_deadline,
        account: Some(context.account()),
    };
    context.takes_turns();
    let rows = state.engine.embed(request).await;
    let rows = rows.map_err(|error| failed(context.caller.may_read_of_embeddings(error)))?;
    let mut results = Vec::with_capacity(rows.rows.len());
    let mut documents = asked.documents.into_iter();
    for (index, row) in rows.rows.iter().enumerate() {
        let document = documents.next().filter(|_| asked.returns_documents);
        results.push(Relevance {
            index,
            relevance_score: score(row).ok_or_else(|| RequestError::NoScore {
                param: param(index),
            })?,
            document: document.map(|text| DocumentText { text }),
        });
    }
    results.sort_by(|a, b| b.relevance_score.total_cmp(&a.relevance_score));
    results.truncate(asked.top);
    let answer = Reranked {
        id: Arc::clone(&context.id.0),
        object: "list",
        model: Arc::clone(asked.model.name()),
        results,
        usage: rows.prompt_tokens.map(|tokens| RerankUsage {
            prompt_tokens: tokens,
            total_tokens: tokens,
        }),
    };
    let mut response = Json(answer).into_response();
    add_notices(&mut response, &asked.ignored, &neutralised);
    Ok((rows.prompt_tokens, response))
}

/// The likelihood of the first of two logits beside the second; `None`: they are no numbers.
fn score(row: &[f32]) -> Option<f64> {
    let [yes, no] = row else { return None };
    let margin = f64::from(*yes) - f64::from(*no);
    let score = 1.0 / (1.0 + (-margin).exp());
    (yes.is_finite() && no.is_finite() && score.is_finite()).then_some(score)
}

fn check(state: &HttpState, context: &RequestContext, body: &[u8]) -> Result<Asked, RequestError> {
    let Together(request, ignored): Together<RerankRequest, Ignored> = fields(body)?;
    let model = installed(state, context, request.model.as_deref())?;
    let judge = model.facts.judge.clone();
    let judge = judge.ok_or_else(|| RequestError::NotAReranker {
        model: model.id.to_string(),
    })?;
    let query = request
        .query
        .ok_or_else(|| RequestError::missing("query"))?;
    if query.is_empty() {
        return Err(RequestError::out_of_range("query", "must not be empty"));
    }
    refuse_nul(&query, || "query".to_owned())?;
    let documents = request.documents;
    let documents = documents.ok_or_else(|| RequestError::missing("documents"))?;
    let documents = texts(state, documents)?;
    within_bytes(state, &judge, &query, &documents)?;
    let top = match request.top_n {
        None => documents.len(),
        Some(top) => usize::try_from(top)
            .ok()
            .filter(|top| *top > 0)
            .ok_or_else(|| RequestError::out_of_range("top_n", "must be at least 1"))?,
    };
    Ok(Asked {
        judge: Arc::new(judge),
        query,
        documents,
        top,
        returns_documents: request.return_documents == Some(true),
        ignored: ignored.names(),
        model,
    })
}

fn texts(state: &HttpState, documents: Documents) -> Result<Vec<String>, RequestError> {
    let most = state.embeddings.max_inputs;
    let Documents(documents) = documents;
    if documents.is_empty() {
        return Err(RequestError::out_of_range(
            "documents",
            "must hold a document",
        ));
    }
    if documents.len() > most {
        return Err(RequestError::out_of_range(
            "documents",
            format!(
                "has {} documents; `max-inputs` in the [embeddings] settings allows {most}",
                documents.len()
            ),
        ));
    }
    let documents = documents.into_iter().enumerate();
    let text = |(index, document)| -> Result<String, RequestError> {
        let (text, param) = match document {
            Document::Text(text) => (Some(text), param(index)),
            Document::Object(document) => (document.text, format!("{}.text", param(index))),
        };
        let text = text.ok_or_else(|| RequestError::missing(param.clone()))?;
        if text.is_empty() {
            return Err(RequestError::out_of_range(param, "must not be empty"));
        }
        refuse_nul(&text, || param)?;
        Ok(text)
    };
    documents.map(text).collect()
}

/// The query is in every prompt.
fn within_bytes(
    state: &HttpState,
    judge: &Judge,
    query: &str,
    documents: &[String],
) -> Result<(), RequestError> {
    let limit = state.embeddings.limit_bytes;
    let each = judge.bytes().saturating_add(query.len());
    let all: usize = documents.iter().map(String::len).sum();
    let bytes = each.saturating_mul(documents.len()).saturating_add(all);
    if bytes > limit {
        return Err(RequestError::out_of_range(
            "documents",
            format!(
                "and the query beside each of them have {bytes} bytes; `limit-bytes` in the [embeddings] \
                 settings allows {limit}"
            ),
        ));
    }
    Ok(())
}

/// What the model reads of each document, and the fields in which a control token was made text.
async fn prompts(
    state: &HttpState,
    context: &RequestContext,
    asked: &mut Asked,
) -> Result<(Vec<Input>, Vec<&'static str>), RequestError> {
    let Asked {
        model,
        judge,
        query,
        documents,
        ..
    } = asked;
    let limit = ContextLimit::of(&*state.engine, model);
    for (index, document) in documents.iter().enumerate() {
        let bytes = document.len() + query.len();
        let checked = limit.check_text(bytes);
        checked.map_err(|error| too_long(index, error))?;
    }
    let mut texts = vec![query.clone()];
    texts.extend(documents.iter().cloned());
    let policy = Some(state.chat.control_tokens);
    let plain = state.engine.plain(model, texts, policy, true).await;
    let plain = plain.map_err(|error| {
        plain_error(error, |index| match index.checked_sub(1) {
            None => "query".to_owned(),
            Some(index) => param(index),
        })
    })?;
    let mut neutralised = Vec::new();
    let mut plain = plain.into_iter();
    let query = plain.next().unwrap_or_default();
    neutralised.extend((!query.neutralised.is_empty()).then_some("query"));
    let tokens_of_query = query.tokens.as_ref().map_or(0, Vec::len);
    let mut inputs = Vec::with_capacity(plain.len());
    let mut held = context.held();
    for (index, document) in plain.enumerate() {
        if !document.neutralised.is_empty() && !neutralised.contains(&"documents") {
            neutralised.push("documents");
        }
        let tokens = tokens_of_query + document.tokens.as_ref().map_or(0, Vec::len);
        let checked = limit.check_tokens(tokens, Follows::Nothing);
        checked.map_err(|error| too_long(index, error))?;
        let prompt = judge.prompt(&query.text, &document.text);
        held += prompt.len();
        context.hold(held)?;
        inputs.push(Input::prompt(prompt));
    }
    Ok((inputs, neutralised))
}

fn param(index: usize) -> String {
    format!("documents[{index}]")
}

fn too_long(index: usize, error: GenerationError) -> RequestError {
    failed(too_long_input(index, error))
}

fn failed(error: EmbeddingError) -> RequestError {
    input_error(error, "documents", param)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_the_likelihood_of_yes() {
        assert_eq!(score(&[1.0, 1.0]), Some(0.5));
        let near = |row: &[f32], expected: f64| {
            let score = score(row).expect("a score");
            assert!((score - expected).abs() < 1e-6, "{row:?}: {score}");
        };
        near(&[3.0, 2.0], 0.731_058_6);
        near(&[2.0, 3.0], 0.268_941_4);
        near(&[3e38, -3e38], 1.0);
        near(&[-3e38, 3e38], 0.0);
        for row in [&[f32::NAN, 1.0][..], &[f32::INFINITY, 1.0], &[1.0], &[]] {
            assert_eq!(score(row), None, "{row:?}");
        }
    }
}
