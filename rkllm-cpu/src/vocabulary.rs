//! Text to tokens and back, as the model's own vocabulary does it. Prompts are always tokenised
//! with special tokens parsed; the beginning-of-sequence token is added here, not by llama.cpp,
//! because it must be added once even to a text that spells it out.

use llama_cpp_sys_2 as llama;

pub(crate) type Token = llama::llama_token;

/// A view of a loaded model's vocabulary; it must not outlive the model, which `Weights` and `Engine`
/// ensure by owning both.
#[derive(Clone, Copy)]
pub(crate) struct Vocabulary {
    raw: *const llama::llama_vocab,
}

// SAFETY: llama.cpp never changes a vocabulary after loading and documents tokenising as
// thread-safe.
unsafe impl Send for Vocabulary {}
// SAFETY: as above.
unsafe impl Sync for Vocabulary {}

impl Vocabulary {
    /// # Safety
    /// `model` is a loaded model that outlives the result.
    pub(crate) unsafe fn of(model: *const llama::llama_model) -> Vocabulary {
        Vocabulary {
            // SAFETY: the caller vouches for the model.
            raw: unsafe { llama::llama_model_get_vocab(model) },
        }
    }

    /// False: the model's file has only numbers, and text is the host's to make tokens of.
    pub(crate) fn tokenizes(&self) -> bool {
        // SAFETY: the vocabulary is alive, see `of`.
        let kind = unsafe { llama::llama_vocab_type(self.raw) };
        kind != llama::LLAMA_VOCAB_TYPE_NONE
    }

    pub(crate) fn len(&self) -> i32 {
        // SAFETY: the vocabulary is alive, see `of`.
        unsafe { llama::llama_vocab_n_tokens(self.raw) }
    }

    pub(crate) fn is_end_of_generation(&self, token: Token) -> bool {
        // SAFETY: the vocabulary is alive and the token came from it.
        unsafe { llama::llama_vocab_is_eog(self.raw, token) }
    }

    pub(crate) fn end_of_sequence(&self) -> Token {
        // SAFETY: the vocabulary is alive, see `of`.
        unsafe { llama::llama_vocab_eos(self.raw) }
    }

    /// Their ids; negative where the vocabulary has none.
    pub(crate) fn bos_and_eos(&self) -> [Token; 2] {
        // SAFETY: the vocabulary is alive, see `of`.
        unsafe {
            [
                llama::llama_vocab_bos(self.raw),
                llama::llama_vocab_eos(self.raw),
            ]
        }
    }

    /// The token every sequence must begin with, if this vocabulary wants one.
    pub(crate) fn wanted_bos(&self) -> Option<Token> {
        // SAFETY: the vocabulary is alive, see `of`.
        unsafe {
            let bos = llama::llama_vocab_bos(self.raw);
            (llama::llama_vocab_get_add_bos(self.raw) && bos >= 0).then_some(bos)
        }
    }

    /// Tokens the model's file says must never be generated.
    pub(crate) fn suppressed(&self) -> &[Token] {
        let mut count = 0;
        // SAFETY: the vocabulary is alive; llama.cpp returns an array of `count` tokens it owns.
        unsafe {
            let tokens = llama::llama_vocab_get_suppress_tokens(self.raw, &mut count);
            if tokens.is_null() || count <= 0 {
                &[]
            } else {
                std::slice::from_raw_parts(tokens, count as usize)
            }
        }
    }

    pub(crate) fn tokenize(&self, text: &str) -> Vec<Token> {
        let Ok(length) = i32::try_from(text.len()) else {
            return Vec::new();
        };
        // llama.cpp ends the process where there is no tokenizer.
        if !self.tokenizes() {
            return Vec::new();
        }
        // Never more tokens than bytes, plus the blank that some vocabularies put in front.
        let mut tokens: Vec<Token> = vec![0; text.len() + 8];
        loop {
            // SAFETY: `text` holds `length` bytes and `tokens` has room for the count given.
            let written = unsafe {
                llama::llama_tokenize(
                    self.raw,
                    text.as_ptr().cast(),
                    length,
                    tokens.as_mut_ptr(),
                    tokens.len() as i32,
                    false,
                    true,
                )
            };
            if written >= 0 {
                tokens.truncate(written as usize);
                return tokens;
            }
            if written == i32::MIN {
                return Vec::new();
            }
            tokens.resize(written.unsigned_abs() as usize, 0);
        }
    }

    /// The token's bytes, which may end inside a character. With `special` false, control tokens
    /// have none.
    pub(crate) fn piece(&self, token: Token, special: bool) -> Vec<u8> {
        if token < 0 || !self.tokenizes() {
            return Vec::new();
        }
        let mut bytes = vec![0_u8; 32];
        loop {
            // SAFETY: the buffer has the length given, and the token came from this vocabulary.
            let written = unsafe {
                llama::llama_token_to_piece(
                    self.raw,
                    token,
                    bytes.as_mut_ptr().cast(),
                    bytes.len() as i32,
                    0,
                    special,
                )
            };
            if written >= 0 {
                bytes.truncate(written as usize);
                return bytes;
            }
            bytes.resize(written.unsigned_abs() as usize, 0);
        }
    }
}
