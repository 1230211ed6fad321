//! Which handle is whose. A handle's name is 128 random bits; it is found only by the owner it was
//! opened for, and goes with its connection, with `rkllm.destroy` or when it was idle for too long.
//! Dropping the last reference destroys the model behind it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::ClientId;
use super::protocol::{ErrorKind, RpcError};
use crate::chat::ContextLimit;
use crate::library_calls::{LibraryError, RunRequest};
use crate::memory::{Account, Charge};
use crate::supervisor::{LibraryHandle, RunStream};

/// Whom a handle belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// It dies with this connection.
    Connection(u64),
    /// Over plain HTTP: each request is a connection of its own.
    Client(ClientId),
}

pub(super) struct HandleTable {
    state: Mutex<State>,
    limit: usize,
    idle_timeout: Duration,
    randomness: Randomness,
}

/// Fills the bytes, or says why it cannot.
type Randomness = fn(&mut [u8]) -> Result<(), getrandom::Error>;

#[derive(Default)]
struct State {
    handles: HashMap<String, Entry>,
    /// Handles of each owner, those that are being opened included.
    places: HashMap<Owner, usize>,
}

struct Entry {
    handle: Arc<LibraryHandle>,
    /// One permit: calls are made one after the other.
    permits: Arc<Semaphore>,
    owner: Owner,
    /// For the parameters that each of its workers is loaded with.
    _charge: Charge,
    /// Calls that use it now.
    in_use: usize,
    last_used: Instant,
    expiry: AbortHandle,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.expiry.abort();
    }
}

impl HandleTable {
    /// `limit`: handles of one owner.
    pub fn new(limit: usize, idle_timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            limit,
            idle_timeout,
            randomness: getrandom::fill,
        })
    }

    /// A place for a handle that is about to be opened, and its name: no model is loaded for a
    /// handle that could not be named.
    pub fn reserve(self: &Arc<Self>, owner: &Owner) -> Result<Reservation, RpcError> {
        let name = random_name(self.randomness)?;
        let mut state = self.lock();
        let taken = state.places.entry(owner.clone()).or_default();
        if *taken >= self.limit {
            return Err(RpcError::new(
                ErrorKind::LimitReached,
                format!("{taken} handles are open; destroy one first (rpc.max-handles)"),
            ));
        }
        *taken += 1;
        Ok(Reservation {
            table: Arc::clone(self),
            owner: owner.clone(),
            name,
            filled: false,
        })
    }

    /// The handle of that name, if it is the owner's, for the length of a call.
    pub fn get(self: &Arc<Self>, name: &str, owner: &Owner) -> Result<InUse, RpcError> {
        let mut state = self.lock();
        let entry = state
            .handles
            .get_mut(name)
            .filter(|entry| entry.owner == *owner)
            .ok_or_else(unknown)?;
        entry.in_use += 1;
        Ok(InUse {
            handle: Arc::clone(&entry.handle),
            permits: Arc::clone(&entry.permits),
            name: name.to_owned(),
            table: Arc::clone(self),
        })
    }

    /// Takes a handle out; no call finds it any more.
    pub fn remove(&self, name: &str, owner: &Owner) -> Result<Arc<LibraryHandle>, RpcError> {
        let mut state = self.lock();
        if !state.handles.get(name).is_some_and(|e| e.owner == *owner) {
            return Err(unknown());
        }
        state.take(name).ok_or_else(unknown)
    }

    /// Destroys everything of an owner that is gone.
    pub fn remove_all_of(&self, owner: &Owner) {
        let mut state = self.lock();
        let names: Vec<String> = state
            .handles
            .iter()
            .filter(|(_, entry)| entry.owner == *owner)
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            drop(state.take(&name));
        }
    }

    fn fill(self: &Arc<Self>, owner: Owner, name: String, opened: Opened) {
        let (handle, charge) = opened;
        // Held until the handle is there, so that its expiry does not look for it before.
        let mut state = self.lock();
        let expiry = tokio::spawn(expire(Arc::downgrade(self), name.clone())).abort_handle();
        let entry = Entry {
            handle: Arc::new(handle),
            permits: Arc::new(Semaphore::new(1)),
            owner,
            _charge: charge,
            in_use: 0,
            last_used: Instant::now(),
            expiry,
        };
        state.handles.insert(name, entry);
    }

    /// When the handle will have been idle for too long; `None` when it is gone, or was just removed.
    fn expiry_of(&self, name: &str) -> Option<Instant> {
        let mut state = self.lock();
        let entry = state.handles.get(name)?;
        let due = if entry.in_use > 0 {
            Instant::now() + self.idle_timeout
        } else {
            entry.last_used + self.idle_timeout
        };
        if due <= Instant::now() {
            tracing::info!(
                model = &**entry.handle.model(),
                "an idle handle is destroyed"
            );
            drop(state.take(name));
            return None;
        }
        Some(due)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, name: &str) -> Option<Arc<LibraryHandle>> {
        let entry = self.handles.remove(name)?;
        self.give_back(&entry.owner);
        Some(Arc::clone(&entry.handle))
    }

    fn give_back(&mut self, owner: &Owner) {
        if let Some(taken) = self.places.get_mut(owner) {
            *taken -= 1;
            if *taken == 0 {
                self.places.remove(owner);
            }
        }
    }
}

fn unknown() -> RpcError {
    RpcError::new(
        ErrorKind::UnknownHandle,
        "no such handle: it was destroyed, was idle for too long, or belongs to another client",
    )
}

async fn expire(table: Weak<HandleTable>, name: String) {
    while let Some(due) = table.upgrade().and_then(|table| table.expiry_of(&name)) {
        tokio::time::sleep_until(due).await;
    }
}

/// Room for one handle; given back when the handle could not be opened.
pub(super) struct Reservation {
    table: Arc<HandleTable>,
    owner: Owner,
    name: String,
    filled: bool,
}

impl Reservation {
    /// Gives the handle its name, and keeps what is charged for its parameters as long as it is there.
    pub fn fill(mut self, opened: Opened) -> String {
        self.filled = true;
        self.table
            .fill(self.owner.clone(), self.name.clone(), opened);
        std::mem::take(&mut self.name)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.filled {
            self.table.lock().give_back(&self.owner);
        }
    }
}

/// A handle, and the charge for its parameters.
pub(super) type Opened = (LibraryHandle, Charge);

/// A handle during a call; it does not become idle meanwhile.
pub(super) struct InUse {
    handle: Arc<LibraryHandle>,
    permits: Arc<Semaphore>,
    name: String,
    table: Arc<HandleTable>,
}

impl std::ops::Deref for InUse {
    type Target = LibraryHandle;

    fn deref(&self) -> &LibraryHandle {
        &self.handle
    }
}

/// Calls wait for it before they are made. A run keeps it until its answer is on its way, so that a
/// client that asks on and does not read keeps one run's results in memory and not those of many.
pub(super) type Permit = Option<OwnedSemaphorePermit>;

impl InUse {
    /// Resolves in the order in which it was polled first.
    pub async fn permit(&self) -> Permit {
        // It is never closed.
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// Starts a run that fits its context, in its turn. It has its place among the calls from the first
    /// poll on.
    pub fn run(
        &self,
        request: RunRequest,
        tensors: Account,
    ) -> impl Future<Output = Result<(Permit, RunStream), LibraryError>> + Send + use<> {
        let (permits, handle) = (Arc::clone(&self.permits), Arc::clone(&self.handle));
        let context = self.handle.context_tokens().map(ContextLimit::of_tokens);
        let fits = context.map_or(Ok(()), |context| context.check_run(&request));
        async move {
            fits?;
            let permit = permits.acquire_owned().await.ok();
            Ok((permit, handle.run(request, Some(tensors)).await?))
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Some(entry) = self.table.lock().handles.get_mut(&self.name) {
            entry.in_use -= 1;
            entry.last_used = Instant::now();
        }
    }
}

/// 128 bits of the operating system's randomness in hexadecimal digits.
fn random_name(randomness: Randomness) -> Result<String, RpcError> {
    let mut bytes = [0u8; 16];
    randomness(&mut bytes).map_err(|error| {
        RpcError::new(
            ErrorKind::InternalError,
            format!("the operating system gives no randomness for the handle's name: {error}"),
        )
    })?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_128_bits_and_differ() {
        let names: HashSet<String> = (0..1000)
            .map(|_| random_name(getrandom::fill).unwrap())
            .collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| name.len() == 32));
    }

    #[test]
    fn without_randomness_a_handle_is_refused_and_takes_no_place() {
        let refuse: Randomness = |_| Err(getrandom::Error::UNSUPPORTED);
        let mut table = HandleTable::new(1, Duration::from_secs(60));
        Arc::get_mut(&mut table).unwrap().randomness = refuse;
        let error = table.reserve(&Owner::Connection(1)).err().unwrap();
        assert_eq!(error.name(), "internal_error");
        assert!(format!("{error:?}").contains("randomness"), "{error:?}");
        assert!(table.lock().places.is_empty());
    }

    #[test]
    fn places_are_counted_by_owner_and_given_back() {
        let table = HandleTable::new(2, Duration::from_secs(60));
        let (one, other) = (Owner::Connection(1), Owner::Connection(2));
        let first = table.reserve(&one).unwrap();
        let _second = table.reserve(&one).unwrap();
        assert!(table.reserve(&one).is_err());
        assert!(table.reserve(&other).is_ok());
        drop(first);
        assert!(table.reserve(&one).is_ok());
        assert_eq!(
            table.lock().places.len(),
            1,
            "no owner without handles is kept"
        );
    }
}
