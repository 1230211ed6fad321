//! The bodies of chats and completions, as `/openapi.json` describes them.

use super::chat::ChatParameters;
use super::completions::TextParameters;
use crate::http::dialects::described_body::with_shared_parameters;

with_shared_parameters!(ChatCompletionRequest, ChatParameters);
with_shared_parameters!(CompletionRequest, TextParameters);
