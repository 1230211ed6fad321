//! The bodies of requests, as `/openapi.json` describes them.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AllOfBuilder, Ref, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::completion::{CompletionParameters, RunParameters};
use super::infill::InfillParameters;
use crate::http::dialects::openai::bodies::with_shared_parameters;
use crate::http::dialects::openai::format_fields::FormatParameters;
use crate::http::dialects::openai::parameters::SharedParameters;

with_shared_parameters!(LlamaCompletionRequest, CompletionParameters, RunParameters);
with_shared_parameters!(InfillRequest, InfillParameters, RunParameters);
