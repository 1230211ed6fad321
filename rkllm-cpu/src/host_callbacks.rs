//! 1.3.0's callbacks by which the host tokenises and embeds itself. The tokenizer returns how many
//! tokens it wrote, 0 or less for a failure; the other fills `len` bytes, a row of f16 for each
//! token, and returns 0. (The header names the arguments; their meaning is that of the vendor's
//! examples for its newer runtime, which has the same callbacks.)

use std::ffi::{CString, c_void};

use llama_cpp_sys_2 as llama;
use thiserror::Error;

use crate::abi::{LLMGetEmbedCallback, LLMTokenizerCallback, RKLLMCallback};
use crate::vocabulary::Token;

#[derive(Debug, Error)]
pub(crate) enum HostError {
    #[error("the tokenizer callback failed with {0}")]
    Tokenizer(i32),
    #[error("the text has a NUL or is too long for the tokenizer callback")]
    Text,
    #[error("the embed callback failed with {0}")]
    Embed(i32),
}

#[derive(Clone, Copy)]
pub(crate) struct HostCallbacks {
    tokenizer: Option<LLMTokenizerCallback>,
    tokenizer_userdata: *mut c_void,
    embed: Option<LLMGetEmbedCallback>,
    embed_userdata: *mut c_void,
}

// SAFETY: the userdata is the host's and only handed back to it, on the thread of a run.
unsafe impl Send for HostCallbacks {}

impl HostCallbacks {
    pub(crate) fn of(callbacks: &RKLLMCallback) -> HostCallbacks {
        HostCallbacks {
            tokenizer: callbacks.tokenizer_callback,
            tokenizer_userdata: callbacks.tokenizer_userdata,
            embed: callbacks.embed_callback,
            embed_userdata: callbacks.embed_userdata,
        }
    }

    pub(crate) fn tokenizes(&self) -> bool {
        self.tokenizer.is_some()
    }

    /// None: the model's own vocabulary tokenises.
    pub(crate) fn tokenize(&self, text: &str) -> Option<Result<Vec<Token>, HostError>> {
        let tokenizer = self.tokenizer?;
        if text.is_empty() {
            return Some(Ok(Vec::new()));
        }
        let (Ok(c_text), Ok(length)) = (CString::new(text), i32::try_from(text.len())) else {
            return Some(Err(HostError::Text));
        };
        // Never more tokens than bytes, plus what may be put around them.
        let most = length.saturating_add(16);
        let mut tokens: Vec<Token> = vec![0; most as usize];
        // SAFETY: the host's callback, with a C string and room for as many tokens as it is told.
        let written = unsafe {
            tokenizer(
                self.tokenizer_userdata,
                c_text.as_ptr(),
                length,
                tokens.as_mut_ptr(),
                most,
            )
        };
        if written <= 0 || written > most {
            return Some(Err(HostError::Tokenizer(written)));
        }
        tokens.truncate(written as usize);
        Some(Ok(tokens))
    }

    /// A token's row of `width` floats; none: the model's own table has it.
    pub(crate) fn embedding(
        &self,
        token: Token,
        width: usize,
    ) -> Option<Result<Vec<f32>, HostError>> {
        let embed = self.embed?;
        let mut token = token;
        let mut halves: Vec<llama::ggml_fp16_t> = vec![0; width];
        // SAFETY: the host's callback, with one token and a buffer of the length it is told.
        let code = unsafe {
            embed(
                self.embed_userdata,
                &mut token,
                1,
                halves.as_mut_ptr().cast(),
                (width * size_of::<llama::ggml_fp16_t>()) as u64,
            )
        };
        if code != 0 {
            return Some(Err(HostError::Embed(code)));
        }
        let mut row = vec![0.0; width];
        // SAFETY: both buffers hold `width` values.
        unsafe { llama::ggml_fp16_to_fp32_row(halves.as_ptr(), row.as_mut_ptr(), width as i64) };
        Some(Ok(row))
    }
}
