//! The bodies of requests, as `/openapi.json` describes them.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AllOfBuilder, Ref, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::chat::OllamaChatParameters;
use super::embed::{EmbedInput, EmbedParameters, EmbeddingPrompt};
use super::parameters::OllamaParameters;
use super::text_parameters::OllamaTextParameters;

/// A request's own parameters beside the shared ones, as they are read.
macro_rules! with_shared_parameters {
    ($name:ident, $own:ty, $shared:ty) => {
        pub(crate) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                AllOfBuilder::new()
                    .item(Ref::from_schema_name(<$own as ToSchema>::name()))
                    .item(Ref::from_schema_name(<$shared as ToSchema>::name()))
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

with_shared_parameters!(OllamaChatRequest, OllamaChatParameters, OllamaParameters);
with_shared_parameters!(OllamaTextRequest, OllamaTextParameters, OllamaParameters);
with_shared_parameters!(EmbedRequest, EmbedInput, EmbedParameters);
with_shared_parameters!(EmbeddingRequest, EmbeddingPrompt, EmbedParameters);
