//! The parameters a host passes in, read at the family's offsets, and the defaults it is given.
//! Both are reported as JSON in the C names, so a test sees what really arrived.

use crate::layout::Layout;
use serde::Serialize;
use std::ffi::{CStr, c_char, c_void};

/// What `rkllm_init` got. A field the family does not have is absent.
#[derive(Serialize, Clone)]
pub struct InitParams {
    pub model_path: String,
    pub max_context_len: i32,
    pub max_new_tokens: i32,
    #[serde(flatten)]
    pub sampling: Sampling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_keep: Option<i32>,
    pub skip_special_token: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_eos_token: Option<u8>,
    pub is_async: u8,
    pub base_domain_id: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embed_flash: Option<i8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled_cpus_num: Option<i8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled_cpus_mask: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_batch: Option<u8>,
    #[serde(skip_serializing_if = "is_unset")]
    pub use_cross_attn: Option<i8>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub img_start: String,
}

fn is_unset(flag: &Option<i8>) -> bool {
    flag.is_none_or(|flag| flag == 0)
}

#[derive(Serialize, Clone)]
pub struct Sampling {
    pub top_k: i32,
    pub top_p: f32,
    pub temperature: f32,
    pub repeat_penalty: f32,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    pub mirostat: i32,
    pub mirostat_tau: f32,
    pub mirostat_eta: f32,
}

/// What `rkllm_run` got.
#[derive(Serialize)]
pub struct RunParams {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    pub input_type: u32,
    pub mode: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_history: Option<i32>,
    /// As given: 0 or less is the value from init.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_new_tokens: Option<i32>,
    /// Absent: the values from init.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_thinking: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_cache: Option<PromptCache>,
}

#[derive(Serialize)]
pub struct PromptCache {
    pub save: i32,
    pub path: String,
}

/// Defaults as the vendor's 1.2.1b1 has them, with one sequence and an eight-core SoC.
pub fn write_defaults(layout: &Layout, bytes: &mut [u8]) {
    let param = layout.get("RKLLMParam");
    let extend = layout.get("RKLLMExtendParam");
    let base = param.at("extend_param");
    let mut put = |at: Option<usize>, value: &[u8]| {
        if let Some(at) = at {
            bytes[at..at + value.len()].copy_from_slice(value);
        }
    };
    let empty: *const c_char = c"".as_ptr();
    put(param.find("max_context_len"), &512i32.to_ne_bytes());
    put(param.find("max_new_tokens"), &(-1i32).to_ne_bytes());
    put(param.find("top_k"), &40i32.to_ne_bytes());
    put(param.find("n_keep"), &(-1i32).to_ne_bytes());
    put(param.find("top_p"), &0.9f32.to_ne_bytes());
    put(param.find("temperature"), &0.8f32.to_ne_bytes());
    put(param.find("repeat_penalty"), &1.1f32.to_ne_bytes());
    put(param.find("mirostat_tau"), &5f32.to_ne_bytes());
    put(param.find("mirostat_eta"), &0.1f32.to_ne_bytes());
    put(param.find("skip_special_token"), &[1]);
    for tag in ["img_start", "img_end", "img_content"] {
        put(param.find(tag), &empty.addr().to_ne_bytes());
    }
    let inside = |field| extend.find(field).map(|at| base + at);
    put(inside("embed_flash"), &[1]);
    put(inside("enabled_cpus_num"), &[4]);
    put(inside("enabled_cpus_mask"), &0xF0u32.to_ne_bytes());
    put(inside("n_batch"), &[1]);
}

impl InitParams {
    /// # Safety
    /// `base` must point to an RKLLMParam of this layout.
    pub unsafe fn read(layout: &Layout, base: *const u8) -> InitParams {
        let param = layout.get("RKLLMParam");
        let extend = layout.get("RKLLMExtendParam");
        // SAFETY: passed on from the caller; the types are those of the facts.
        unsafe {
            let int = |field| param.read::<i32>(base, field);
            let byte = |field| param.read::<u8>(base, field);
            let inside = base.add(param.at("extend_param"));
            InitParams {
                model_path: text(param.read(base, "model_path").unwrap_or(std::ptr::null())),
                max_context_len: int("max_context_len").unwrap_or_default(),
                max_new_tokens: int("max_new_tokens").unwrap_or_default(),
                sampling: Sampling::read(layout, "RKLLMParam", base),
                n_keep: int("n_keep"),
                skip_special_token: byte("skip_special_token").unwrap_or_default(),
                ignore_eos_token: byte("ignore_eos_token"),
                is_async: byte("is_async").unwrap_or_default(),
                base_domain_id: extend.read(inside, "base_domain_id").unwrap_or_default(),
                embed_flash: extend.read(inside, "embed_flash"),
                enabled_cpus_num: extend.read(inside, "enabled_cpus_num"),
                enabled_cpus_mask: extend.read(inside, "enabled_cpus_mask"),
                n_batch: extend.read(inside, "n_batch"),
                use_cross_attn: extend.read(inside, "use_cross_attn"),
                img_start: text(param.read(base, "img_start").unwrap_or(std::ptr::null())),
            }
        }
    }

    /// The vendor's own refusals.
    pub fn check(&self, max_context_limit: i32) -> Result<(), String> {
        if self.n_batch.is_some_and(|n| !(1..=100).contains(&n)) {
            return Err(format!(
                "The n_batch must be between 1 and 100, but got {}",
                self.n_batch.unwrap_or_default()
            ));
        }
        if self.base_domain_id < 0 {
            return Err("base_domain_id must >= 0".to_owned());
        }
        if let (Some(number), Some(mask)) = (self.enabled_cpus_num, self.enabled_cpus_mask)
            && mask.count_ones() != number as u32
        {
            return Err("Mismatch between enabled CPUs mask and expected count".to_owned());
        }
        if self.max_context_len > max_context_limit {
            return Err(format!(
                "max_context[{}] must be less than the model's max_context_limit[{max_context_limit}]",
                self.max_context_len
            ));
        }
        Ok(())
    }
}

impl Sampling {
    /// # Safety
    /// `base` must point to a struct of that name in this layout that has the sampling fields.
    unsafe fn read(layout: &Layout, name: &str, base: *const u8) -> Sampling {
        let fields = layout.get(name);
        // SAFETY: passed on from the caller; the types are those of the facts.
        let int = |field| unsafe { fields.read::<i32>(base, field) }.unwrap_or_default();
        // SAFETY: as above.
        let real = |field| unsafe { fields.read::<f32>(base, field) }.unwrap_or_default();
        Sampling {
            top_k: int("top_k"),
            top_p: real("top_p"),
            temperature: real("temperature"),
            repeat_penalty: real("repeat_penalty"),
            frequency_penalty: real("frequency_penalty"),
            presence_penalty: real("presence_penalty"),
            mirostat: int("mirostat"),
            mirostat_tau: real("mirostat_tau"),
            mirostat_eta: real("mirostat_eta"),
        }
    }
}

/// The input of a run, copied out of the host's memory.
pub struct Input {
    /// For an input of tokens their ids as decimal numbers, with a space between.
    pub text: Vec<u8>,
    /// For an input of tokens.
    pub ids: Option<Vec<i32>>,
}

impl Input {
    /// Values in a row of embeddings.
    const EMBEDDING_SIZE: u16 = 8;

    /// # Safety
    /// `input` must point to an RKLLMInput of this layout.
    pub unsafe fn read(layout: &Layout, input: *const u8) -> Option<Input> {
        let fields = layout.get("RKLLMInput");
        // SAFETY: passed on from the caller; the member of the union is the one the type names.
        unsafe {
            match fields.read::<u32>(input, "input_type")? {
                0 => {
                    let prompt: *const c_char = fields.read(input, "prompt_input")?;
                    (!prompt.is_null()).then(|| Input {
                        text: CStr::from_ptr(prompt).to_bytes().to_vec(),
                        ids: None,
                    })
                }
                1 => {
                    let token_input = layout.get("RKLLMTokenInput");
                    let member = input.add(fields.at("token_input"));
                    let ids: *const i32 = token_input.read(member, "input_ids")?;
                    let count: usize = token_input.read(member, "n_tokens")?;
                    let ids = std::slice::from_raw_parts(ids, count);
                    let words: Vec<String> = ids.iter().map(i32::to_string).collect();
                    Some(Input {
                        text: words.join(" ").into_bytes(),
                        ids: Some(ids.to_vec()),
                    })
                }
                // Embeddings: as tokens that say how many there are and what the values add up to.
                2 => {
                    let embed_input = layout.get("RKLLMEmbedInput");
                    let member = input.add(fields.at("embed_input"));
                    let values: *const f32 = embed_input.read(member, "embed")?;
                    let count: usize = embed_input.read(member, "n_tokens")?;
                    let size = usize::from(Self::EMBEDDING_SIZE);
                    let values = std::slice::from_raw_parts(values, count * size);
                    let sum: f32 = values.iter().sum();
                    Some(Input {
                        text: format!("embeddings {count} {sum}").into_bytes(),
                        ids: Some(vec![0; count]),
                    })
                }
                // The prompt, and what came with its image.
                3 => {
                    let multimodal = layout.get("RKLLMMultiModalInput");
                    let member = input.add(fields.at("multimodal_input"));
                    let prompt: *const c_char = multimodal.read(member, "prompt")?;
                    let find = |name: &str| {
                        let nested = format!("image.{name}");
                        multimodal
                            .read::<usize>(member, &nested)
                            .or_else(|| multimodal.read::<usize>(member, name))
                    };
                    let (images, tokens) = (find("n_image")?, find("n_image_tokens")?);
                    let (width, height) = (find("image_width")?, find("image_height")?);
                    let values = find("image_embed")? as *const f32;
                    let first = if values.is_null() { 0.0 } else { values.read() };
                    let prompt = text(prompt);
                    let said = format!("{prompt} {images}x{tokens} {width}x{height} {first}");
                    Some(Input {
                        text: said.into_bytes(),
                        ids: None,
                    })
                }
                _ => None,
            }
        }
    }
}

impl RunParams {
    /// # Safety
    /// `input` and `infer` must point to an RKLLMInput and an RKLLMInferParam of this layout.
    pub unsafe fn read(layout: &Layout, input: *const u8, infer: *const u8) -> RunParams {
        let input_fields = layout.get("RKLLMInput");
        let infer_fields = layout.get("RKLLMInferParam");
        // SAFETY: passed on from the caller; the types are those of the facts.
        unsafe {
            let pointer = |field| {
                infer_fields
                    .read::<*const u8>(infer, field)
                    .filter(|pointer| !pointer.is_null())
            };
            let sampling = infer_fields
                .read::<*const c_void>(infer, "sampling_params")
                .filter(|pointer| !pointer.is_null())
                .map(|pointer| Sampling::read(layout, "RKLLMSamplingParam", pointer.cast()));
            RunParams {
                role: input_fields
                    .read::<*const c_char>(input, "role")
                    .map(|role| text(role)),
                input_type: input_fields.read(input, "input_type").unwrap_or_default(),
                mode: infer_fields.read(infer, "mode").unwrap_or_default(),
                keep_history: infer_fields.read(infer, "keep_history"),
                max_new_tokens: infer_fields.read(infer, "max_new_tokens"),
                sampling,
                enable_thinking: input_fields
                    .read::<u8>(input, "enable_thinking")
                    .filter(|thinking| *thinking != 0)
                    .map(|_| true),
                lora: pointer("lora_params").map(|lora| {
                    let fields = layout.get("RKLLMLoraParam");
                    text(
                        fields
                            .read(lora, "lora_adapter_name")
                            .unwrap_or(std::ptr::null()),
                    )
                }),
                prompt_cache: pointer("prompt_cache_params").map(|cache| {
                    let fields = layout.get("RKLLMPromptCacheParam");
                    let path = fields.read(cache, "prompt_cache_path");
                    PromptCache {
                        save: fields.read(cache, "save_prompt_cache").unwrap_or_default(),
                        path: text(path.unwrap_or(std::ptr::null())),
                    }
                }),
            }
        }
    }
}

/// # Safety
/// `text` must be NULL or a C string.
pub unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not NULL, and a C string by the caller's promise.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}
