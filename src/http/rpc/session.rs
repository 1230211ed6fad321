//! What one connection, or one request over plain HTTP, may use, and how its messages are answered.
//! When it is dropped its runs are aborted; a connection's handles go with it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use tokio::task::JoinSet;

use super::Rpc;
use super::handles::{InUse, Owner};
use super::methods;
use super::notifications::Notifications;
use super::outbound::Outbound;
use super::outgoing::{OVERHEAD_BYTES, Outgoing};
use super::protocol::{Call, Entry, ErrorKind, Message, Params, Reply, RpcError, parse};
use crate::aside::aside;
use crate::http::request::access::Caller;
use crate::http::request::context::RequestContext;
use crate::http::request::json_weight;
use crate::http::transport::connection::ClientBound;
use crate::http::transport::messages::ChargedText;
use crate::memory::{Account, Charge};
use crate::models::InstalledModel;

/// What is charged for the answer to a message beforehand: errors and small results want no memory when
/// there is none.
const ANSWER_BYTES: usize = 8 * 1024;

/// Work that begins once the answer to its call is sent.
pub(super) type Afterwards = BoxFuture<'static, ()>;

/// What a message leads to.
#[must_use]
pub(super) struct Answered {
    /// Nothing when the message held only notifications.
    pub message: Option<Outbound>,
    pub afterwards: Vec<Afterwards>,
}

impl Answered {
    fn of(text: String) -> Self {
        Self {
            message: Some(text.into()),
            afterwards: Vec::new(),
        }
    }
}

pub(super) struct Session {
    pub rpc: Arc<Rpc>,
    pub owner: Owner,
    /// Whose key opened the door, and which models it may use.
    pub caller: Caller,
    /// Of a request, which ends with its client once it runs a model; a connection is watched anyhow.
    client_bound: Option<ClientBound>,
    /// Where what is made of messages is charged.
    pub account: Account,
    /// Where notifications go; `None`: the transport has no way for them.
    notifications: Option<Outgoing>,
    /// Runs that were started and answered at once.
    background: Mutex<JoinSet<()>>,
    held_bytes: Arc<AtomicUsize>,
}

/// Bytes of a client's message that are in memory until this is dropped.
pub(super) struct Held {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Session {
    /// That of a connection.
    pub fn of_connection(rpc: &Arc<Rpc>, caller: Caller, outgoing: Outgoing) -> Self {
        let owner = Owner::Connection(rpc.connection_number());
        let account = outgoing.account().clone();
        Self::new(rpc, owner, (caller, account), (None, Some(outgoing)))
    }

    /// That of one request.
    pub fn of_request(
        rpc: &Arc<Rpc>,
        context: &RequestContext,
        outgoing: Option<Outgoing>,
    ) -> Self {
        let owner = Owner::Client(context.client.clone());
        let bound = Some(context.client_bound().clone());
        let caller = (context.caller.clone(), context.account());
        Self::new(rpc, owner, caller, (bound, outgoing))
    }

    fn new(
        rpc: &Arc<Rpc>,
        owner: Owner,
        (caller, account): (Caller, Account),
        (client_bound, notifications): (Option<ClientBound>, Option<Outgoing>),
    ) -> Self {
        Self {
            rpc: Arc::clone(rpc),
            owner,
            caller,
            client_bound,
            account,
            notifications,
            background: Mutex::default(),
            held_bytes: Arc::default(),
        }
    }

    /// A model runs for the session's client, and ends when that has left.
    pub fn runs_a_model(&self) {
        if let Some(bound) = &self.client_bound {
            bound.bind();
        }
    }

    /// Counts bytes of a message among those the client's messages hold.
    pub fn hold(&self, bytes: usize) -> Held {
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        Held {
            bytes,
            all: Arc::clone(&self.held_bytes),
        }
    }

    pub fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Charges what is made of a message, and its answer as far as that is small.
    pub fn charge_for(&self, message: &[u8]) -> Result<Charge, RpcError> {
        // The text of the parameters, and what is made of it, are there at the same time.
        let weight = aside(message.len(), || json_weight::of(message));
        let charge = self.account.charge(message.len() + weight + ANSWER_BYTES);
        charge.map_err(RpcError::of_budget)
    }

    /// Answers a message for which `made_of_it` is charged. The calls of a batch are made one after
    /// the other, and no more of them once there is no memory for the answer.
    pub async fn answer(&self, text: ChargedText, mut made_of_it: Charge) -> Answered {
        let read = self.entries(&text.text);
        // A call may take long, and its message may be large.
        drop(text);
        let (mut reply, entries) = match read {
            Ok(parts) => parts,
            Err(error) => return Answered::of(Reply::error(&error)),
        };
        let mut charge = made_of_it.split(ANSWER_BYTES);
        let most = self.rpc.settings.batch_answer_limit_bytes;
        let mut over = None;
        let mut afterwards = Vec::new();
        for entry in entries {
            // What an earlier call of the batch began goes on now: this one may wait for its end.
            self.in_background(std::mem::take(&mut afterwards));
            match entry {
                Entry::Invalid { id, error } => reply.add(Some(&id), Err(&error)),
                Entry::Call(Call {
                    id: Some(id),
                    method,
                    ..
                }) if reply.len() > most => {
                    let error = batch_too_large(most);
                    methods::refused(self, &method, &error);
                    reply.add(Some(&id), Err(&error));
                }
                Entry::Call(Call { id, method, params }) => {
                    let made = match over {
                        None => {
                            let answer = (&mut charge, &mut afterwards);
                            methods::call(self, answer, &method, params).await
                        }
                        Some(over) => {
                            let error = RpcError::of_budget(over);
                            methods::refused(self, &method, &error);
                            Err(error)
                        }
                    };
                    match made {
                        Ok(result) => reply.add(id.as_ref(), Ok(result)),
                        Err(error) => reply.add(id.as_ref(), Err(&error)),
                    }
                }
            }
            over = over.or(charge.grow_to(reply.held_bytes()).err());
        }
        let held = reply.held_bytes() + OVERHEAD_BYTES;
        let message = reply.finish();
        charge.absorb(made_of_it);
        charge.shrink_to(held);
        Answered {
            message: message.map(|message| message.charged(charge)),
            afterwards,
        }
    }

    /// Answers the only message of a request.
    pub async fn answer_or_refuse(&self, text: ChargedText) -> Answered {
        match self.charge_for(&text.text) {
            Ok(charge) => self.answer(text, charge).await,
            Err(error) => Answered {
                message: self.refuse(text, &error),
                afterwards: Vec::new(),
            },
        }
    }

    /// The answer to a message of which nothing is done. What is charged for the message is charged for
    /// it.
    pub fn refuse(&self, text: ChargedText, error: &RpcError) -> Option<Outbound> {
        let ChargedText { text, charge } = text;
        let (mut reply, entries) = match self.entries(&text) {
            Ok(parts) => parts,
            Err(error) => return Some(Reply::error(&error).into()),
        };
        for entry in entries {
            match entry {
                Entry::Invalid { id, error } => reply.add(Some(&id), Err(&error)),
                Entry::Call(call) => {
                    methods::refused(self, &call.method, error);
                    reply.add(call.id.as_ref(), Err(error));
                }
            }
        }
        reply.finish().map(|message| message.charged(charge))
    }

    fn entries(&self, text: &[u8]) -> Result<(Reply, Vec<Entry>), RpcError> {
        let message = aside(text.len(), || parse(text, self.rpc.settings.batch_limit))?;
        Ok(match message {
            Message::One(entry) => (Reply::to_one(), vec![entry]),
            Message::Batch(entries) => (Reply::to_batch(), entries),
        })
    }

    /// The caller's handle of that name, for the length of a call.
    ///
    /// # Errors
    ///
    /// It is not the caller's, or its model is not any more.
    pub fn handle(&self, name: &str) -> Result<InUse, RpcError> {
        let handle = self.rpc.handles.get(name, &self.owner)?;
        let catalog = self.rpc.engine.catalog();
        let id = handle.model();
        let allowed = match catalog.find(id) {
            Some(model) => self.caller.check_model(model),
            // Not installed any more; its aliases went with it.
            None => self.caller.check_model(&InstalledModel {
                id: id.clone(),
                ..InstalledModel::default()
            }),
        };
        match allowed {
            Ok(()) => Ok(handle),
            Err(error) => Err(RpcError::new(ErrorKind::ModelNotAllowed, error.to_string())),
        }
    }

    /// Whether a run's callbacks are sent unless its call says otherwise: an event stream was asked
    /// for just that.
    pub fn streams_by_default(&self) -> bool {
        self.notifications.is_some() && matches!(self.owner, Owner::Client(_))
    }

    /// Where this session's notifications go.
    ///
    /// # Errors
    ///
    /// `needs_notifications` when the transport cannot carry any.
    pub fn notifications(&self) -> Result<Notifications, RpcError> {
        let outgoing = self.notifications.clone().ok_or_else(|| {
            RpcError::new(
                ErrorKind::NeedsNotifications,
                "a plain answer carries no notifications: ask with `Accept: text/event-stream`, or \
                 use the WebSocket or the Unix socket",
            )
        })?;
        Ok(Notifications(outgoing))
    }

    /// Where the tensors of the client's runs are charged.
    pub fn tensors(&self) -> Account {
        self.account.with(&self.rpc.tensors)
    }

    /// Whether one more run may be answered before it ends.
    ///
    /// # Errors
    ///
    /// `limit_reached`.
    pub fn one_more_in_background(&self) -> Result<(), RpcError> {
        let most = self.rpc.settings.max_calls;
        let mut tasks = self
            .background
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        if tasks.len() < most {
            return Ok(());
        }
        Err(RpcError::new(
            ErrorKind::LimitReached,
            format!("{most} runs have not ended (rpc.max-calls)"),
        ))
    }

    /// Lets work run beside the session's calls, and no longer than the session.
    pub fn in_background(&self, work: Vec<Afterwards>) {
        let mut tasks = self
            .background
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        for task in work {
            tasks.spawn(task);
        }
    }

    /// Waits for the tasks in the background.
    pub async fn finish(&self) {
        let mut tasks = std::mem::take(
            &mut *self
                .background
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        while tasks.join_next().await.is_some() {}
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !matches!(self.owner, Owner::Connection(_)) {
            return;
        }
        let background = self.background.get_mut();
        let mut background = std::mem::take(background.unwrap_or_else(PoisonError::into_inner));
        let (rpc, owner) = (Arc::clone(&self.rpc), self.owner.clone());
        let go = move || rpc.handles.remove_all_of(&owner);
        // A runtime that ends takes all of it along.
        let runtime = tokio::runtime::Handle::try_current().ok();
        let Some(runtime) = runtime.filter(|_| !background.is_empty()) else {
            return go();
        };
        // Runs first: one that saw its handle go would have failed, and not been cancelled. A task ends at once, but
        // for what it is computing.
        runtime.spawn(async move {
            background.shutdown().await;
            go();
        });
    }
}

fn batch_too_large(most: usize) -> RpcError {
    RpcError::new(
        ErrorKind::TooLarge,
        format!(
            "the answers of this batch have more than {most} bytes already \
             (rpc.batch-answer-limit-bytes); make the call in a message of its own"
        ),
    )
    .with("limit_bytes", most)
}

/// Reads parameters as a method's type.
pub(super) fn read<T: serde::de::DeserializeOwned>(
    params: &Params,
    names: &[String],
) -> Result<T, RpcError> {
    aside(params.len(), || params.read(names))
}
