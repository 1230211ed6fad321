//! A loaded model: what its file says, and never changes again. Several contexts and handles may use
//! one; it is freed with the last of them.

use std::ffi::{CStr, CString};
use std::ptr::NonNull;

use llama_cpp_sys_2 as llama;

use crate::host_callbacks::ModelParts;
use crate::host_embeddings::StandIn;
use crate::model_dtype;
use crate::rope_factors::ShortContexts;
use crate::vocabulary::Vocabulary;

pub(crate) struct Weights {
    model: Model,
    pub(crate) vocabulary: Vocabulary,
    /// Of its own.
    has_embeddings: bool,
    /// Of the model's file.
    fingerprint: u64,
}

struct Model(NonNull<llama::llama_model>);

// SAFETY: a model is not tied to the thread that made it.
unsafe impl Send for Model {}
// SAFETY: llama.cpp changes a loaded model only when it loads an adapter, which is done under the
// lock of the context that computes with it.
unsafe impl Sync for Model {}

impl Weights {
    /// None: llama.cpp cannot load the file. `stand_in` has the embedding layer that it lacks.
    pub(crate) fn open(
        path: &CStr,
        stand_in: Option<&StandIn>,
        fingerprint: u64,
    ) -> Option<Weights> {
        // SAFETY: it has no preconditions.
        let mut params = unsafe { llama::llama_model_default_params() };
        params.n_gpu_layers = 0;
        params.load_mode = llama::LLAMA_LOAD_MODE_MMAP;
        let raw = match stand_in {
            Some(stand_in) => stand_in.load(path, params),
            // SAFETY: the parameters are llama.cpp's defaults with two fields changed, and `path`
            // is a live C string.
            None => unsafe { llama::llama_model_load_from_file(path.as_ptr(), params) },
        };
        let model = Model(NonNull::new(raw)?);
        Some(Weights {
            // SAFETY: the vocabulary view is kept beside the model it looks into.
            vocabulary: unsafe { Vocabulary::of(raw) },
            model,
            has_embeddings: stand_in.is_none(),
            fingerprint,
        })
    }

    pub(crate) fn raw(&self) -> *mut llama::llama_model {
        self.model.0.as_ptr()
    }

    /// Tokens it was trained with.
    pub(crate) fn trained_context(&self) -> u32 {
        // SAFETY: the model is alive.
        let trained = unsafe { llama::llama_model_n_ctx_train(self.raw()) };
        u32::try_from(trained).unwrap_or(0)
    }

    /// It generates from nothing but the text before.
    pub(crate) fn only_decodes(&self) -> bool {
        let looks_ahead = self.of_architecture("attention.causal").as_deref() == Some("false");
        // SAFETY: the model is alive.
        let decodes = unsafe {
            llama::llama_model_has_decoder(self.raw())
                && !llama::llama_model_has_encoder(self.raw())
        };
        decodes && !looks_ahead
    }

    /// What saved cells of contexts of `length` tokens are told apart by.
    pub(crate) fn fingerprint_of_cells(&self, length: usize) -> u64 {
        self.short_contexts().fingerprint(self.fingerprint, length)
    }

    pub(crate) fn short_contexts(&self) -> ShortContexts {
        let says = |name| self.of_architecture(name);
        ShortContexts::of(
            says("rope.scaling.type").as_deref(),
            says("rope.scaling.original_context_length").as_deref(),
        )
    }

    /// What the model's file says under `<architecture>.<name>`.
    fn of_architecture(&self, name: &str) -> Option<String> {
        let architecture = self.metadata("general.architecture")?;
        self.metadata(&format!("{architecture}.{name}"))
    }

    /// What the model's file says, as text; at most 127 bytes of it.
    fn metadata(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        let mut text = [0_u8; 128];
        // SAFETY: the model is alive, the key is a live C string, and the buffer has the length given.
        let length = unsafe {
            llama::llama_model_meta_val_str(
                self.raw(),
                key.as_ptr(),
                text.as_mut_ptr().cast(),
                text.len(),
            )
        };
        let ended = CStr::from_bytes_until_nul(&text).ok()?;
        (length >= 0).then(|| ended.to_string_lossy().into_owned())
    }

    /// The model's state is one summary of all it has read and cannot be cut anywhere.
    pub(crate) fn has_recurrent_state(&self) -> bool {
        // SAFETY: the model is alive.
        unsafe {
            llama::llama_model_is_recurrent(self.raw()) || llama::llama_model_is_hybrid(self.raw())
        }
    }

    /// Each sequence's cells can lie in a stream of their own, a row for each. A model that only has a state
    /// has none, and for this architecture llama.cpp lays values in columns.
    pub(crate) fn has_rows_of_cells(&self) -> bool {
        // SAFETY: the model is alive.
        let has_cells = unsafe { !llama::llama_model_is_recurrent(self.raw()) };
        has_cells && self.metadata("general.architecture").as_deref() != Some("grok")
    }

    /// Floats in a row of an embedding input.
    pub(crate) fn embedding_width(&self) -> usize {
        // SAFETY: the model is alive.
        unsafe { llama::llama_model_n_embd_inp(self.raw()) as usize }
    }

    /// Floats in a hidden state.
    pub(crate) fn hidden_width(&self) -> usize {
        // SAFETY: the model is alive.
        unsafe { llama::llama_model_n_embd_out(self.raw()) as usize }
    }

    pub(crate) fn uses_mrope(&self) -> bool {
        // SAFETY: the model is alive.
        let rope = unsafe { llama::llama_model_rope_type(self.raw()) };
        rope == llama::LLAMA_ROPE_TYPE_MROPE || rope == llama::LLAMA_ROPE_TYPE_IMROPE
    }

    /// Numbers that a position has for an embedding row.
    pub(crate) fn position_parts(&self) -> usize {
        if self.uses_mrope() { 4 } else { 1 }
    }

    pub(crate) fn parts(&self) -> ModelParts {
        ModelParts {
            tokenizer: self.vocabulary.tokenizes(),
            embeddings: self.has_embeddings,
        }
    }

    pub(crate) fn dtype(&self) -> &'static str {
        // SAFETY: the model is alive.
        let ftype = unsafe { llama::llama_model_ftype(self.raw()) };
        model_dtype::name(ftype & !llama::LLAMA_FTYPE_GUESSED)
    }

    /// Architecture, size and quantisation in llama.cpp's words.
    pub(crate) fn description(&self) -> String {
        let mut text = [0_u8; 128];
        // SAFETY: the model is alive and the buffer has the length given; llama.cpp ends it.
        unsafe { llama::llama_model_desc(self.raw(), text.as_mut_ptr().cast(), text.len()) };
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    pub(crate) fn chat_template(&self) -> Option<CString> {
        // SAFETY: the model is alive; the returned string lives as long as it does and is copied.
        unsafe {
            let template = llama::llama_model_chat_template(self.raw(), std::ptr::null());
            (!template.is_null()).then(|| CStr::from_ptr(template).to_owned())
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: owned by this value, and every context on it is already freed.
        unsafe { llama::llama_model_free(self.0.as_ptr()) };
    }
}
