//! The listeners while they are served. Under socket activation they stop first, so that a client that
//! connects from then on waits for the next daemon. Otherwise they stop last, so that such a client is
//! told that the daemon is going.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::http::{self, HttpState, Listener, UnixSocketFile};
use crate::service_manager::InheritedSocket;

/// Accepting from all listeners.
pub(super) struct Servers {
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    state: Arc<HttpState>,
    /// The next daemon goes on with the same sockets.
    pub outlive_the_daemon: bool,
}

impl Servers {
    pub fn start(
        listeners: Vec<Listener>,
        outlive_the_daemon: bool,
        rpc_socket: Option<(UnixListener, UnixSocketFile)>,
        state: &Arc<HttpState>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for listener in listeners {
            let mut stopped = stopped.clone();
            let shutdown = async move {
                // An error means that the sender has gone, which also means: stop.
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            tasks.spawn(http::serve(listener, Arc::clone(state), shutdown));
        }
        if let Some(socket) = rpc_socket {
            let (state, mut stopped) = (Arc::clone(state), stopped.clone());
            tasks.spawn(async move {
                let shutdown = async {
                    let _ = stopped.wait_for(|stop| *stop).await;
                };
                http::rpc::serve_unix(socket, state, shutdown).await;
            });
        }
        Self {
            tasks,
            stop,
            state: Arc::clone(state),
            outlive_the_daemon,
        }
    }

    /// Accepts nothing more; the connections there are end with the request they are busy with.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Responses in the background end, and tell so.
    pub fn end_background_responses(&self) {
        self.state.end_background_responses();
    }

    /// Runs of the vendor's functions that have not ended by then are told to.
    pub fn cut_off_runs_at(&self, time: Instant) {
        let state = Arc::clone(&self.state);
        tokio::spawn(async move {
            tokio::time::sleep_until(time.into()).await;
            state.cut_off_runs();
        });
    }

    /// Waits for the end of all connections and of the responses in the background, but no longer than `limit`.
    pub async fn ended(&mut self, limit: Duration) -> bool {
        let all = async {
            while self.tasks.join_next().await.is_some() {}
            self.state.background_responses_ended().await;
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }
}

/// The service manager's sockets, in place of those the settings name.
pub(super) fn adopt(sockets: Vec<InheritedSocket>) -> std::io::Result<Vec<Listener>> {
    tracing::info!(
        sockets = sockets.len(),
        "serving the sockets that the service manager passed; `http.listen` is not used"
    );
    sockets
        .into_iter()
        .map(|socket| {
            let listener = match socket {
                InheritedSocket::Tcp(listener) => Listener::tcp(TcpListener::from_std(listener)?),
                InheritedSocket::Unix(listener) => {
                    Listener::unix(UnixListener::from_std(listener)?)
                }
            };
            Ok(listener?.outliving_the_daemon())
        })
        .collect()
}
