use serde::{Deserialize, Serialize};

/// Why a generation that did not fail came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinishReason {
    /// The model ended its turn, or a stop string was reached.
    Stop,
    /// The token budget or the context window is used up.
    Length,
}
