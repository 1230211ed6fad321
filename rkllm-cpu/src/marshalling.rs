//! C structs to requests. What a caller passes is copied or borrowed for the call only.

use std::ffi::{CStr, c_char};
use std::path::PathBuf;

use crate::abi::*;
use crate::computing::OutputKind;
use crate::engine::{Prompt, RunRequest};

/// The vendor's, for a run that saves without a path.
const DEFAULT_PROMPT_CACHE: &str = "./prompt_cache.bin";

/// `embedding_width`: floats in a row of an embedding input.
///
/// # Safety
/// The pointers are NULL or point to what the ABI says and live as long as `'a`.
pub(crate) unsafe fn request_of<'a>(
    input: *const RKLLMInput,
    infer: *const RKLLMInferParam,
    embedding_width: usize,
) -> Result<RunRequest<'a>, String> {
    // SAFETY: by this function's contract.
    let (input, infer) = unsafe { (input.as_ref(), infer.as_ref()) };
    let (Some(input), Some(infer)) = (input, infer) else {
        return Err("rkllm_run needs an input and inference parameters, but got NULL".into());
    };
    let output = match infer.mode {
        RKLLM_INFER_GENERATE => OutputKind::Text,
        RKLLM_INFER_GET_LAST_HIDDEN_LAYER => OutputKind::HiddenStates,
        RKLLM_INFER_GET_LOGITS => OutputKind::Logits,
        other => return Err(format!("unknown inference mode {other}")),
    };
    Ok(RunRequest {
        // SAFETY: by this function's contract.
        prompt: unsafe { prompt_of(input, embedding_width) }?,
        output,
        // SAFETY: by this function's contract.
        adapter: unsafe { adapter_of(infer.lora_params) }?,
        // SAFETY: by this function's contract.
        sampling: unsafe { infer.sampling_params.as_ref() }.copied(),
        max_new_tokens: infer.max_new_tokens,
        keep_history: infer.keep_history != 0,
        // SAFETY: by this function's contract.
        save_prompt_to: unsafe { saved_to(infer.prompt_cache_params) },
    })
}

/// # Safety
/// `params` is NULL or points to what the ABI says.
unsafe fn adapter_of(params: *const RKLLMLoraParam) -> Result<Option<String>, String> {
    // SAFETY: by this function's contract.
    match unsafe { params.as_ref() } {
        None => Ok(None),
        Some(params) => {
            // SAFETY: by this function's contract.
            let name = unsafe { string_of(params.lora_adapter_name) };
            Ok(Some(name.ok_or("lora_adapter_name must not be NULL")?))
        }
    }
}

/// # Safety
/// `params` is NULL or points to what the ABI says.
unsafe fn saved_to(params: *const RKLLMPromptCacheParam) -> Option<PathBuf> {
    // SAFETY: by this function's contract.
    let params = unsafe { params.as_ref() }.filter(|params| params.save_prompt_cache != 0)?;
    // SAFETY: by this function's contract.
    let path = unsafe { string_of(params.prompt_cache_path) };
    Some(path.map_or_else(|| PathBuf::from(DEFAULT_PROMPT_CACHE), PathBuf::from))
}

/// # Safety
/// The member of the union that `input_type` names is set, and what it points to lives for `'a`.
unsafe fn prompt_of<'a>(input: &RKLLMInput, embedding_width: usize) -> Result<Prompt<'a>, String> {
    match input.input_type {
        RKLLM_INPUT_PROMPT => {
            // SAFETY: by this function's contract.
            let (role, text) =
                unsafe { (string_of(input.role), string_of(input.payload.prompt_input)) };
            Ok(Prompt::Turn {
                role: role.unwrap_or_else(|| "user".to_owned()),
                text: text.ok_or("prompt_input must not be NULL")?,
                enable_thinking: input.enable_thinking,
            })
        }
        RKLLM_INPUT_TOKEN => {
            // SAFETY: by this function's contract.
            let tokens = unsafe { input.payload.token_input };
            if tokens.input_ids.is_null() && tokens.n_tokens == 0 {
                return Ok(Prompt::Nothing);
            }
            if tokens.input_ids.is_null() {
                return Err("token_input must not be NULL".into());
            }
            // SAFETY: not NULL, and as long as it says by this function's contract.
            let tokens = unsafe { std::slice::from_raw_parts(tokens.input_ids, tokens.n_tokens) };
            Ok(Prompt::Tokens(tokens))
        }
        RKLLM_INPUT_EMBED => {
            // SAFETY: by this function's contract.
            let rows = unsafe { input.payload.embed_input };
            if rows.embed.is_null() {
                return Err("embed_input must not be NULL".into());
            }
            let floats = rows.n_tokens.checked_mul(embedding_width);
            let floats = floats.ok_or("embed_input has too many rows")?;
            // SAFETY: not NULL, and as long as it says by this function's contract.
            Ok(Prompt::Embeddings(unsafe {
                std::slice::from_raw_parts(rows.embed, floats)
            }))
        }
        RKLLM_INPUT_MULTIMODAL => {
            // SAFETY: by this function's contract; the prompt is that member's first field.
            let prompt = unsafe { string_of(input.payload.prompt_input) }.unwrap_or_default();
            // As the vendor's, which looks for the tag first.
            let tagged = ["<image>", "<video>", "<audio>"]
                .iter()
                .any(|tag| prompt.contains(tag));
            Err(if tagged {
                "multimodal input is for models with a vision or audio part, which this one lacks"
            } else {
                "multimodal input must contain the <image> tag"
            }
            .into())
        }
        other => Err(format!("unknown input type {other}")),
    }
}

/// # Safety
/// `text` is NULL or a C string.
pub(crate) unsafe fn string_of(text: *const c_char) -> Option<String> {
    // SAFETY: by this function's contract.
    let text = unsafe { text.as_ref().map(|text| CStr::from_ptr(text)) };
    text.map(|text| text.to_string_lossy().into_owned())
}
