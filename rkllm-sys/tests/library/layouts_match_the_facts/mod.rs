//! Every size, alignment, offset, enum value and function of every family is what the measured
//! facts say, and nothing of the facts is left out: a struct, field, value or function that is on
//! one side only fails too.

#[macro_use]
mod described;
mod measured;

use described::Described;
use measured::{check, measured_signature};
use rkllm_sys::{Family, abi};
use serde_json::Value;

fn v1_1() -> Described {
    let mut described = Described::default();
    structs!(described, v1_1:
        RKLLMExtendParam { base_domain_id, reserved, }
        RKLLMParam { model_path, max_context_len, max_new_tokens, top_k, top_p, temperature, repeat_penalty, frequency_penalty, presence_penalty, mirostat, mirostat_tau, mirostat_eta, skip_special_token, is_async, img_start, img_end, img_content, extend_param, }
        RKLLMLoraAdapter { lora_adapter_path, lora_adapter_name, scale, }
        RKLLMEmbedInput { embed, n_tokens, }
        RKLLMTokenInput { input_ids, n_tokens, }
        RKLLMMultiModelInput { prompt, image_embed, n_image_tokens, }
        RKLLMInput { input_type, "(anonymous union)" = payload, "prompt_input" = payload.prompt_input, "embed_input" = payload.embed_input, "token_input" = payload.token_input, "multimodal_input" = payload.multimodal_input, }
        RKLLMLoraParam { lora_adapter_name, }
        RKLLMPromptCacheParam { save_prompt_cache, prompt_cache_path, }
        RKLLMInferParam { mode, lora_params, prompt_cache_params, }
        RKLLMResultLastHiddenLayer { hidden_states, embd_size, num_tokens, }
        RKLLMResult { text, token_id, last_hidden_layer, }
    );
    enums!(described, v1_1:
        LLMCallState { RKLLM_RUN_NORMAL RKLLM_RUN_WAITING RKLLM_RUN_FINISH RKLLM_RUN_ERROR RKLLM_RUN_GET_LAST_HIDDEN_LAYER }
        RKLLMInputType { RKLLM_INPUT_PROMPT RKLLM_INPUT_TOKEN RKLLM_INPUT_EMBED RKLLM_INPUT_MULTIMODAL }
        RKLLMInferMode { RKLLM_INFER_GENERATE RKLLM_INFER_GET_LAST_HIDDEN_LAYER }
    );
    signatures!(described, v1_1:
        rkllm_createDefaultParam = CreateDefaultParamFn
        rkllm_init = InitFn
        rkllm_load_lora = LoadLoraFn
        rkllm_load_prompt_cache = LoadPromptCacheFn
        rkllm_release_prompt_cache = ReleasePromptCacheFn
        rkllm_destroy = DestroyFn
        rkllm_run = RunFn
        rkllm_run_async = RunAsyncFn
        rkllm_abort = AbortFn
        rkllm_is_running = IsRunningFn
        LLMResultCallback = LLMResultCallback
    );
    described
}

fn v1_2_0() -> Described {
    let mut described = Described::default();
    structs!(described, v1_2_0:
        RKLLMExtendParam { base_domain_id, embed_flash, enabled_cpus_num, enabled_cpus_mask, reserved, }
        RKLLMParam { model_path, max_context_len, max_new_tokens, top_k, n_keep, top_p, temperature, repeat_penalty, frequency_penalty, presence_penalty, mirostat, mirostat_tau, mirostat_eta, skip_special_token, is_async, img_start, img_end, img_content, extend_param, }
        RKLLMLoraAdapter { lora_adapter_path, lora_adapter_name, scale, }
        RKLLMEmbedInput { embed, n_tokens, }
        RKLLMTokenInput { input_ids, n_tokens, }
        RKLLMMultiModelInput { prompt, image_embed, n_image_tokens, }
        RKLLMInput { input_type, "(anonymous union)" = payload, "prompt_input" = payload.prompt_input, "embed_input" = payload.embed_input, "token_input" = payload.token_input, "multimodal_input" = payload.multimodal_input, }
        RKLLMLoraParam { lora_adapter_name, }
        RKLLMPromptCacheParam { save_prompt_cache, prompt_cache_path, }
        RKLLMInferParam { mode, lora_params, prompt_cache_params, keep_history, }
        RKLLMResultLastHiddenLayer { hidden_states, embd_size, num_tokens, }
        RKLLMResultLogits { logits, vocab_size, num_tokens, }
        RKLLMResult { text, token_id, last_hidden_layer, logits, }
    );
    enums!(described, v1_2_0:
        LLMCallState { RKLLM_RUN_NORMAL RKLLM_RUN_WAITING RKLLM_RUN_FINISH RKLLM_RUN_ERROR }
        RKLLMInputType { RKLLM_INPUT_PROMPT RKLLM_INPUT_TOKEN RKLLM_INPUT_EMBED RKLLM_INPUT_MULTIMODAL }
        RKLLMInferMode { RKLLM_INFER_GENERATE RKLLM_INFER_GET_LAST_HIDDEN_LAYER RKLLM_INFER_GET_LOGITS }
    );
    signatures!(described, v1_2_0:
        rkllm_createDefaultParam = CreateDefaultParamFn
        rkllm_init = InitFn
        rkllm_load_lora = LoadLoraFn
        rkllm_load_prompt_cache = LoadPromptCacheFn
        rkllm_release_prompt_cache = ReleasePromptCacheFn
        rkllm_destroy = DestroyFn
        rkllm_run = RunFn
        rkllm_run_async = RunAsyncFn
        rkllm_abort = AbortFn
        rkllm_is_running = IsRunningFn
        rkllm_clear_kv_cache = ClearKvCacheFn
        rkllm_set_chat_template = SetChatTemplateFn
        LLMResultCallback = LLMResultCallback
    );
    described
}

fn v1_2_1b1() -> Described {
    let mut described = Described::default();
    structs!(described, v1_2_1b1:
        RKLLMExtendParam { base_domain_id, embed_flash, enabled_cpus_num, enabled_cpus_mask, reserved, }
        RKLLMParam { model_path, max_context_len, max_new_tokens, top_k, n_keep, top_p, temperature, repeat_penalty, frequency_penalty, presence_penalty, mirostat, mirostat_tau, mirostat_eta, skip_special_token, is_async, img_start, img_end, img_content, extend_param, }
        RKLLMLoraAdapter { lora_adapter_path, lora_adapter_name, scale, }
        RKLLMEmbedInput { embed, n_tokens, }
        RKLLMTokenInput { input_ids, n_tokens, }
        RKLLMMultiModelInput { prompt, image_embed, n_image_tokens, n_image, image_width, image_height, }
        RKLLMInput { input_type, "(anonymous union)" = payload, "prompt_input" = payload.prompt_input, "embed_input" = payload.embed_input, "token_input" = payload.token_input, "multimodal_input" = payload.multimodal_input, }
        RKLLMLoraParam { lora_adapter_name, }
        RKLLMPromptCacheParam { save_prompt_cache, prompt_cache_path, }
        RKLLMInferParam { mode, lora_params, prompt_cache_params, keep_history, }
        RKLLMResultLastHiddenLayer { hidden_states, embd_size, num_tokens, }
        RKLLMResultLogits { logits, vocab_size, num_tokens, }
        RKLLMResult { text, token_id, last_hidden_layer, logits, }
    );
    enums!(described, v1_2_1b1:
        LLMCallState { RKLLM_RUN_NORMAL RKLLM_RUN_WAITING RKLLM_RUN_FINISH RKLLM_RUN_ERROR }
        RKLLMInputType { RKLLM_INPUT_PROMPT RKLLM_INPUT_TOKEN RKLLM_INPUT_EMBED RKLLM_INPUT_MULTIMODAL }
        RKLLMInferMode { RKLLM_INFER_GENERATE RKLLM_INFER_GET_LAST_HIDDEN_LAYER RKLLM_INFER_GET_LOGITS }
    );
    signatures!(described, v1_2_1b1:
        rkllm_createDefaultParam = CreateDefaultParamFn
        rkllm_init = InitFn
        rkllm_load_lora = LoadLoraFn
        rkllm_load_prompt_cache = LoadPromptCacheFn
        rkllm_release_prompt_cache = ReleasePromptCacheFn
        rkllm_destroy = DestroyFn
        rkllm_run = RunFn
        rkllm_run_async = RunAsyncFn
        rkllm_abort = AbortFn
        rkllm_is_running = IsRunningFn
        rkllm_clear_kv_cache = ClearKvCacheFn
        rkllm_set_chat_template = SetChatTemplateFn
        LLMResultCallback = LLMResultCallback
    );
    described
}

fn v1_2_1() -> Described {
    let mut described = Described::default();
    structs!(described, v1_2_1:
        RKLLMExtendParam { base_domain_id, embed_flash, enabled_cpus_num, enabled_cpus_mask, n_batch, use_cross_attn, reserved, }
        RKLLMParam { model_path, max_context_len, max_new_tokens, top_k, n_keep, top_p, temperature, repeat_penalty, frequency_penalty, presence_penalty, mirostat, mirostat_tau, mirostat_eta, skip_special_token, is_async, img_start, img_end, img_content, extend_param, }
        RKLLMLoraAdapter { lora_adapter_path, lora_adapter_name, scale, }
        RKLLMEmbedInput { embed, n_tokens, }
        RKLLMTokenInput { input_ids, n_tokens, }
        RKLLMMultiModalInput { prompt, image_embed, n_image_tokens, n_image, image_width, image_height, }
        RKLLMInput { role, enable_thinking, input_type, "(anonymous union)" = payload, "prompt_input" = payload.prompt_input, "embed_input" = payload.embed_input, "token_input" = payload.token_input, "multimodal_input" = payload.multimodal_input, }
        RKLLMLoraParam { lora_adapter_name, }
        RKLLMPromptCacheParam { save_prompt_cache, prompt_cache_path, }
        RKLLMCrossAttnParam { encoder_k_cache, encoder_v_cache, encoder_mask, encoder_pos, num_tokens, }
        RKLLMInferParam { mode, lora_params, prompt_cache_params, keep_history, }
        RKLLMResultLastHiddenLayer { hidden_states, embd_size, num_tokens, }
        RKLLMResultLogits { logits, vocab_size, num_tokens, }
        RKLLMPerfStat { prefill_time_ms, prefill_tokens, generate_time_ms, generate_tokens, memory_usage_mb, }
        RKLLMResult { text, token_id, last_hidden_layer, logits, perf, }
    );
    enums!(described, v1_2_1:
        LLMCallState { RKLLM_RUN_NORMAL RKLLM_RUN_WAITING RKLLM_RUN_FINISH RKLLM_RUN_ERROR }
        RKLLMInputType { RKLLM_INPUT_PROMPT RKLLM_INPUT_TOKEN RKLLM_INPUT_EMBED RKLLM_INPUT_MULTIMODAL }
        RKLLMInferMode { RKLLM_INFER_GENERATE RKLLM_INFER_GET_LAST_HIDDEN_LAYER RKLLM_INFER_GET_LOGITS }
    );
    signatures!(described, v1_2_1:
        rkllm_createDefaultParam = CreateDefaultParamFn
        rkllm_init = InitFn
        rkllm_load_lora = LoadLoraFn
        rkllm_load_prompt_cache = LoadPromptCacheFn
        rkllm_release_prompt_cache = ReleasePromptCacheFn
        rkllm_destroy = DestroyFn
        rkllm_run = RunFn
        rkllm_run_async = RunAsyncFn
        rkllm_abort = AbortFn
        rkllm_is_running = IsRunningFn
        rkllm_clear_kv_cache = ClearKvCacheFn
        rkllm_get_kv_cache_size = GetKvCacheSizeFn
        rkllm_set_chat_template = SetChatTemplateFn
        rkllm_set_function_tools = SetFunctionToolsFn
        rkllm_set_cross_attn_params = SetCrossAttnParamsFn
        LLMResultCallback = LLMResultCallback
    );
    described
}

/// What the families of 1.3 have in common: all but the input of several media.
macro_rules! of_1_3 {
    ($described:ident, $family:ident) => {
        structs!($described, $family:
            RKLLMExtendParam { base_domain_id, embed_flash, enabled_cpus_num, enabled_cpus_mask, n_batch, use_cross_attn, reserved, }
            RKLLMParam { model_path, max_context_len, max_new_tokens, top_k, n_keep, top_p, temperature, repeat_penalty, frequency_penalty, presence_penalty, mirostat, mirostat_tau, mirostat_eta, skip_special_token, ignore_eos_token, is_async, extend_param, }
            RKLLMLoraAdapter { lora_adapter_path, lora_adapter_name, scale, }
            RKLLMEmbedInput { embed, n_tokens, }
            RKLLMTokenInput { input_ids, n_tokens, }
            RKLLMInput { role, enable_thinking, input_type, "(anonymous union)" = payload, "prompt_input" = payload.prompt_input, "embed_input" = payload.embed_input, "token_input" = payload.token_input, "multimodal_input" = payload.multimodal_input, }
            RKLLMLoraParam { lora_adapter_name, }
            RKLLMPromptCacheParam { save_prompt_cache, prompt_cache_path, }
            RKLLMCrossAttnParam { encoder_k_cache, encoder_v_cache, encoder_mask, encoder_pos, num_tokens, }
            RKLLMSamplingParam { top_k, top_p, temperature, repeat_penalty, frequency_penalty, presence_penalty, mirostat, mirostat_tau, mirostat_eta, }
            RKLLMInferParam { mode, lora_params, prompt_cache_params, sampling_params, keep_history, max_new_tokens, }
            RKLLMResultLastHiddenLayer { hidden_states, embd_size, num_tokens, }
            RKLLMResultLogits { logits, vocab_size, num_tokens, }
            RKLLMPerfStat { prefill_time_ms, prefill_tokens, generate_time_ms, generate_tokens, memory_usage_mb, }
            RKLLMResult { text, token_id, last_hidden_layer, logits, perf, }
            RKLLMCallback { result_callback, result_userdata, tokenizer_callback, tokenizer_userdata, embed_callback, embed_userdata, }
        );
        enums!($described, $family:
            LLMCallState { RKLLM_RUN_NORMAL RKLLM_RUN_WAITING RKLLM_RUN_FINISH RKLLM_RUN_ERROR }
            RKLLMInputType { RKLLM_INPUT_PROMPT RKLLM_INPUT_TOKEN RKLLM_INPUT_EMBED RKLLM_INPUT_MULTIMODAL }
            RKLLMInferMode { RKLLM_INFER_GENERATE RKLLM_INFER_GET_LAST_HIDDEN_LAYER RKLLM_INFER_GET_LOGITS }
        );
        signatures!($described, $family:
            rkllm_createDefaultParam = CreateDefaultParamFn
            rkllm_init = InitFn
            rkllm_load_lora = LoadLoraFn
            rkllm_load_prompt_cache = LoadPromptCacheFn
            rkllm_release_prompt_cache = ReleasePromptCacheFn
            rkllm_destroy = DestroyFn
            rkllm_run = RunFn
            rkllm_run_async = RunAsyncFn
            rkllm_abort = AbortFn
            rkllm_is_running = IsRunningFn
            rkllm_clear_kv_cache = ClearKvCacheFn
            rkllm_get_kv_cache_size = GetKvCacheSizeFn
            rkllm_set_chat_template = SetChatTemplateFn
            rkllm_set_function_tools = SetFunctionToolsFn
            rkllm_set_cross_attn_params = SetCrossAttnParamsFn
            LLMGetEmbedCallback = LLMGetEmbedCallback
            LLMTokenizerCallback = LLMTokenizerCallback
            LLMResultCallback = LLMResultCallback
        );
    };
}

fn v1_3_0() -> Described {
    let mut described = Described::default();
    of_1_3!(described, v1_3_0);
    structs!(described, v1_3_0:
        RKLLMMultiModalInput { prompt, image, "image.image_embed" = image.image_embed, "image.n_image_tokens" = image.n_image_tokens, "image.n_image" = image.n_image, "image.image_start" = image.image_start, "image.image_end" = image.image_end, "image.image_content" = image.image_content, "image.image_width" = image.image_width, "image.image_height" = image.image_height, video, "video.video_embed" = video.video_embed, "video.n_frame_tokens" = video.n_frame_tokens, "video.n_frame_per_video" = video.n_frame_per_video, "video.n_video" = video.n_video, "video.video_start" = video.video_start, "video.video_end" = video.video_end, "video.video_content" = video.video_content, "video.frame_width" = video.frame_width, "video.frame_height" = video.frame_height, }
    );
    described
}

fn v1_3_1() -> Described {
    let mut described = Described::default();
    of_1_3!(described, v1_3_1);
    structs!(described, v1_3_1:
        RKLLMMultiModalInput { prompt, image, "image.image_embed" = image.image_embed, "image.n_image_tokens" = image.n_image_tokens, "image.n_image" = image.n_image, "image.image_start" = image.image_start, "image.image_end" = image.image_end, "image.image_content" = image.image_content, "image.image_width" = image.image_width, "image.image_height" = image.image_height, video, "video.video_embed" = video.video_embed, "video.n_frame_tokens" = video.n_frame_tokens, "video.n_frame_per_video" = video.n_frame_per_video, "video.n_video" = video.n_video, "video.video_start" = video.video_start, "video.video_end" = video.video_end, "video.video_content" = video.video_content, "video.frame_width" = video.frame_width, "video.frame_height" = video.frame_height, audio, "audio.audio_embed" = audio.audio_embed, "audio.n_audio_tokens" = audio.n_audio_tokens, "audio.n_audio" = audio.n_audio, "audio.audio_start" = audio.audio_start, "audio.audio_end" = audio.audio_end, "audio.audio_content" = audio.audio_content, }
    );
    described
}

#[test]
fn family_1_1_is_as_measured() {
    check("abi_1_1", Family::V1_1, &v1_1());
}

#[test]
fn family_1_2_0_is_as_measured() {
    check("abi_1_2_0", Family::V1_2_0, &v1_2_0());
}

#[test]
fn family_1_2_1b1_is_as_measured() {
    check("abi_1_2_1b1", Family::V1_2_1b1, &v1_2_1b1());
}

#[test]
fn family_1_2_1_is_as_measured() {
    check("abi_1_2_1", Family::V1_2_1, &v1_2_1());
}

#[test]
fn family_1_3_0_is_as_measured() {
    check("abi_1_3_0", Family::V1_3_0, &v1_3_0());
}

#[test]
fn family_1_3_1_is_as_measured() {
    check("abi_1_3_1", Family::V1_3_1, &v1_3_1());
}

#[test]
fn the_facts_hold_no_family_that_is_not_checked() {
    let text = include_str!("../../data/abi-facts.json");
    let facts: Value = serde_json::from_str(text).expect("the facts are JSON");
    let families = facts["families"].as_object().expect("families");
    assert_eq!(families.len(), Family::ALL.len());
}

#[test]
fn a_signature_is_read_from_its_declaration() {
    let read = |declaration| {
        let (parameters, returns) = measured_signature(declaration);
        (parameters, returns)
    };
    assert_eq!(read("int f(A a, B* b)"), (2, "int".to_owned()));
    assert_eq!(read("RKLLMParam g()"), (0, "RKLLMParam".to_owned()));
    assert_eq!(
        read("typedef void(*Callback)(A* a, void* b, C c);"),
        (3, "void".to_owned())
    );
}
