//! The bodies of requests, as `/openapi.json` describes them.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AllOfBuilder, Ref, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::messages::MessagesParameters;
use super::parameters::ConversationParameters;

/// A message's own parameters beside those of its conversation, as they are read.
pub(crate) struct MessagesRequest;

impl PartialSchema for MessagesRequest {
    fn schema() -> RefOr<Schema> {
        AllOfBuilder::new()
            .item(Ref::from_schema_name(
                <MessagesParameters as ToSchema>::name(),
            ))
            .item(Ref::from_schema_name(
                <ConversationParameters as ToSchema>::name(),
            ))
            .into()
    }
}

impl ToSchema for MessagesRequest {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("MessagesRequest")
    }
}
