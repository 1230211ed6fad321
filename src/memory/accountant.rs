//! The budget as something that is shared, and its bytes as charges that return by being dropped.
//!
//! Bytes are charged in steps that are large against a token; nothing here is called for one.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::budget::{Budget, OverBudget, Standing};
use super::trimmer::Trimmer;
use crate::generation::ClientKey;

/// The one accountant; clones are the same.
#[derive(Clone)]
pub struct Accountant(Arc<Shared>);

struct Shared {
    budget: Mutex<Budget>,
    /// Told when bytes come back.
    released: Notify,
    refused: AtomicU64,
    /// For what is in the allocator's memory.
    trimmer: Option<Trimmer>,
}

/// Where the bytes of one client are charged.
#[derive(Clone)]
pub struct Account {
    accountant: Accountant,
    client: ClientKey,
    standing: Standing,
}

/// Bytes that count as used until this is dropped.
#[must_use]
pub struct Charge {
    account: Account,
    bytes: u64,
}

impl Accountant {
    /// `limit_bytes`: of all charges together.
    pub fn new(limit_bytes: u64) -> Self {
        Self::with(limit_bytes, Some(Trimmer::start()))
    }

    /// One of memory files, whose pages go back to the kernel with them.
    pub fn of_files(limit_bytes: u64) -> Self {
        Self::with(limit_bytes, None)
    }

    fn with(limit_bytes: u64, trimmer: Option<Trimmer>) -> Self {
        Self(Arc::new(Shared {
            budget: Mutex::new(Budget::new(limit_bytes)),
            released: Notify::new(),
            refused: AtomicU64::new(0),
            trimmer,
        }))
    }

    pub fn account(&self, client: ClientKey, standing: Standing) -> Account {
        Account {
            accountant: self.clone(),
            client,
            standing,
        }
    }

    pub fn used_bytes(&self) -> u64 {
        self.budget().used()
    }

    /// How often bytes could not be had.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Held for a few instructions.
    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.0.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn charge(&self, account: &Account, held: u64, more: u64) -> Result<(), OverBudget> {
        let mut budget = self.budget();
        budget.charge(&account.client, account.standing, held, more)
    }

    fn release(&self, client: &ClientKey, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.budget().release(client, bytes);
        self.0.released.notify_waiters();
        if let Some(trimmer) = &self.0.trimmer {
            trimmer.freed(bytes);
        }
    }
}

impl Account {
    pub fn client(&self) -> &ClientKey {
        &self.client
    }

    /// The same client's with another accountant.
    pub fn with(&self, accountant: &Accountant) -> Self {
        Self {
            accountant: accountant.clone(),
            ..self.clone()
        }
    }

    /// A charge of nothing, which may grow.
    pub fn open(&self) -> Charge {
        Charge {
            account: self.clone(),
            bytes: 0,
        }
    }

    pub fn charge(&self, bytes: usize) -> Result<Charge, OverBudget> {
        let mut charge = self.open();
        charge.grow(bytes)?;
        Ok(charge)
    }

    /// Waits for the bytes, but for no longer than `patience`, and not where waiting cannot help.
    pub async fn charge_within(
        &self,
        bytes: usize,
        patience: Duration,
    ) -> Result<Charge, OverBudget> {
        let mut charge = self.open();
        let until = tokio::time::Instant::now() + patience;
        loop {
            let mut released = std::pin::pin!(self.accountant.0.released.notified());
            // From here on nothing that comes back is missed.
            released.as_mut().enable();
            match self.accountant.charge(self, 0, bytes as u64) {
                Ok(()) => {
                    charge.bytes = bytes as u64;
                    return Ok(charge);
                }
                Err(never @ OverBudget::NeverFits { .. }) => return Err(never),
                Err(refused) => {
                    if tokio::time::timeout_at(until, released).await.is_err() {
                        return Err(refused);
                    }
                }
            }
        }
    }

    /// Whether who holds bytes of it for long should hurry.
    pub fn is_scarce(&self) -> bool {
        self.accountant.budget().is_scarce(&self.client)
    }

    /// The largest charge there can be.
    pub fn most_bytes(&self) -> usize {
        let most = self.accountant.budget().clients_limit();
        usize::try_from(most).unwrap_or(usize::MAX)
    }
}

impl Charge {
    pub fn account(&self) -> &Account {
        &self.account
    }

    pub fn bytes(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }

    /// Takes `more` bytes in addition; what it had stays when they cannot be had.
    pub fn grow(&mut self, more: usize) -> Result<(), OverBudget> {
        let more = more as u64;
        let accountant = &self.account.accountant;
        if let Err(refused) = accountant.charge(&self.account, self.bytes, more) {
            accountant.0.refused.fetch_add(1, Ordering::Relaxed);
            return Err(refused);
        }
        self.bytes += more;
        Ok(())
    }

    /// Sees to its having at least so many bytes.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), OverBudget> {
        self.grow(bytes.saturating_sub(self.bytes()))
    }

    /// Gives back what it has beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        drop(self.split(self.bytes().saturating_sub(bytes)));
    }

    /// Takes over another one of the same account.
    pub fn absorb(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Takes so many of its bytes, or all, for a charge of their own.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = self.bytes.min(bytes as u64);
        self.bytes -= bytes;
        Self {
            account: self.account.clone(),
            bytes,
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let account = &self.account;
        account.accountant.release(&account.client, self.bytes);
    }
}

impl fmt::Debug for Accountant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accountant").finish_non_exhaustive()
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({:?})", self.client)
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Charge({} bytes)", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(accountant: &Accountant, name: &str) -> Account {
        accountant.account(ClientKey::new(name), Standing::Ordinary)
    }

    #[test]
    fn bytes_come_back_however_a_charge_was_cut() {
        let accountant = Accountant::new(1000);
        let one = account(&accountant, "one");
        let mut charge = one.charge(300).unwrap();
        charge.grow(50).unwrap();
        assert!(charge.grow(500).is_err());
        let part = charge.split(200);
        assert_eq!((charge.bytes(), part.bytes()), (150, 200));
        charge.shrink_to(100);
        assert_eq!(accountant.used_bytes(), 300);
        drop(part);
        assert_eq!(accountant.used_bytes(), 100);
        drop(charge);
        assert_eq!(accountant.used_bytes(), 0);
        assert_eq!(accountant.refused(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_bytes_that_come_back() {
        let accountant = Accountant::new(1000);
        let one = account(&accountant, "one");
        let held = one.charge(500).unwrap();
        let waits = one.charge_within(100, Duration::from_secs(30));
        let (waited, ()) = tokio::join!(waits, async {
            tokio::task::yield_now().await;
            drop(held);
        });
        assert_eq!(waited.unwrap().bytes(), 100);
        let held = one.charge(500).unwrap();
        let refused = one.charge_within(1, Duration::from_secs(30)).await;
        assert!(matches!(refused, Err(OverBudget::ClientsShare { .. })));
        drop(held);
    }
}
