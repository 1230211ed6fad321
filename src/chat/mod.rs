//! The one way from a conversation to its reply, whatever dialect asks: have a reader render the
//! prompt, submit it, and hand on the reply's events. It knows no dialect and no HTTP, and nothing
//! below it knows it.

mod closing;
mod context_limit;
mod cut_tokens;
mod engine;
mod fitting;
mod goes_on;
mod history;
mod replies;
mod reply;
mod service;
mod whole_reply;

pub use closing::{Closing, Making};
pub(crate) use context_limit::{ContextLimit, Follows};
pub use engine::{Answering, Engine};
pub use fitting::Fitted;
pub use goes_on::ConversationTurn;
pub use replies::{OfReply, Replies};
pub use reply::Reply;
pub use service::{ChatService, PromptPart, PromptSource, ReplyReading};
pub(crate) use whole_reply::logprobs_bytes;
pub use whole_reply::{WholeCall, WholePart, WholeReply};
