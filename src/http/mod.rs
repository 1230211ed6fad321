//! HTTP in, HTTP out: listener, router and dialects.
//!
//! A request is parsed, checked and rendered here until it is a [`GenerationRequest`]; what comes
//! back as [`ReplyEvent`]s is written in the dialect it was asked in. Every answer that is an error
//! is the dialect's error object, its status decided in `status.rs` and nowhere else. A client that
//! goes away drops its `Generation`, whatever its request was waiting for.
//!
//! [`GenerationRequest`]: crate::generation::GenerationRequest
//! [`ReplyEvent`]: crate::generation::ReplyEvent

mod dialects;
mod pages;
mod path_alias;
mod request;
mod response;
mod router;
pub mod rpc;
mod status;
mod transport;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use pages::admin::doctor::Examine;
pub use request::access::{ExposedWithoutKeys, check_exposure, exposure};
pub use transport::listener::{Listener, ListenerAddress, serve};
pub use transport::unix_socket::{UnixSocketFile, bind as bind_unix};

use crate::auth::{CurrentKeys, SealingKey};
use crate::chat::{ChatService, Engine};
use crate::memory::{Accountant, machine, requests_limit};
use crate::settings::{
    AdminSettings, ChatSettings, ConfinementSettings, ConstraintSettings, EmbeddingSettings,
    HttpSettings, Settings, TokenizerSettings,
};
use dialects::background_responses::BackgroundResponses;
use dialects::kept_responses::KeptResponses;
use pages::admin::doctor::Doctor;
use request::live::LiveRequests;
use request::pace::SlowestPace;
use transport::seats::Seats;

/// What all listeners share.
pub struct HttpState {
    engine: Arc<dyn Engine>,
    chats: ChatService,
    keys: CurrentKeys,
    http: HttpSettings,
    /// Of what clients send.
    slowest_pace: SlowestPace,
    chat: ChatSettings,
    constraints: ConstraintSettings,
    embeddings: EmbeddingSettings,
    tokenizer: TokenizerSettings,
    /// The longest time open requests get to end once a listener shuts down.
    drain: Duration,
    /// Longest time of a request, unless it asks for less.
    total_deadline: Option<Duration>,
    /// Longest time of a response in the background.
    background_deadline: Duration,
    /// Whether answers are resumed, unless a request says so itself.
    resume: bool,
    /// One for each connection, over all TCP listeners.
    seats: Arc<Seats>,
    /// Likewise on the Unix socket: strangers do not take the places of this machine's own.
    unix_seats: Arc<Seats>,
    /// One permit for each large request that is parsed and rendered.
    large_requests: Arc<Semaphore>,
    /// Of the memory for requests.
    accountant: Accountant,
    /// What models serve now.
    live: Arc<LiveRequests>,
    admin: AdminSettings,
    confinement: ConfinementSettings,
    /// One permit for each client that follows the daemon's events.
    event_streams: Arc<Semaphore>,
    /// `None`: nothing examines the machine.
    doctor: Option<Arc<Doctor>>,
    /// The vendor's functions.
    rpc: Arc<rpc::Rpc>,
    /// Responses that requests can go on from.
    kept_responses: Arc<KeptResponses>,
    /// Those that are made whether or not their clients wait.
    background_responses: Arc<BackgroundResponses>,
    /// What a conversation may take that is made shorter.
    compacted_limit_bytes: usize,
    /// Streams that a WebSocket that makes responses may name, and messages that may wait on it.
    max_socket_streams: usize,
    /// Longest time of one.
    max_socket_age: Duration,
    /// Of what clients keep for the daemon.
    sealing: SealingKey,
}

impl HttpState {
    /// `keys` open the listeners that ask for one.
    pub fn new(engine: Arc<dyn Engine>, keys: CurrentKeys, settings: &Settings) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let accountant = match engine.supervisor() {
            Some(supervisor) => supervisor.requests_memory().clone(),
            // Without workers nothing else is charged.
            None => Accountant::new(requests_limit(
                settings.memory.requests_limit_bytes,
                machine::machine_bytes(),
            )),
        };
        let live: Arc<LiveRequests> = Arc::default();
        Self {
            rpc: rpc::Rpc::new(Arc::clone(&engine), settings, &accountant, &live),
            accountant,
            chats: ChatService::new(Arc::clone(&engine)),
            engine,
            keys: keys.clone(),
            http: settings.http.clone(),
            slowest_pace: SlowestPace::of(&settings.http, &settings.memory),
            chat: settings.chat.clone(),
            constraints: settings.constraints.clone(),
            embeddings: settings.embeddings.clone(),
            tokenizer: settings.tokenizer.clone(),
            drain: settings.deadlines.drain,
            total_deadline: settings.deadlines.total,
            background_deadline: settings.deadlines.background,
            resume: settings.recovery.resume,
            seats: Seats::new(
                settings.http.max_connections,
                settings.http.max_connections_per_address,
            ),
            unix_seats: Seats::new(settings.http.max_connections, usize::MAX),
            kept_responses: Arc::new(KeptResponses::new(&settings.responses).with_keys(keys)),
            compacted_limit_bytes: settings.responses.compacted_limit_bytes,
            max_socket_streams: settings.responses.max_streams_per_socket,
            max_socket_age: settings.responses.max_socket_age,
            background_responses: Arc::new(BackgroundResponses::new(&settings.responses)),
            sealing: SealingKey::of_this_process(),
            live,
            event_streams: Arc::new(Semaphore::new(settings.admin.max_event_streams)),
            admin: settings.admin.clone(),
            confinement: settings.confinement.clone(),
            doctor: None,
            large_requests: Arc::new(Semaphore::new((cores / 2).max(1))),
        }
    }

    /// The same with a key that outlives the process.
    #[must_use]
    pub fn sealing_with(self, sealing: SealingKey) -> Self {
        Self { sealing, ..self }
    }

    /// The same with the responses that are kept in the state folder, where settings have it so. `None`: there is none that
    /// this daemon may write to. To be called before anything is served.
    #[must_use]
    pub fn keeping_responses_in(self, state_folder: Option<&Path>, settings: &Settings) -> Self {
        let kept = KeptResponses::of_folder(&settings.responses, state_folder);
        Self {
            kept_responses: Arc::new(kept.with_keys(self.keys.clone())),
            ..self
        }
    }

    /// What is kept of a key goes with it. `keys`: clients that have one, in the words of their names.
    pub fn keep_keys(&self, keys: &HashSet<String>) {
        self.kept_responses.keep_keys(keys);
        self.background_responses.keep_keys(keys);
    }

    /// Ends the responses in the background, and lets none begin.
    pub fn end_background_responses(&self) {
        self.background_responses.close();
    }

    /// Waits for the end of the responses in the background. What settings have on disk is there by then.
    pub async fn background_responses_ended(&self) {
        self.background_responses.ended().await;
    }

    /// `examine` is asked by administrators, on a thread of its own.
    #[must_use]
    pub fn with_doctor(self, examine: Arc<Examine>) -> Self {
        Self {
            doctor: Some(Arc::new(Doctor::new(examine))),
            ..self
        }
    }

    /// Ends the runs of the vendor's functions, and lets each client know why.
    pub fn cut_off_runs(&self) {
        self.rpc.cut_off_runs();
    }
}
