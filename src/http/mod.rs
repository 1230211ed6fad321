//! HTTP in, HTTP out: listener, router and dialects.
//!
//! A request is parsed, checked and rendered here until it is a [`GenerationRequest`]; what comes
//! back as [`TokenEvent`]s is written in the dialect it was asked in. Every answer that is an error
//! is the dialect's error object, its status decided in `status.rs` and nowhere else. A client that
//! goes away drops its `Generation`, whatever its request was waiting for.
//!
//! [`GenerationRequest`]: crate::generation::GenerationRequest
//! [`TokenEvent`]: crate::generation::TokenEvent

mod access;
mod aside;
mod connection;
mod engine;
mod error_body;
mod health;
mod host_guard;
mod listener;
mod llama_server;
mod loading_progress;
mod metrics_page;
mod model_view;
mod openai;
mod openapi;
mod readiness;
mod request_body;
mod request_context;
mod request_error;
mod request_id;
mod router;
pub mod rpc;
mod socket;
mod sse;
mod status;
mod unix_socket;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use access::{ExposedWithoutKeys, check_exposure, exposure};
pub use engine::{Answering, Engine};
pub use listener::{Listener, ListenerAddress, serve};
pub use unix_socket::{UnixSocketFile, bind as bind_unix};

use crate::auth::CurrentKeys;
use crate::settings::{ChatSettings, EmbeddingSettings, HttpSettings, Settings, TokenizerSettings};

/// What all listeners share.
pub struct HttpState {
    engine: Arc<dyn Engine>,
    keys: CurrentKeys,
    http: HttpSettings,
    chat: ChatSettings,
    embeddings: EmbeddingSettings,
    tokenizer: TokenizerSettings,
    /// The longest time open requests get to end once a listener shuts down.
    drain: Duration,
    /// Longest time of a request, unless it asks for less.
    total_deadline: Option<Duration>,
    /// Whether answers are resumed, unless a request says so itself.
    resume: bool,
    /// One permit a connection, over all listeners.
    connections: Arc<Semaphore>,
    /// One permit for each large request that is parsed and rendered.
    large_requests: Arc<Semaphore>,
    /// The vendor's functions.
    rpc: Arc<rpc::Rpc>,
}

impl HttpState {
    /// `keys` open the listeners that ask for one.
    pub fn new(engine: Arc<dyn Engine>, keys: CurrentKeys, settings: &Settings) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            rpc: rpc::Rpc::new(Arc::clone(&engine), settings),
            engine,
            keys,
            http: settings.http.clone(),
            chat: settings.chat.clone(),
            embeddings: settings.embeddings.clone(),
            tokenizer: settings.tokenizer.clone(),
            drain: settings.deadlines.drain,
            total_deadline: settings.deadlines.total,
            resume: settings.recovery.resume,
            connections: Arc::new(Semaphore::new(settings.http.max_connections)),
            large_requests: Arc::new(Semaphore::new((cores / 2).max(1))),
        }
    }

    /// Ends the runs of the vendor's functions, and lets each client know why.
    pub fn cut_off_runs(&self) {
        self.rpc.cut_off_runs();
    }
}
