//! The OpenAPI document of everything the router answers, made when it is first asked for.

use std::borrow::Cow;
use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AllOfBuilder, Ref, Schema};
use utoipa::{OpenApi, PartialSchema, ToSchema};

use super::openai::{chat, completions, embeddings, messages, models, parameters};
use super::{health, llama_server, loading_progress, metrics_page, readiness};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "rkllmd",
        description = "Language models on Rockchip NPUs, in the OpenAI dialect.",
        license(name = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "openai", description = "OpenAI's API"),
        (name = "llama-server", description = "What llama.cpp's server has beside OpenAI's API"),
        (name = "daemon", description = "The state of the daemon")
    ),
    paths(
        chat::chat_completions,
        completions::completions,
        embeddings::embeddings,
        models::list_models,
        models::retrieve_model,
        llama_server::apply_template::apply_template,
        llama_server::tokens::tokenize,
        llama_server::tokens::detokenize,
        health::health,
        readiness::ready,
        loading_progress::loading_progress,
        metrics_page::metrics,
        document
    ),
    components(schemas(
        chat::ChatParameters,
        completions::TextParameters,
        parameters::SharedParameters,
        parameters::StreamOptions,
        messages::Message,
        messages::ContentPart
    ))
)]
struct Document;

static JSON: LazyLock<Bytes> = LazyLock::new(|| {
    let document = Document::openapi();
    serde_json::to_vec(&document)
        .expect("an OpenAPI document has a JSON form")
        .into()
});

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "daemon",
    responses((status = 200, description = "The OpenAPI document", body = Object)))]
pub(crate) async fn document() -> impl IntoResponse {
    let headers = [(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )];
    (headers, JSON.clone())
}

/// A request's own parameters beside the shared ones, as they are read.
macro_rules! with_shared_parameters {
    ($name:ident, $own:ty) => {
        pub(crate) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                AllOfBuilder::new()
                    .item(Ref::from_schema_name(<$own as ToSchema>::name()))
                    .item(Ref::from_schema_name(
                        <parameters::SharedParameters as ToSchema>::name(),
                    ))
                    .into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($name))
            }
        }
    };
}

with_shared_parameters!(ChatCompletionRequest, chat::ChatParameters);
with_shared_parameters!(CompletionRequest, completions::TextParameters);
