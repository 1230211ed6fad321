//! The bodies of chats and completions, as `/openapi.json` describes them.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AllOfBuilder, Ref, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::chat::ChatParameters;
use super::completions::TextParameters;
use super::format_fields::FormatParameters;
use super::parameters::SharedParameters;

/// A request's own parameters beside the shared ones, as they are read.
macro_rules! with_shared_parameters {
    ($name:ident, $($own:ty),+) => {
        pub(crate) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                AllOfBuilder::new()
                    $(.item(Ref::from_schema_name(<$own as ToSchema>::name())))+
                    .item(Ref::from_schema_name(<SharedParameters as ToSchema>::name()))
                    .item(Ref::from_schema_name(<FormatParameters as ToSchema>::name()))
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

pub(crate) use with_shared_parameters;

with_shared_parameters!(ChatCompletionRequest, ChatParameters);
with_shared_parameters!(CompletionRequest, TextParameters);
