//! 1.3.0's callbacks by which the host tokenises and embeds itself. They count only where the
//! model's file has no tokenizer or no embedding layer of its own. The tokenizer returns how many
//! tokens it wrote, 0 or less for a failure; the other fills `len` bytes, a row of f32 for each
//! token, and returns 0.

use std::ffi::{CString, c_void};

use thiserror::Error;

use crate::abi::{LLMGetEmbedCallback, LLMTokenizerCallback, RKLLMCallback};
use crate::log::info;
use crate::vocabulary::Token;

#[derive(Debug, Error)]
pub(crate) enum HostError {
    #[error(
        "the model has no tokenizer: give rkllm_init a tokenizer_callback, or tokens to the run"
    )]
    NoTokenizer,
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

/// What a model's file has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModelParts {
    pub(crate) tokenizer: bool,
    pub(crate) embeddings: bool,
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

    pub(crate) fn embeds(&self) -> bool {
        self.embed.is_some()
    }

    /// False: `callback` does not begin with a function. A program built for 1.2.x passes the
    /// function where 1.3.x passes a struct, so what is read here is its machine code.
    pub(crate) fn is_plausible(callback: &RKLLMCallback) -> bool {
        let Some(function) = callback.result_callback else {
            return false;
        };
        std::fs::read_to_string("/proc/self/maps")
            .map_or(true, |maps| is_executable(&maps, function as usize))
    }

    /// Without those that do for the model what it does itself.
    pub(crate) fn beside(mut self, model: ModelParts) -> HostCallbacks {
        if model.tokenizer && self.tokenizer.take().is_some() {
            info!("tokenizer_callback is not used: the model has a tokenizer");
        }
        if model.embeddings && self.embed.take().is_some() {
            info!("embed_callback is not used: the model has an embedding layer");
        }
        self
    }

    pub(crate) fn tokenize(&self, text: &str) -> Result<Vec<Token>, HostError> {
        let tokenizer = self.tokenizer.ok_or(HostError::NoTokenizer)?;
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let (Ok(c_text), Ok(length)) = (CString::new(text), i32::try_from(text.len())) else {
            return Err(HostError::Text);
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
            return Err(HostError::Tokenizer(written));
        }
        tokens.truncate(written as usize);
        Ok(tokens)
    }

    /// Rows of `width` floats, one for each token; none: the model's own table has them.
    pub(crate) fn embeddings(
        &self,
        tokens: &[Token],
        width: usize,
    ) -> Option<Result<Vec<f32>, HostError>> {
        let embed = self.embed?;
        let mut tokens = tokens.to_vec();
        let mut rows = vec![0.0_f32; tokens.len() * width];
        // SAFETY: the host's callback, with the tokens and a buffer of the length it is told.
        let code = unsafe {
            embed(
                self.embed_userdata,
                tokens.as_mut_ptr(),
                tokens.len() as u64,
                rows.as_mut_ptr().cast(),
                size_of_val(&rows[..]) as u64,
            )
        };
        Some(match code {
            0 => Ok(rows),
            code => Err(HostError::Embed(code)),
        })
    }
}

/// `maps` has the lines of `/proc/<pid>/maps`.
fn is_executable(maps: &str, address: usize) -> bool {
    maps.lines().any(|line| {
        let mut words = line.split(' ');
        let range = words.next().and_then(|range| range.split_once('-'));
        let executable = words.next().is_some_and(|flags| flags.contains('x'));
        let number = |text| usize::from_str_radix(text, 16);
        range.is_some_and(|(from, to)| {
            executable
                && number(from).is_ok_and(|from| from <= address)
                && number(to).is_ok_and(|to| address < to)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_lies_in_what_can_be_executed() {
        let maps = "400000-401000 r--p 00000000 fe:00 9 /bin/a\n\
                    401000-402000 r-xp 00001000 fe:00 9 /bin/a\n\
                    7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 [stack]\n";
        assert!(is_executable(maps, 0x40_1000) && is_executable(maps, 0x40_1fff));
        for elsewhere in [0, 0x40_0fff, 0x40_2000, 0x7ffc_0000_1000, usize::MAX] {
            assert!(!is_executable(maps, elsewhere), "{elsewhere:#x}");
        }
    }

    /// Row n is all n, and only if the buffer is as long as the tokens' rows of three f32.
    unsafe extern "C" fn embed(
        _userdata: *mut c_void,
        tokens: *mut i32,
        num_tokens: u64,
        rows: *mut c_void,
        len: u64,
    ) -> i32 {
        if len != num_tokens * 3 * 4 {
            return -7;
        }
        for at in 0..num_tokens as usize {
            for column in 0..3 {
                // SAFETY: inside the tokens and inside the rows, by the length checked above.
                unsafe {
                    let value = tokens.add(at).read() as f32;
                    rows.cast::<f32>().add(at * 3 + column).write(value);
                }
            }
        }
        0
    }

    unsafe extern "C" fn tokenize(
        _userdata: *mut c_void,
        _text: *const std::ffi::c_char,
        text_len: i32,
        tokens: *mut i32,
        _n_tokens_max: i32,
    ) -> i32 {
        // SAFETY: there is room for more tokens than the text has bytes.
        unsafe { tokens.write(text_len) };
        1
    }

    fn both() -> HostCallbacks {
        HostCallbacks {
            tokenizer: Some(tokenize),
            tokenizer_userdata: std::ptr::null_mut(),
            embed: Some(embed),
            embed_userdata: std::ptr::null_mut(),
        }
    }

    #[test]
    fn embeddings_are_rows_of_f32() {
        let rows = both().embeddings(&[2, 5], 3);
        assert_eq!(
            rows.and_then(Result::ok),
            Some(vec![2.0, 2.0, 2.0, 5.0, 5.0, 5.0])
        );
        assert!(matches!(
            both().embeddings(&[2], 4),
            Some(Err(HostError::Embed(-7)))
        ));
    }

    #[test]
    fn a_callback_counts_only_for_what_the_model_lacks() {
        for (tokenizer, embeddings) in [(true, true), (true, false), (false, true), (false, false)]
        {
            let host = both().beside(ModelParts {
                tokenizer,
                embeddings,
            });
            assert_eq!(host.tokenize("four").is_ok(), !tokenizer);
            assert_eq!(host.embeddings(&[1], 3).is_some(), !embeddings);
        }
    }
}
