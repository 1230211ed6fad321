//! A prompt that is too long for its model is refused before it waits for a worker, where that can be
//! known: by the tokens of the model's own tokenizer, or because the text is longer than any text of
//! so many tokens. What is not known here the worker finds.

use super::Engine;
use super::history::Size;
use crate::generation::{GenerationError, GenerationRequest};
use crate::ipc::Prompt;
use crate::library_calls::{InferMode, InputPayload, LibraryError, RunRequest};
use crate::models::{InstalledModel, longest_text_bytes};

/// How much one model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContextLimit {
    tokens: u32,
    bytes: usize,
}

/// What follows the prompt in its context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    /// An answer, of one token at the least.
    Answer,
    Nothing,
}

impl ContextLimit {
    /// Of a model as it is loaded, else as it would be.
    pub fn of(engine: &dyn Engine, model: &InstalledModel) -> Self {
        let status = engine.status().model(&model.id);
        let loaded = status
            .and_then(|status| status.facts)
            .and_then(|facts| facts.context_length);
        Self {
            tokens: loaded.unwrap_or_else(|| model.facts.context_tokens()),
            bytes: model.longest_prompt_bytes(),
        }
    }

    /// Of a context of so many tokens.
    pub fn of_tokens(tokens: u32) -> Self {
        Self {
            tokens,
            bytes: longest_text_bytes(tokens),
        }
    }

    /// Of its context.
    pub fn tokens(&self) -> usize {
        self.tokens as usize
    }

    /// Bytes of which no text that fits has more.
    pub fn longest_text_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a text of so many bytes is worth being counted: a token has a byte at the least.
    pub fn may_be_passed_by(&self, bytes: usize) -> bool {
        (self.tokens as usize..=self.bytes).contains(&bytes)
    }

    /// What a prompt takes; `None`: its tokens are not known.
    pub(super) fn size(&self, prompt: &Prompt) -> Option<Size> {
        match &prompt.tokens {
            _ if prompt.text.len() > self.bytes => Some(Size::Endless),
            tokens => tokens.as_ref().map(|tokens| Size::Tokens(tokens.len())),
        }
    }

    /// Whether there is room for an answer beside it, be it a short one.
    pub(super) fn holds(&self, size: Size) -> bool {
        match size {
            Size::Tokens(tokens) => self.check_tokens(tokens, Follows::Answer).is_ok(),
            Size::Endless => false,
        }
    }

    /// Tokens that a prompt may have beside an answer of so many, which may have no more than a quarter.
    pub(super) fn tokens_beside(&self, answer_tokens: u32) -> usize {
        let answer = answer_tokens.clamp(1, (self.tokens / 4).max(1));
        self.tokens.saturating_sub(answer) as usize
    }

    pub fn check(&self, request: &GenerationRequest) -> Result<(), GenerationError> {
        self.check_text(request.prompt.len())?;
        match &request.prompt_tokens {
            Some(tokens) => self.check_tokens(tokens.len(), Follows::Answer),
            None => Ok(()),
        }
    }

    /// Checks what a call of the vendor's API has by itself; what its handle remembers comes to it.
    pub fn check_run(&self, request: &RunRequest) -> Result<(), LibraryError> {
        let follows = match request.infer.mode {
            InferMode::Generate => Follows::Answer,
            InferMode::GetLastHiddenLayer | InferMode::GetLogits => Follows::Nothing,
        };
        for input in &request.inputs {
            match input.payload()? {
                InputPayload::Prompt(text) => self.check_text(text.len())?,
                InputPayload::Multimodal(input) => self.check_text(input.prompt.len())?,
                InputPayload::Token(tokens) => {
                    self.check_tokens(tokens.input_ids.len(), follows)?;
                }
                InputPayload::Embed(embed) => self.check_tokens(embed.n_tokens, follows)?,
            }
        }
        Ok(())
    }

    pub fn check_text(&self, bytes: usize) -> Result<(), GenerationError> {
        if bytes > self.bytes {
            return Err(GenerationError::PromptTooLong {
                prompt_bytes: bytes,
                limit_tokens: self.tokens,
            });
        }
        Ok(())
    }

    pub fn check_tokens(&self, tokens: usize, follows: Follows) -> Result<(), GenerationError> {
        let room = usize::from(follows == Follows::Answer);
        if tokens.saturating_add(room) > self.tokens as usize {
            return Err(GenerationError::ContextLengthExceeded {
                prompt_tokens: u32::try_from(tokens).unwrap_or(u32::MAX),
                limit_tokens: self.tokens,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: ContextLimit = ContextLimit {
        tokens: 64,
        bytes: 64 * 128,
    };

    #[test]
    fn an_answer_needs_room_for_a_token() {
        assert!(LIMIT.check_tokens(63, Follows::Answer).is_ok());
        assert!(LIMIT.check_tokens(64, Follows::Nothing).is_ok());
        for (tokens, follows) in [(64, Follows::Answer), (65, Follows::Nothing)] {
            assert_eq!(
                LIMIT.check_tokens(tokens, follows),
                Err(GenerationError::ContextLengthExceeded {
                    prompt_tokens: u32::try_from(tokens).unwrap(),
                    limit_tokens: 64
                })
            );
        }
    }

    #[test]
    fn a_text_longer_than_any_tokens_is_too_long_without_being_counted() {
        assert!(LIMIT.check_text(64 * 128).is_ok());
        assert!(LIMIT.may_be_passed_by(64) && LIMIT.may_be_passed_by(64 * 128));
        assert!(!LIMIT.may_be_passed_by(63) && !LIMIT.may_be_passed_by(64 * 128 + 1));
        let error = LIMIT.check_text(64 * 128 + 1).unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("This model's maximum context length is 64 tokens. However, "),
            "{message}"
        );
    }
}
