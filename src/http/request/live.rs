//! The requests that models serve now, for administrators, who may abort each. A stream looks at one flag when it is
//! polled, and where it has nothing to send it leaves its waker, which is copied only where it is another one.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use crate::generation::RequestId;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::live_run::LiveRun;

/// Whether a request is to end before its answer does: an administrator has aborted it, or, in the background, whatever
/// else ends it. One task at a time waits for it: the router's until there is an answer, and then the connection's; in the
/// background its own.
#[derive(Debug, Default)]
pub(crate) struct Abort {
    why: OnceLock<RequestError>,
    waiting: AtomicWaker,
}

impl Abort {
    /// The first reason stays.
    pub fn set(&self, why: RequestError) {
        let _ = self.why.set(why);
        self.waiting.wake();
    }

    pub fn is_wanted(&self) -> bool {
        self.why.get().is_some()
    }

    /// What its client is told.
    pub fn why(&self) -> RequestError {
        self.why.get().cloned().unwrap_or(RequestError::Aborted)
    }

    pub fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        self.waiting.register(cx.waker());
        // After that, so that none falls between the two.
        match self.is_wanted() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    pub async fn wanted(&self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}

/// Those of all listeners, and the runs of JSON-RPC's handles.
#[derive(Default)]
pub(crate) struct LiveRequests {
    requests: Mutex<HashMap<RequestId, Weak<RequestContext>>>,
    runs: Mutex<HashMap<RequestId, Weak<LiveRun>>>,
}

/// What was aborted.
pub(crate) enum AbortedOne {
    Request(Arc<RequestContext>),
    Run(Arc<LiveRun>),
}

impl LiveRequests {
    pub fn add(&self, context: &Arc<RequestContext>) {
        let weak = Arc::downgrade(context);
        self.lock().insert(context.id.clone(), weak);
    }

    pub fn remove(&self, id: &RequestId) {
        self.lock().remove(id);
    }

    /// The oldest one first.
    pub fn all(&self) -> Vec<Arc<RequestContext>> {
        // The last to hold one removes it from the list, which is not to be locked then.
        let all = self.lock().values().cloned().collect::<Vec<_>>();
        let all = all.iter().filter_map(Weak::upgrade);
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|context| context.arrived());
        all
    }

    pub fn add_run(&self, run: &Arc<LiveRun>) {
        let weak = Arc::downgrade(run);
        self.lock_runs().insert(run.id.clone(), weak);
    }

    pub fn remove_run(&self, id: &RequestId) {
        self.lock_runs().remove(id);
    }

    pub fn all_runs(&self) -> Vec<Arc<LiveRun>> {
        // As with requests.
        let all = self.lock_runs().values().cloned().collect::<Vec<_>>();
        all.iter().filter_map(Weak::upgrade).collect()
    }

    /// Aborts a request or a run. `None`: none of this id is served now.
    pub fn abort(&self, id: &str) -> Option<AbortedOne> {
        let id = RequestId(id.into());
        let run = self.lock_runs().get(&id).cloned();
        if let Some(run) = run.and_then(|run| run.upgrade()) {
            run.abort.set(RequestError::Aborted);
            return Some(AbortedOne::Run(run));
        }
        let known = self.lock().get(&id).cloned();
        let context = known?.upgrade()?;
        context.abort.set(RequestError::Aborted);
        Some(AbortedOne::Request(context))
    }

    fn lock_runs(&self) -> MutexGuard<'_, HashMap<RequestId, Weak<LiveRun>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RequestId, Weak<RequestContext>>> {
        // Whole after every statement.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_abort_is_seen_before_and_while_it_is_waited_for() {
        let abort = Arc::new(Abort::default());
        assert!(!abort.is_wanted());
        let waiting = Arc::clone(&abort);
        let (ready, begun) = tokio::sync::oneshot::channel();
        let waits = tokio::spawn(async move {
            let mut ready = Some(ready);
            poll_fn(|cx| {
                let polled = waiting.poll(cx);
                if let Some(ready) = ready.take() {
                    ready.send(()).expect("the test waits");
                }
                polled
            })
            .await;
        });
        begun.await.expect("it waits");
        abort.set(RequestError::Aborted);
        waits.await.expect("it was woken");
        abort.wanted().await;
    }
}
