//! The OpenAPI document of everything the router answers, made when it is first asked for.

mod constraints;

use std::sync::LazyLock;

use axum::http::{HeaderValue, Method, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use utoipa::openapi::schema::Ref;
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{Content, ResponseBuilder};
use utoipa::{Modify, OpenApi, ToSchema};

use super::admin::{doctor, events, keys, logs, requests};
use super::{health, loading_progress, metrics, readiness, status};
use crate::aside::aside;
use crate::auth::Role;
use crate::http::dialects::anthropic;
use crate::http::dialects::llama_server;
use crate::http::dialects::ollama;
use crate::http::dialects::openai::{
    apply_template, chat, completions, embeddings, messages, models,
};
use crate::http::dialects::responses;
use crate::http::dialects::{format_fields, parameters, tools};
use crate::http::request::paths::{self, Need};
use crate::http::response::error_body::ErrorBody;

#[derive(OpenApi)]
#[openapi(
    modifiers(&Keys),
    info(
        title = "rkllmd",
        description = "Language models on Rockchip NPUs, in the dialects of OpenAI, Anthropic and Ollama.",
        license(name = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "openai", description = "OpenAI's API"),
        (name = "anthropic", description = "Anthropic's API"),
        (name = "ollama", description = "Ollama's API"),
        (name = "llama-server", description = "What llama.cpp's server has beside OpenAI's API"),
        (name = "daemon", description = "The state of the daemon"),
        (name = "admin", description = "What administrators see and change"),
        (name = "json-rpc", description = "The vendor's functions, one to one")
    ),
    paths(
        chat::chat_completions,
        completions::completions,
        embeddings::embeddings,
        models::list_models,
        models::retrieve_model,
        anthropic::messages::messages,
        anthropic::count_tokens::count_tokens,
        responses::create::create,
        responses::socket::open,
        responses::input_tokens::input_tokens,
        responses::compact::compact,
        responses::kept::retrieve,
        responses::kept::delete,
        responses::kept::input_items,
        responses::background::cancel,
        ollama::version::root,
        ollama::version::version,
        ollama::models::tags,
        ollama::models::ps,
        ollama::models::show,
        ollama::chat::chat,
        ollama::generate::generate,
        ollama::embed::embed,
        ollama::embed::embeddings,
        ollama::pulling::pull,
        ollama::refused::push,
        ollama::making::create,
        ollama::making::copy,
        ollama::making::delete,
        ollama::refused::blob,
        apply_template::apply_template,
        llama_server::tokens::tokenize,
        llama_server::tokens::detokenize,
        llama_server::completion::completion,
        llama_server::infill::infill,
        llama_server::rerank::rerank,
        llama_server::downloads::download_model,
        llama_server::downloads::remove_model,
        llama_server::loading::load,
        llama_server::loading::unload,
        llama_server::model_events::follow,
        llama_server::props::props,
        llama_server::slots::slots,
        health::health,
        readiness::ready,
        status::status,
        loading_progress::loading_progress,
        metrics::metrics,
        doctor::examine,
        keys::list_keys,
        keys::create_key,
        keys::revoke_key,
        requests::list_requests,
        requests::abort_request,
        logs::recent_logs,
        events::follow_events,
        crate::http::rpc::post::post,
        crate::http::rpc::websocket::websocket,
        document
    ),
    components(schemas(
        chat::ChatParameters,
        completions::TextParameters,
        parameters::SharedParameters,
        format_fields::FormatParameters,
        format_fields::StructuredOutputs,
        parameters::StreamOptions,
        messages::Message,
        messages::ContentPart,
        messages::MessageCall,
        messages::CalledFunction,
        tools::ToolParameter,
        tools::FunctionParameter,
        llama_server::completion::CompletionParameters,
        anthropic::error::AnthropicError,
        anthropic::error::AnthropicErrorObject,
        anthropic::messages::MessagesParameters,
        anthropic::parameters::ConversationParameters,
        anthropic::conversation::MessageParam,
        anthropic::blocks::TextBlock,
        anthropic::blocks::ToolUseBlock,
        anthropic::blocks::ToolResultBlock,
        anthropic::blocks::ThinkingBlock,
        anthropic::tools::AnthropicTool,
        anthropic::tools::AnthropicToolChoice,
        anthropic::thinking::ThinkingParameter,
        anthropic::output::OutputConfig,
        responses::create_parameters::CreateParameters,
        responses::parameters::ContextParameters,
        responses::input::InputMessage,
        responses::input::InputCall,
        responses::input::InputResult,
        responses::input::InputReasoning,
        responses::input::InputCompaction,
        responses::input::InputReference,
        responses::input::InputPart,
        responses::tools::ResponseTool,
        responses::text_format::TextParameter,
        responses::reasoning::ReasoningParameter,
        llama_server::completion::RunParameters,
        llama_server::infill::ExtraFile,
        llama_server::infill::InfillParameters,
        ollama::chat::OllamaChatParameters,
        ollama::text_parameters::OllamaTextParameters,
        ollama::parameters::OllamaParameters,
        ollama::options::ModelOptions,
        ollama::messages::OllamaMessage,
        ollama::messages::OllamaCall,
        ollama::messages::OllamaFunction,
        ollama::embed::EmbedParameters,
        ollama::embed::EmbedInput,
        ollama::embed::EmbeddingPrompt
    ))
)]
struct Document;

/// Adds what is common to all paths: how keys are shown, and what is answered without a right one.
struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let header = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("x-api-key", SecurityScheme::ApiKey(header));
        document.security = Some(vec![
            SecurityRequirement::new("bearer", Vec::<String>::new()),
            SecurityRequirement::new("x-api-key", Vec::<String>::new()),
        ]);
        let refused = |description| {
            let body = Content::new(Some(Ref::from_schema_name(ErrorBody::name())));
            ResponseBuilder::new()
                .description(description)
                .content("application/json", body)
                .build()
        };
        for (path, item) in &mut document.paths.paths {
            let operations = [
                (Method::GET, &mut item.get),
                (Method::POST, &mut item.post),
                (Method::DELETE, &mut item.delete),
            ];
            for (method, operation) in operations {
                let Some(operation) = operation else { continue };
                let responses = &mut operation.responses.responses;
                match paths::need(&method, path) {
                    None => {}
                    Some(Need::Nothing) => {
                        operation.security = Some(vec![SecurityRequirement::default()])
                    }
                    Some(Need::Key(role)) => {
                        let missing = refused("The listener asks for a key, and this is none");
                        responses.insert("401".to_owned(), missing.into());
                        if role == Role::Admin {
                            let user = refused("The key is no admin's");
                            responses.insert("403".to_owned(), user.into());
                        }
                    }
                }
            }
        }
    }
}

static JSON: LazyLock<Bytes> = LazyLock::new(|| {
    let mut document = of_the_types();
    constraints::complete(&mut document);
    document.to_string().into()
});
/// Of the document, about.
const DOCUMENT_BYTES: usize = 512 * 1024;

/// What the types' attributes say.
fn of_the_types() -> serde_json::Value {
    serde_json::to_value(Document::openapi()).expect("an OpenAPI document has a JSON form")
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "daemon",
    responses((status = 200, description = "The OpenAPI document", body = Object)))]
pub(crate) async fn document() -> impl IntoResponse {
    let headers = [(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )];
    // The first time it is made.
    let document = aside(DOCUMENT_BYTES, || JSON.clone());
    (headers, document)
}
