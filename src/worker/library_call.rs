//! The calls of the vendor's API that are no runs, made on the NPU thread, and the parameters of a
//! handle, in the words of the library.

use std::path::Path;

use rkllm_sys::{
    CallError, CpuMask, CrossAttention, DefaultParams, Handle, ImageTags, InitParams, Sampling,
};

use crate::library_calls::{
    Call, CallFailure, CrossAttnParam, ExtendParam, Outcome, Param, SamplingParam,
};

/// Makes one call.
pub fn make(handle: &Handle, call: &Call) -> Result<Outcome, CallFailure> {
    let done = match call {
        Call::LoadLora(adapter) => handle.load_lora(
            Path::new(&adapter.lora_adapter_path),
            &adapter.lora_adapter_name,
            adapter.scale,
        ),
        Call::LoadPromptCache { prompt_cache_path } => {
            handle.load_prompt_cache(Path::new(prompt_cache_path))
        }
        Call::ReleasePromptCache => handle.release_prompt_cache(),
        Call::ClearKvCache {
            keep_system_prompt,
            start_pos,
            end_pos,
        } => match (start_pos, end_pos) {
            (None, None) => handle.clear_kv_cache(*keep_system_prompt != 0),
            (Some(start), Some(end)) => {
                handle.clear_kv_cache_ranges(*keep_system_prompt != 0, start, end)
            }
            _ => {
                return Err(CallFailure::BadValue {
                    what: "start_pos and end_pos".to_owned(),
                    reason: "give both or none".to_owned(),
                });
            }
        },
        Call::GetKvCacheSize => {
            let sizes = handle.control().kv_cache_sizes().map_err(failure)?;
            return Ok(Outcome::KvCacheSizes(sizes));
        }
        Call::SetChatTemplate {
            system_prompt,
            prompt_prefix,
            prompt_postfix,
        } => handle.set_chat_template(system_prompt, prompt_prefix, prompt_postfix),
        Call::SetFunctionTools {
            system_prompt,
            tools,
            tool_response_str,
        } => handle.set_function_tools(system_prompt, tools, tool_response_str),
        Call::SetCrossAttnParams(given) => return cross_attention(handle, given),
    };
    done.map(|()| Outcome::Done).map_err(failure)
}

fn cross_attention(handle: &Handle, given: &CrossAttnParam) -> Result<Outcome, CallFailure> {
    given.check()?;
    let result = handle.set_cross_attention(&CrossAttention {
        k_cache: &given.encoder_k_cache,
        v_cache: &given.encoder_v_cache,
        mask: &given.encoder_mask,
        positions: &given.encoder_pos,
    });
    result.map(|()| Outcome::Done).map_err(failure)
}

/// What a client may learn of a failed call.
pub fn failure(error: CallError) -> CallFailure {
    let bad = |what: &str, reason: String| CallFailure::BadValue {
        what: what.to_owned(),
        reason,
    };
    match error {
        CallError::Failed { function, code, .. } => CallFailure::Returned {
            function: function.to_owned(),
            code,
        },
        CallError::NotInLibrary { what, version } | CallError::NotInFamily { what, version } => {
            CallFailure::NotInLibrary {
                what: what.to_owned(),
                version,
            }
        }
        CallError::SymbolMissing { function, version } => CallFailure::NotInLibrary {
            what: function.to_owned(),
            version,
        },
        CallError::InteriorNul { what, position } => {
            bad(what, format!("it holds a NUL character at byte {position}"))
        }
        CallError::OutOfRange {
            what,
            value,
            allowed,
        } => bad(what, format!("it is {value}, but {allowed}")),
        other => CallFailure::Other {
            reason: other.to_string(),
        },
    }
}

/// The one way to the library's own type, which the daemon and its messages do not know.
pub fn sampling(values: impl Into<SamplingParam>) -> Sampling {
    let values = values.into();
    Sampling {
        top_k: values.top_k,
        top_p: values.top_p,
        temperature: values.temperature,
        repeat_penalty: values.repeat_penalty,
        frequency_penalty: values.frequency_penalty,
        presence_penalty: values.presence_penalty,
        mirostat: values.mirostat,
        mirostat_tau: values.mirostat_tau,
        mirostat_eta: values.mirostat_eta,
    }
}

/// A handle's parameters for `model`.
pub fn init_params(model: &Path, param: &Param) -> InitParams {
    let extend = &param.extend_param;
    let mut params = InitParams::new(model);
    params.max_context_len = param.max_context_len;
    params.max_new_tokens = param.max_new_tokens;
    params.sampling = sampling(param.sampling());
    params.n_keep = param.n_keep;
    params.skip_special_token = param.skip_special_token;
    params.ignore_eos_token = param.ignore_eos_token;
    let tags = ImageTags {
        start: param.img_start.clone(),
        end: param.img_end.clone(),
        content: param.img_content.clone(),
    };
    params.image_tags = (tags != ImageTags::default()).then_some(tags);
    params.base_domain_id = extend.base_domain_id;
    params.embed_flash = extend.embed_flash;
    params.enabled_cpus = extend.enabled_cpus_mask.map(CpuMask);
    params.enabled_cpus_num = extend.enabled_cpus_num;
    params.n_batch = extend.n_batch;
    params.use_cross_attn = extend.use_cross_attn;
    params
}

/// The library's own defaults. The tags of images, which are pointers of the library's, are left
/// out.
pub fn default_param(defaults: &DefaultParams) -> Param {
    Param {
        max_context_len: Some(defaults.max_context_len),
        max_new_tokens: Some(defaults.max_new_tokens),
        top_k: Some(defaults.top_k),
        n_keep: Some(defaults.n_keep),
        top_p: Some(defaults.top_p),
        temperature: Some(defaults.temperature),
        repeat_penalty: Some(defaults.repeat_penalty),
        frequency_penalty: Some(defaults.frequency_penalty),
        presence_penalty: Some(defaults.presence_penalty),
        mirostat: Some(defaults.mirostat),
        mirostat_tau: Some(defaults.mirostat_tau),
        mirostat_eta: Some(defaults.mirostat_eta),
        skip_special_token: Some(defaults.skip_special_token),
        ignore_eos_token: defaults.ignore_eos_token,
        img_start: None,
        img_end: None,
        img_content: None,
        extend_param: ExtendParam {
            base_domain_id: Some(defaults.base_domain_id),
            embed_flash: Some(i8::from(defaults.embed_flash)),
            enabled_cpus_num: Some(defaults.enabled_cpus_num),
            enabled_cpus_mask: Some(defaults.enabled_cpus_mask.0),
            n_batch: Some(defaults.n_batch),
            use_cross_attn: Some(defaults.use_cross_attn),
        },
    }
}
