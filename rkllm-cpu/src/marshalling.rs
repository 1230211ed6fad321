//! C structs to requests, reports to callbacks. What a caller passes is copied or borrowed for the
//! call only, and what a callback is given is valid until it returns and no longer.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;

use crate::abi::*;
use crate::engine::{OutputKind, Prompt, RunRequest};
use crate::generation::{Matrix, Reply, Report};

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
            Err("multimodal input is not supported by the CPU runtime".into())
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

/// One callback. `buffer` holds the text for its duration and is reused for the next.
pub(crate) fn call_back(
    callback: LLMResultCallback,
    userdata: *mut c_void,
    step: Report<'_>,
    buffer: &mut Vec<u8>,
) -> Reply {
    let mut result = RKLLMResult {
        text: std::ptr::null(),
        token_id: -1,
        last_hidden_layer: RKLLMResultLastHiddenLayer {
            hidden_states: std::ptr::null(),
            embd_size: 0,
            num_tokens: 0,
        },
        logits: logits_of(None),
        perf: RKLLMPerfStat::default(),
    };
    let state = match step {
        Report::Text {
            token,
            text,
            logits,
        } => {
            buffer.clear();
            // C text ends at its first NUL, so one inside it would hide the rest.
            buffer.extend(text.bytes().filter(|&byte| byte != 0));
            buffer.push(0);
            result.token_id = token;
            result.text = buffer.as_ptr().cast();
            result.logits = logits_of(logits);
            RKLLM_RUN_NORMAL
        }
        Report::Waiting { token, logits } => {
            result.token_id = token;
            result.logits = logits_of(logits);
            RKLLM_RUN_WAITING
        }
        Report::NoHiddenStatesYet => RKLLM_RUN_NORMAL,
        Report::HiddenStates(states) => {
            result.last_hidden_layer = RKLLMResultLastHiddenLayer {
                hidden_states: states.values.as_ptr(),
                embd_size: states.columns as c_int,
                num_tokens: states.rows() as c_int,
            };
            RKLLM_RUN_NORMAL
        }
        Report::Finish(perf) => {
            result.perf = perf;
            RKLLM_RUN_FINISH
        }
        Report::Error => RKLLM_RUN_ERROR,
    };
    // SAFETY: the callback is the one the caller gave to `rkllm_init`; the result and its text
    // live for the call.
    match unsafe { callback(&mut result, userdata, state) } {
        1 => Reply::Pause,
        2 => Reply::Release,
        _ => Reply::GoOn,
    }
}

fn logits_of(logits: Option<Matrix<'_>>) -> RKLLMResultLogits {
    RKLLMResultLogits {
        logits: logits.map_or(std::ptr::null(), |matrix| matrix.values.as_ptr()),
        vocab_size: logits.map_or(0, |matrix| matrix.columns as c_int),
        num_tokens: logits.map_or(0, |matrix| matrix.rows() as c_int),
    }
}
