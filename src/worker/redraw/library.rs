//! What makes the tokens of an answer, one run after the other.

use rkllm_sys::{CallError, ReleaseBuffer, ResultSink};

use super::sinks::Abort;

/// What the library is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    Tokens,
    TokensWithRows,
    /// The logits behind the input. What is drawn from them is thrown away.
    Row,
}

/// What makes the tokens.
pub trait Library {
    /// Returns when the run has ended.
    fn run(
        &mut self,
        input: &[i32],
        asks: Asks,
        most_tokens: u32,
        sink: Box<dyn ResultSink>,
    ) -> Result<(), CallError>;

    fn abort(&self) -> Abort;

    fn release(&self) -> Option<ReleaseBuffer>;

    /// A run that tells the row of each token is ended behind so many.
    fn most_with_rows(&self) -> u32;
}
