//! Composition root: builds the layers bottom up, runs them, drains them.

mod control;
mod engine;
mod first_look;
mod listening;
mod observers;
mod reload;
mod servers;
mod state_lock;
mod variants;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::admission::Admission;
use crate::auth::{ApiKey, CurrentKeys, Keyring, KeysFile, KeysWatch, SealingKey};
use crate::board::{BoardWatch, Sysroot};
use crate::descriptor_limit;
use crate::http::{self, HttpState, Listener, UnixSocketFile};
use crate::hub::Pulls;
use crate::reader::Readers;
use crate::service_manager::{self, Notifier};
use crate::settings::{HttpSettings, RpcSettings, Settings};
use crate::short_slice;
use crate::supervisor::{self, RunServices, Supervisor};
use crate::telemetry::Metrics;
pub use control::{
    Applied, LOADED, LoadedModels, RELOAD, RESCAN, ReloadOutcome, RescanOutcome, UNLOAD,
    UnloadOutcome, socket_path as control_socket_path,
};
use engine::LocalEngine;
use first_look::{first_look, preload};
use listening::{BACKLOG, bind};
pub use reload::SettingsSource;
use reload::{Asked, Reloader, reload_until};
use servers::Servers;
pub use state_lock::StateFolderError;
use state_lock::StateLock;
use variants::Served;

/// Threads that serve sockets. Generation happens in the workers; this side waits.
const ASYNC_THREADS: usize = 2;
/// The time of a step of the shutdown after the answers: ending the runs that were cut off, unloading,
/// last bytes. At the least, so that readers are told also where no time is granted.
const LONGEST_STEP: Duration = Duration::from_secs(2);
const SHORTEST_STEP: Duration = Duration::from_millis(100);
/// What an orderly end takes at most beyond its deadline.
const STOP_SLACK: Duration = Duration::from_secs(10);

/// Runs the daemon until SIGTERM or SIGINT.
pub fn run(settings: Settings, source: SettingsSource) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(ASYNC_THREADS)
        .thread_name("serve")
        // Beside a worker that computes on all processors a token waits for these.
        .on_thread_start(short_slice::ask)
        .enable_all()
        .build()
        .context("starting the async runtime")?;
    let result = runtime.block_on(serve(settings, source));
    // Blocking work that is still going on, such as a template being rendered, is not waited for.
    runtime.shutdown_background();
    result
}

async fn serve(settings: Settings, source: SettingsSource) -> anyhow::Result<()> {
    descriptor_limit::raise();
    // Before anything of another daemon's could be taken from it, and until nothing is left to write.
    let state_folder = StateLock::take(&settings)?;
    if state_folder.is_some() {
        supervisor::remove_unfinished_prompt_caches(&settings.library.state_dir);
    }
    let mut signals = ShutdownSignals::listen().context("listening for signals")?;
    let hangup = signal(SignalKind::hangup()).context("listening for signals")?;
    // Before anything says that the daemon listens.
    let rpc_socket = bind_rpc_socket(&settings.rpc)?;
    let notifier = Notifier::start().context("starting to notify the service manager")?;
    let keys =
        KeysWatch::start(KeysFile::new(&settings.http.keys_file)).context("reading the keys")?;
    let sockets = service_manager::take_sockets()?;
    let inherited = !sockets.is_empty();
    let mut listeners = if inherited {
        servers::adopt(sockets).context("serving the service manager's sockets")?
    } else {
        bind(&settings.http.listen)?
    };
    let mut socket_file = None;
    if let Some(path) = &settings.http.unix_socket {
        let (listener, file) = bind_unix(path, &settings.http)?;
        listeners.push(listener);
        socket_file = Some(file);
    }
    let addresses: Vec<_> = listeners.iter().map(Listener::address).collect();
    http::check_exposure(&addresses, &settings.http, &keys.current())?;
    for address in &addresses {
        tracing::info!(%address, "listening");
    }
    observers::tell_confinement(&settings);
    let metrics = Metrics::new();
    let readers =
        Readers::start(&settings, metrics.clone()).context("starting to read the models")?;
    // A folder that hangs does not keep the daemon from ending.
    let (catalog, unread) = tokio::select! {
        looked = first_look(&settings, &readers) => looked?,
        () = signals.received() => {
            tracing::info!("stopped before the models were read");
            return Ok(());
        }
    };
    let catalog = Arc::new(catalog);
    let pulse = notifier.watchdog();
    let services = (metrics.clone(), &readers);
    let (supervisor, status) = Supervisor::start(&settings, &catalog, services, pulse)
        .context("starting the supervisor")?;
    if unread.is_none() {
        supervisor.prefixes().keep_models(&catalog);
    }
    let admission = Admission::start(
        RunServices {
            supervisor: supervisor.clone(),
            readers: readers.clone(),
            metrics: metrics.clone(),
        },
        catalog.models().iter().map(|model| model.id.clone()),
        settings.queue.clone(),
    );
    preload(&settings, &catalog, &supervisor);
    let (installed, to_be_served) = mpsc::channel(1);
    let board = BoardWatch::start(Sysroot::new(&settings.board.root), settings.board.interval);
    tokio::spawn(observers::tell_keys(
        keys.current(),
        metrics.changes().clone(),
    ));
    tokio::spawn(observers::tell_log_loss(metrics.changes().clone()));
    let running = watch::Sender::new(Arc::new(settings.clone()));
    let engine = LocalEngine::new(
        admission.clone(),
        readers,
        Served::open(&settings, catalog),
        status.clone(),
        metrics,
        supervisor.clone(),
    );
    let engine = engine.watching(board.clone());
    let engine = Arc::new(engine.with_pulls(Pulls::new(&settings, installed)));
    let kept_in = state_folder.as_ref().map(|_| &*settings.library.state_dir);
    let state = HttpState::new(Arc::clone(&engine) as _, keys.current(), &settings);
    let state = state.sealing_with(SealingKey::kept_in(kept_in));
    let state = state.keeping_responses_in(kept_in, &settings);
    let state = Arc::new(state.with_doctor(observers::examination(&running)));
    tokio::spawn(forget_revoked(
        keys.current(),
        supervisor.clone(),
        Arc::clone(&state),
    ));
    let mut servers = Servers::start(listeners, inherited, rpc_socket, &state);
    supervisor.answers().await;
    // Before the service manager may ask for a reload.
    let (requests, asked) = mpsc::channel(1);
    let control = control::listen(&control::socket_path(), requests, Arc::clone(&engine));
    notifier.ready();
    crate::memory::allocator::release_code();
    let queues = admission.clone();
    let followed = keys.current();
    let told = service_manager::report_status(
        notifier.clone(),
        status,
        move |model| queues.queue(model),
        move || (followed.trouble(), board.latest()),
    );
    tokio::spawn(told);
    let mut reloader = Reloader {
        source,
        settings,
        running,
        binds_listen: !inherited,
        engine,
        supervisor: supervisor.clone(),
        unread,
    };
    let asked = Asked {
        hangup,
        requests: asked,
        to_be_served,
    };
    reload_until(signals.received(), &mut reloader, &notifier, asked).await;
    let settings = reloader.settings;
    notifier.stopping(time_to_stop(&settings));
    drain(
        &settings,
        &admission,
        &supervisor,
        &mut servers,
        &mut signals,
    )
    .await;
    drop((socket_file, control, state_folder));
    tracing::info!("stopped");
    Ok(())
}

/// What is kept of a key's conversations goes with it.
async fn forget_revoked(keys: CurrentKeys, supervisor: Supervisor, state: Arc<HttpState>) {
    let forget = |keyring: &Keyring| {
        let names = keyring.keys().map(ApiKey::client_name).collect();
        supervisor.prefixes().keep_keys(&names);
        state.keep_keys(&names);
    };
    keys.follow(forget).await;
}

/// The longest time from the first signal to the end of the process.
fn time_to_stop(settings: &Settings) -> Duration {
    settings.deadlines.drain + STOP_SLACK
}

/// No new work; running answers may finish until the drain deadline; then the workers end. A second
/// signal skips the rest.
async fn drain(
    settings: &Settings,
    admission: &Admission,
    supervisor: &Supervisor,
    servers: &mut Servers,
    signals: &mut ShutdownSignals,
) {
    let limit = settings.deadlines.drain;
    tracing::info!(
        limit_s = limit.as_secs(),
        "shutting down: waiting for running answers"
    );
    let until = Instant::now() + limit;
    // Kept back for what comes after the answers: ending runs, unloading, last bytes.
    let step = (limit / 9).clamp(SHORTEST_STEP, LONGEST_STEP);
    // No client needs to wait for one, and none could ask for it afterwards.
    servers.end_background_responses();
    servers.cut_off_runs_at(until.checked_sub(3 * step).unwrap_or(until));
    let orderly = async {
        let mut left_for_answers = limit;
        if servers.outlive_the_daemon {
            // An accepted client is served: the next daemon cannot do it, and a refusal would lose a
            // connection. The rest of the time is for telling the clients that cannot be served.
            servers.stop();
            servers.ended(limit.saturating_sub(4 * step)).await;
            left_for_answers = until.saturating_duration_since(Instant::now());
        }
        let answers = left_for_answers.saturating_sub(3 * step);
        if !admission.drain(answers, step).await {
            tracing::warn!("the `drain` deadline passed; running answers are cut off");
        }
        servers.stop();
        let left = until.saturating_duration_since(Instant::now());
        if !supervisor.shut_down(left.saturating_sub(step)).await {
            tracing::warn!("workers are still ending; they are killed with the daemon");
        }
        servers.ended(step).await;
    };
    tokio::select! {
        () = orderly => {}
        () = signals.received() => tracing::warn!("second signal: stopping at once"),
    }
}

struct ShutdownSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl ShutdownSignals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn bind_rpc_socket(
    settings: &RpcSettings,
) -> anyhow::Result<Option<(tokio::net::UnixListener, UnixSocketFile)>> {
    let Some(path) = &settings.unix_socket else {
        return Ok(None);
    };
    let (mode, group) = (
        settings.unix_socket_mode,
        settings.unix_socket_group.as_deref(),
    );
    let socket = http::bind_unix(path, mode, group, BACKLOG)
        .with_context(|| format!("listening on {}", path.display()))?;
    tracing::info!(path = %path.display(), "JSON-RPC on a socket");
    Ok(Some(socket))
}

fn bind_unix(path: &Path, settings: &HttpSettings) -> anyhow::Result<(Listener, UnixSocketFile)> {
    let (mode, group) = (
        settings.unix_socket_mode,
        settings.unix_socket_group.as_deref(),
    );
    let (listener, file) = http::bind_unix(path, mode, group, BACKLOG)
        .with_context(|| format!("listening on {}", path.display()))?;
    let listener = Listener::unix(listener).context("reading the bound path")?;
    Ok((listener, file))
}
