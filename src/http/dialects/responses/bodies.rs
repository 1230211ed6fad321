//! The bodies of requests, as `/openapi.json` describes them.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AllOfBuilder, Ref, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::create_parameters::CreateParameters;
use super::parameters::ContextParameters;

/// A response's own parameters beside those of its conversation, as they are read.
pub(crate) struct ResponseRequest;

impl PartialSchema for ResponseRequest {
    fn schema() -> RefOr<Schema> {
        AllOfBuilder::new()
            .item(Ref::from_schema_name(<CreateParameters as ToSchema>::name()))
            .item(Ref::from_schema_name(
                <ContextParameters as ToSchema>::name(),
            ))
            .into()
    }
}

impl ToSchema for ResponseRequest {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("ResponseRequest")
    }
}
