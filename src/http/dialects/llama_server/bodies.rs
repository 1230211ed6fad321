//! The bodies of requests, as `/openapi.json` describes them.

use super::completion::{CompletionParameters, RunParameters};
use super::infill::InfillParameters;
use crate::http::dialects::described_body::with_shared_parameters;

with_shared_parameters!(LlamaCompletionRequest, CompletionParameters, RunParameters);
with_shared_parameters!(InfillRequest, InfillParameters, RunParameters);
