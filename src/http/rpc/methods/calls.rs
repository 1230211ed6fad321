//! The functions that are neither the life of a handle nor a run.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::handle_reset::HandleReset;
use super::{Method, Scope, failure};
use crate::http::rpc::protocol::{ErrorKind, RpcError};
use crate::library_calls::{Call, CrossAttnParam, LoraAdapter, Outcome};
use crate::supervisor::Replied;

pub(super) const CALL_ERRORS: &[ErrorKind] = &[
    ErrorKind::UnknownHandle,
    ErrorKind::ModelNotAllowed,
    ErrorKind::CallFailed,
    ErrorKind::NotInRuntime,
    ErrorKind::DeadlinePassed,
    ErrorKind::WorkerDied,
    ErrorKind::ModelUnavailable,
    ErrorKind::HandleClosed,
    ErrorKind::PromptCacheBroken,
    ErrorKind::LimitReached,
    ErrorKind::TooLarge,
];

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HandleParam {
    /// From `rkllm.init`.
    pub handle: String,
}

/// A call that succeeded.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct Done {
    /// What the function returned: 0.
    return_code: i32,
    /// There once, after the handle lost its history.
    #[serde(skip_serializing_if = "Option::is_none")]
    handle_reset: Option<HandleReset>,
}

async fn make(scope: Scope<'_>, handle: &str, call: Call) -> Result<Replied<Outcome>, RpcError> {
    let session = scope.session;
    let handle = session.handle(handle)?;
    let _permit = handle.permit().await;
    let charge = session.account.charge(call.held_bytes());
    let charge = charge.map_err(RpcError::of_budget)?;
    let made = handle.call(call, Some(charge)).await;
    made.map_err(|error| failure::of(error, &session.caller))
}

/// A method that is one call on a handle.
macro_rules! call_methods {
    ($(
        $(#[doc = $doc:literal])*
        $method:ident = $name:literal, $params:ident {
            $($(#[$meta:meta])* $field:ident: $type:ty,)*
        } => $call:expr;
    )*) => {$(
        pub(crate) struct $method;

        #[derive(Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $params {
            /// From `rkllm.init`.
            handle: String,
            $($(#[$meta])* $field: $type,)*
        }

        impl Method for $method {
            const NAME: &'static str = $name;
            const SUMMARY: &'static str = concat!($($doc),*).trim_ascii();
            const ERRORS: &'static [ErrorKind] = CALL_ERRORS;
            type Params = $params;
            type Result = Done;

            async fn call(scope: Scope<'_>, params: $params) -> Result<Done, RpcError> {
                let $params { handle, $($field),* } = params;
                let replied = make(scope, &handle, $call).await?;
                Ok(Done {
                    return_code: 0,
                    handle_reset: replied.handle_reset.map(HandleReset::from),
                })
            }
        }
    )*};
}

call_methods! {
    /// Loads a LoRA adapter from the daemon's folder of adapters. Runs choose it by its name; several
    /// may be loaded, none can be unloaded.
    LoadLora = "rkllm.load_lora", LoadLoraParams {
        lora_adapter: LoraAdapter,
    } => Call::LoadLora(lora_adapter);

    /// Loads a saved prompt cache. Prompts that begin like the saved one need less prefill.
    LoadPromptCache = "rkllm.load_prompt_cache", LoadPromptCacheParams {
        /// A name inside the daemon's folder of prompt caches.
        prompt_cache_path: String,
    } => Call::LoadPromptCache { prompt_cache_path };

    /// Forgets the loaded prompt cache; needed before another one is loaded.
    ReleasePromptCache = "rkllm.release_prompt_cache", ReleasePromptCacheParams {
    } => Call::ReleasePromptCache;

    /// Empties the KV cache, or takes a range of each sequence out of it.
    ClearKvCache = "rkllm.clear_kv_cache", ClearKvCacheParams {
        /// Not 0: the system prompt stays.
        keep_system_prompt: i32,
        /// First position of each sequence; with `end_pos`, or neither.
        start_pos: Option<Vec<i32>>,
        /// One past the last position of each sequence.
        end_pos: Option<Vec<i32>>,
    } => Call::ClearKvCache { keep_system_prompt, start_pos, end_pos };

    /// Replaces the model's chat template. Three empty strings: prompts reach the model as they are.
    SetChatTemplate = "rkllm.set_chat_template", SetChatTemplateParams {
        system_prompt: String,
        prompt_prefix: String,
        prompt_postfix: String,
    } => Call::SetChatTemplate { system_prompt, prompt_prefix, prompt_postfix };

    /// Tells the model, through its own template, which tools it may call.
    SetFunctionTools = "rkllm.set_function_tools", SetFunctionToolsParams {
        system_prompt: String,
        /// A JSON array of tools, as text.
        tools: String,
        /// The tag around the results of tools.
        tool_response_str: String,
    } => Call::SetFunctionTools { system_prompt, tools, tool_response_str };

    /// Gives the encoder's K and V caches to a model with cross-attention.
    SetCrossAttnParams = "rkllm.set_cross_attn_params", SetCrossAttnParamsParams {
        cross_attn_params: CrossAttnParam,
    } => Call::SetCrossAttnParams(cross_attn_params);
}

pub(crate) struct GetKvCacheSize;

#[derive(Serialize, ToSchema)]
pub(crate) struct KvCacheSizes {
    /// What the function returned: 0.
    return_code: i32,
    /// Tokens of each sequence.
    cache_sizes: Vec<i32>,
    /// There once, after the handle lost its history.
    #[serde(skip_serializing_if = "Option::is_none")]
    handle_reset: Option<HandleReset>,
}

impl Method for GetKvCacheSize {
    const NAME: &'static str = "rkllm.get_kv_cache_size";
    const SUMMARY: &'static str = "Tells how many tokens the KV cache of each sequence holds.";
    const ERRORS: &'static [ErrorKind] = CALL_ERRORS;
    type Params = HandleParam;
    type Result = KvCacheSizes;

    async fn call(scope: Scope<'_>, params: HandleParam) -> Result<KvCacheSizes, RpcError> {
        let replied = make(scope, &params.handle, Call::GetKvCacheSize).await?;
        let Outcome::KvCacheSizes(cache_sizes) = replied.value else {
            return Err(RpcError::new(
                ErrorKind::InternalError,
                "the worker answered another call",
            ));
        };
        Ok(KvCacheSizes {
            return_code: 0,
            cache_sizes,
            handle_reset: replied.handle_reset.map(HandleReset::from),
        })
    }
}
