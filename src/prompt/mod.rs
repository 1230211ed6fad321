//! A conversation becomes the prompt text that the runtime tokenises.
//!
//! A pure library: it opens no file, asks no clock and knows no dialect and no runtime, so that it
//! can run in a sandbox. What it is asked ([`RenderRequest`]) and what it answers ([`Rendered`],
//! [`TemplateError`]) can be sent as JSON.
//!
//! No character of a client's becomes part of a control token, whatever the template does to it. For
//! that the template's own tokens are marked, not the client's texts: `own_words` writes them in
//! characters that no client can write (`twins`), and when the template is done `seal` breaks
//! every control token that is not wholly in such characters. A client's text reaches the template
//! as it is, so a template that splits, compares or measures it does what it does elsewhere; that
//! searches see through the marks is `python`'s part.
//!
//! Templates come with downloaded models; what they may do is `environment`'s.

mod bar_tokens;
mod calls;
mod chat_template;
mod client_template;
mod completion;
mod control_tokens;
mod conversation;
mod dialogue;
mod environment;
mod family;
mod fill_in;
mod folding;
mod format;
mod forms;
mod go_template;
mod jinja2;
mod json;
mod numbers;
mod own_words;
mod probe;
mod python;
mod python_text;
mod repr;
mod request;
mod seal;
mod shared_prefix;
mod twins;
mod values;

pub use calls::{Functions, SeveralCalls, markers_in_words};
pub use chat_template::{ChatTemplate, SpecialTokens};
pub use client_template::ClientTemplate;
pub use control_tokens::ControlTokens;
pub use environment::RenderLimits;
pub use family::{TemplateFamily, well_known_control_tokens};
pub use fill_in::{FillIn, Gap, Snippet};
pub use go_template::{GoField, GoTemplate, GoTemplateError};
pub use numbers::with_large_numbers_as_objects;
pub use request::{
    ChatMessage, ChatRole, ClientField, ControlTokenPolicy, PromptEnd, RenderRequest, Rendered,
    TemplateError,
};
pub use shared_prefix::{pinned_prefix, shared_prefix};
