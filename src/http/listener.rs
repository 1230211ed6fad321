//! The accept loop. It never spins: with all connections taken it leaves clients in the kernel's
//! backlog, and after an error of its own (no descriptors left) it pauses. When it returns, none of
//! its connections is left.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;

use super::router::Routes;
use super::{HttpState, connection};

/// How long accepting rests after an error that the next attempt would meet again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves one listener until `shutdown` resolves; then the requests under way get the drain
/// deadline to end. May be called for several listeners with the same state.
pub async fn serve(
    listener: TcpListener,
    state: Arc<HttpState>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    let routes = Routes::new(Arc::clone(&state));
    let (close, closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => report_panic(ended),
            (stream, permit) = accept(&listener, &state) => {
                let (state, routes, closing) = (Arc::clone(&state), routes.clone(), closing.clone());
                connections.spawn(async move {
                    connection::serve(stream, state, routes, closing).await;
                    drop(permit);
                });
            }
        }
    }
    drop(listener);
    close.send_replace(true);
    let drained = tokio::time::timeout(state.drain, async {
        while let Some(ended) = connections.join_next().await {
            report_panic(ended);
        }
    })
    .await;
    if drained.is_err() {
        tracing::warn!(%address, open = connections.len(), "drain deadline passed, closing connections");
        connections.shutdown().await;
    }
    Ok(())
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

/// The next connection, with its place among `max-connections`.
async fn accept(listener: &TcpListener, state: &HttpState) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let permit = Arc::clone(&state.connections)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            // The client gave up between its SYN and our accept.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
