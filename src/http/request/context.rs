//! One request from its header to the last byte of its answer. The context lives as long as
//! anything of the request does; when it goes, its connection is free and its log line is written.
//!
//! A request for a generation is counted once, with the first that happens: its generation ended,
//! it failed, or everything that belongs to it was dropped because its client went away.

mod held;
mod outcome;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{Extensions, Method, Request, StatusCode};

use crate::generation::{ClientKey, Completion, ModelId, RequestId};
use crate::http::request::access::{self, Caller};
use crate::http::request::audit::Auditor;
use crate::http::request::id;
use crate::http::request::live::{Abort, LiveRequests};
use crate::http::transport::connection::{ClientBound, InFlight};
use crate::http::transport::socket::Peer;
use crate::memory::{Accountant, Charge};
use crate::telemetry::{Change, Metrics};
use outcome::Outcome;
pub(crate) use outcome::Stage;

pub(crate) struct RequestContext {
    pub id: RequestId,
    /// Whose turn in the queue it takes: the key's, else the peer's.
    pub client: ClientKey,
    pub caller: Caller,
    peer: ClientKey,
    method: Method,
    /// As the client wrote it, cut.
    path: String,
    started: Instant,
    outcome: Mutex<Outcome>,
    /// Where it is listed while it is served, and aborted by an administrator.
    live: Arc<LiveRequests>,
    pub abort: Abort,
    /// What the request holds of the memory for requests.
    memory: Mutex<Charge>,
    /// While this is held the connection watches for a client that goes away.
    in_flight: InFlight,
}

/// A request as administrators see it. Never what it asks.
pub(crate) struct LiveView {
    pub id: RequestId,
    pub key: Option<String>,
    pub client: String,
    pub path: String,
    pub model: Option<ModelId>,
    pub stage: Stage,
    pub age: Duration,
    /// How long it has been in its stage.
    pub stage_age: Duration,
}

impl RequestContext {
    pub fn begin<B>(
        request: &Request<B>,
        asked_for: String,
        (peer, caller): (Peer, Caller),
        (accountant, live): (&Accountant, &Arc<LiveRequests>),
        in_flight: InFlight,
    ) -> Arc<Self> {
        let peer = peer.client();
        let client = match caller.key() {
            Some(key) => key.client(),
            None => peer.clone(),
        };
        let path = request.uri().path();
        // A client that has used up its share is still told what the daemon does.
        let payer = match access::is_watching(path) {
            true => ClientKey::new("the daemon's own pages"),
            false => client.clone(),
        };
        let account = accountant.account(payer, caller.standing(path));
        Arc::new(Self {
            memory: Mutex::new(account.open()),
            id: id::for_request(request.uri()),
            client,
            caller,
            peer,
            method: request.method().clone(),
            path: asked_for,
            started: Instant::now(),
            outcome: Mutex::default(),
            live: Arc::clone(live),
            abort: Abort::default(),
            in_flight,
        })
    }

    /// The router puts a context into every request, so a handler always finds one.
    pub fn of(extensions: &Extensions) -> Arc<Self> {
        extensions
            .get::<Arc<Self>>()
            .cloned()
            .expect("every request passes the router, which adds its context")
    }

    /// The same request without its connection, for an answer that goes on when its client has left. From now on
    /// it is that one which is counted, listed and charged.
    pub fn in_background(&self) -> Arc<Self> {
        let outcome = {
            let mut own = self.outcome();
            own.ended = true;
            Outcome {
                // Its client has had its answer; what becomes of the response is told by its end.
                status: Some(StatusCode::OK),
                uncounted: own.uncounted.take(),
                changes: own.changes.take(),
                model: own.model.clone(),
                ..Outcome::default()
            }
        };
        let held = self.held();
        let context = Arc::new(Self {
            id: self.id.clone(),
            client: self.client.clone(),
            caller: self.caller.clone(),
            peer: self.peer.clone(),
            method: self.method.clone(),
            path: self.path.clone(),
            started: self.started,
            outcome: Mutex::new(outcome),
            live: Arc::clone(&self.live),
            abort: Abort::default(),
            memory: Mutex::new(self.memory().split(held)),
            in_flight: InFlight::without_connection(),
        });
        context.live.add(&context);
        context
    }

    /// A request of the same client that came on a connection which this one has opened. `memory` is what is charged
    /// for it already.
    pub fn another(&self, memory: Charge) -> Arc<Self> {
        Arc::new(Self {
            id: id::for_a_message(),
            client: self.client.clone(),
            caller: self.caller.clone(),
            peer: self.peer.clone(),
            method: self.method.clone(),
            path: self.path.clone(),
            started: Instant::now(),
            outcome: Mutex::default(),
            live: Arc::clone(&self.live),
            abort: Abort::default(),
            memory: Mutex::new(memory),
            in_flight: InFlight::without_connection(),
        })
    }

    /// When its header had arrived.
    pub fn arrived(&self) -> Instant {
        self.started
    }

    pub fn answered(&self, status: StatusCode) {
        self.update(|outcome| outcome.status = Some(status));
    }

    /// The request asks for a generation, so it is counted when it ends, and ends with its client. Until then
    /// administrators see it.
    pub fn is_generation(self: &Arc<Self>, metrics: &Metrics) {
        self.in_flight.client_bound().bind();
        self.update(|outcome| {
            outcome.uncounted = Some(metrics.clone());
            outcome.changes = Some(metrics.changes().clone());
        });
        self.live.add(self);
        metrics.changes().tell(|| Change::RequestBegan {
            request: Arc::clone(&self.id.0),
            path: self.path.clone(),
            key: self.key_name(),
        });
    }

    /// Who asks, as administrators name them.
    pub fn key_name(&self) -> Option<String> {
        self.caller.key().map(|key| key.name.to_string())
    }

    pub fn view(&self) -> LiveView {
        let outcome = self.outcome();
        let age = self.started.elapsed();
        LiveView {
            id: self.id.clone(),
            key: self.key_name(),
            client: self.peer.name().to_owned(),
            path: self.path.clone(),
            model: outcome.model.clone(),
            stage: outcome.stage,
            age,
            stage_age: outcome.stage_since.map_or(age, |since| since.elapsed()),
        }
    }

    /// Writes down what an administrator has changed.
    pub fn audit(&self, did: &'static str, what: &str) {
        self.auditor().tell(did, what);
    }

    /// For a change that may take longer than the request.
    pub fn auditor(&self) -> Auditor {
        Auditor {
            request: self.id.clone(),
            peer: self.peer.clone(),
            key: self.key_name(),
        }
    }

    /// For a request that may turn out to be a generation.
    pub fn client_bound(&self) -> &ClientBound {
        self.in_flight.client_bound()
    }

    pub fn for_model(&self, model: &ModelId) {
        self.update(|outcome| outcome.model = Some(model.clone()));
    }

    /// The request entered the queue.
    pub fn submitted(&self) {
        self.update(|outcome| {
            outcome.queued_since = Some(Instant::now());
            outcome.enter(Stage::Waiting);
        });
        self.tell(|request, model| Change::RequestWaits { request, model });
    }

    /// The request waits from now on, and is served in turns.
    pub fn takes_turns(&self) {
        self.update(|outcome| outcome.enter(Stage::InTurns));
        self.tell(|request, model| Change::RequestWaits { request, model });
    }

    /// The request was handed to a worker.
    pub fn run_started(&self) {
        let mut is_first = false;
        self.update(|outcome| {
            if let Some(since) = outcome.queued_since.take()
                && let Some(metrics) = &outcome.uncounted
            {
                metrics.queue_wait(outcome.model_label(), since.elapsed().as_secs_f64());
            }
            is_first = outcome.stage != Stage::Running;
            if is_first {
                outcome.enter(Stage::Running);
            }
        });
        if is_first {
            self.tell(|request, model| Change::RequestRuns { request, model });
        }
    }

    pub fn is_running(&self) -> bool {
        self.outcome().stage == Stage::Running
    }

    /// Tells those who follow where it is now, if it is listed.
    fn tell(&self, change: impl FnOnce(Arc<str>, Option<ModelId>) -> Change) {
        let outcome = self.outcome();
        if let Some(changes) = &outcome.changes {
            changes.tell(|| change(Arc::clone(&self.id.0), outcome.model.clone()));
        }
    }

    /// The answer's first text is there.
    pub fn first_text(&self) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.update(|outcome| {
            if let Some(metrics) = &outcome.uncounted {
                metrics.time_to_first_token(outcome.model_label(), seconds);
            }
        });
    }

    /// The generation ended well.
    pub fn completed(&self, completion: &Completion) {
        self.update(|outcome| {
            outcome.ended = true;
            outcome.prompt_tokens = completion.usage.map(|usage| usage.prompt_tokens);
            outcome.completion_tokens = completion.timings.predicted_n;
            if let Some(metrics) = outcome.count("complete") {
                let known = |tokens: Option<u32>| tokens.map_or(0, u64::from);
                metrics.tokens(
                    outcome.model_label(),
                    known(outcome.prompt_tokens),
                    known(outcome.completion_tokens),
                );
            }
        });
    }

    /// Embeddings were answered; `prompt_tokens` were evaluated for them.
    pub fn embedded(&self, prompt_tokens: Option<u32>) {
        self.update(|outcome| {
            outcome.ended = true;
            outcome.prompt_tokens = prompt_tokens;
            if let Some(metrics) = outcome.count("complete") {
                metrics.tokens(outcome.model_label(), prompt_tokens.map_or(0, u64::from), 0);
            }
        });
    }

    /// A request that asked for no generation was answered.
    pub fn ended(&self) {
        self.update(|outcome| outcome.ended = true);
    }

    /// The generation failed; `code` is the error's stable code.
    pub fn failed(&self, code: &'static str) {
        self.update(|outcome| {
            outcome.ended = true;
            outcome.error = Some(code);
            outcome.count(code);
        });
    }

    fn update(&self, change: impl FnOnce(&mut Outcome)) {
        change(&mut self.outcome());
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RequestContext {
    fn drop(&mut self) {
        let outcome = self
            .outcome
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        outcome.count("cancelled");
        if let Some(changes) = &outcome.changes {
            self.live.remove(&self.id);
            changes.tell(|| Change::RequestEnded {
                request: Arc::clone(&self.id.0),
                model: outcome.model.clone(),
                status: outcome.status.map(|status| status.as_u16()),
                error: outcome.error,
            });
        }
        // No status: the connection went before there was an answer. A model but no end: the answer
        // was under way.
        let cut_short = outcome.status.is_none()
            || (outcome.status == Some(StatusCode::OK)
                && outcome.model.is_some()
                && !outcome.ended);
        tracing::info!(
            request = %self.id,
            client = %self.peer.name(),
            key = self.caller.key().map(|key| key.name.to_string()),
            method = %self.method,
            path = %self.path,
            status = outcome.status.map(|status| status.as_u16()),
            model = outcome.model.as_deref(),
            prompt_tokens = outcome.prompt_tokens,
            completion_tokens = outcome.completion_tokens,
            error = outcome.error,
            duration_ms = self.started.elapsed().as_millis() as u64,
            "{}",
            if cut_short { "client went away" } else { "answered" },
        );
    }
}
