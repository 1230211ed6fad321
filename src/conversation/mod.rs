//! The vocabulary of conversations, whatever dialect they are held in: what was said, what functions
//! may be called, and what a model's reply is, piece by piece.
//!
//! A leaf: everything may use it and it uses nothing else. No dialect, no HTTP and
//! no template appears here. What can be serialised is so for the way to a reader, never for a client.

mod logprobs;
mod message;
mod reply_piece;
mod tool;
mod wishes;

pub use logprobs::{ScoredText, TokenLogprob, TokenLogprobs};
pub use message::{Message, Role, ToolCall};
pub use reply_piece::ReplyPiece;
pub use tool::{Tool, ToolChoice};
pub use wishes::{ReasoningWish, Thinking};
