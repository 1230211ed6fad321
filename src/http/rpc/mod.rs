//! The library's functions over JSON-RPC 2.0, on a Unix socket, `POST /rpc` and a WebSocket.
//!
//! Read it in this order: `protocol` takes a message apart and knows nothing of methods, `session` is
//! what one connection or request may use, `methods` is what can be called, `handles` who owns what;
//! `unix_socket`, `post` and `websocket` carry messages. A transport never looks into a message, a
//! method never knows its transport, and what a connection opened ends with it.

mod handles;
mod methods;
mod notifications;
mod open_rpc;
mod outbound;
mod outgoing;
pub(crate) mod post;
mod protocol;
mod pump;
mod session;
mod tensor_text;
mod unix_socket;
pub(crate) mod websocket;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

pub(crate) use post::post;
pub(super) use post::{refusal_text, refused};
pub use unix_socket::serve as serve_unix;
pub(crate) use websocket::websocket;

use crate::chat::Engine;
use crate::generation::ClientKey;
use crate::http::request::live::LiveRequests;
use crate::http::request::pace::SlowestPace;
use crate::memory::{Account, Accountant};
use crate::settings::{RpcSettings, Settings};
use handles::HandleTable;
use outgoing::{Outgoing, Queue};

/// Who calls, for limits and ownership: over HTTP the key, where keys are asked for, else the peer.
pub(crate) type ClientId = ClientKey;

/// What all transports share.
pub(crate) struct Rpc {
    engine: Arc<dyn Engine>,
    settings: RpcSettings,
    /// A client that reads nothing for so long loses its run.
    slow_reader: Duration,
    /// Of what a client of the Unix socket sends.
    slowest_pace: SlowestPace,
    /// A transport that was silent for so long says something.
    keep_alive: Duration,
    /// From the daemon's being asked to end to its end.
    drain: Duration,
    handles: Arc<HandleTable>,
    accountant: Accountant,
    /// Where runs are listed, and aborted by administrators.
    live: Arc<LiveRequests>,
    /// Of the files of tensors.
    pub(super) tensors: Accountant,
    /// Becomes true when the daemon waits no longer for runs.
    cut_off: watch::Sender<bool>,
    next_connection: AtomicU64,
    next_run: AtomicU64,
}

impl Rpc {
    pub fn new(
        engine: Arc<dyn Engine>,
        settings: &Settings,
        accountant: &Accountant,
        live: &Arc<LiveRequests>,
    ) -> Arc<Self> {
        let (http, rpc) = (&settings.http, &settings.rpc);
        let tensors = match engine.supervisor() {
            Some(supervisor) => supervisor.tensors().clone(),
            // Without workers there are none.
            None => Accountant::of_files(0),
        };
        Arc::new(Self {
            engine,
            settings: rpc.clone(),
            slow_reader: http.slow_reader_timeout,
            slowest_pace: SlowestPace::of(http, &settings.memory),
            keep_alive: http.keep_alive,
            drain: settings.deadlines.drain,
            handles: HandleTable::new(rpc.max_handles, rpc.handle_idle_timeout),
            accountant: accountant.clone(),
            live: Arc::clone(live),
            tensors,
            cut_off: watch::Sender::new(false),
            next_connection: AtomicU64::new(1),
            next_run: AtomicU64::new(1),
        })
    }

    /// Whether the HTTP listeners answer for it.
    pub fn over_http(&self) -> bool {
        self.settings.http
    }

    /// Aborts all runs, on every transport; each still tells why it ended.
    pub(super) fn cut_off_runs(&self) {
        self.cut_off.send_replace(true);
    }

    fn cut_off(&self) -> CutOff {
        CutOff(self.cut_off.subscribe())
    }

    fn connection_number(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }

    fn run_number(&self) -> u64 {
        self.next_run.fetch_add(1, Ordering::Relaxed)
    }

    fn outgoing(&self, account: &Account) -> (Outgoing, Queue) {
        let RpcSettings {
            outgoing_limit_bytes,
            slowest_bytes_per_second,
            ..
        } = self.settings;
        Outgoing::new(
            account.clone(),
            outgoing_limit_bytes,
            self.slow_reader,
            slowest_bytes_per_second,
        )
    }
}

/// Tells a run that its time is over.
struct CutOff(watch::Receiver<bool>);

impl CutOff {
    fn is_due(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when the run must end.
    async fn wait(&mut self) {
        if self.0.wait_for(|cut_off| *cut_off).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
