//! The dialects that clients speak, a folder each, and what all of them do with a request for a reply
//! (`chat_dialect`). No dialect knows another, but for `llama_server`, which takes OpenAI's bodies, and
//! `ollama`, whose functions, sampling values and embeddings are OpenAI's; and no other part of the daemon
//! knows one, but for the router, the shape of errors and the API's description.

pub(crate) mod chat_dialect;
pub(crate) mod format;
pub(crate) mod llama_server;
pub(crate) mod ollama;
pub(crate) mod openai;
