//! Bytes of one client that are charged in blocks, for what is small and many: it takes of them and
//! gives them back without the accountant, which is asked once in a block.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::accountant::{Account, Charge};
use super::budget::OverBudget;

const BLOCK_BYTES: usize = 16 * 1024;

/// Keeps a block once it has one; clones share it.
#[derive(Clone)]
pub(crate) struct Allowance(Arc<Shared>);

struct Shared {
    account: Account,
    /// At least what `state` says is charged.
    charge: Mutex<Charge>,
    state: AtomicU64,
}

/// Blocks that are charged, and bytes of them that are taken; both change as one.
#[derive(Clone, Copy)]
struct State {
    blocks: u32,
    taken: u32,
}

/// Bytes of an allowance until this is dropped.
#[must_use]
pub(crate) struct Taken {
    allowance: Arc<Shared>,
    bytes: u32,
}

impl State {
    fn of(word: u64) -> Self {
        Self {
            blocks: (word >> 32) as u32,
            taken: word as u32,
        }
    }

    fn word(self) -> u64 {
        u64::from(self.blocks) << 32 | u64::from(self.taken)
    }

    fn bytes(self) -> u64 {
        u64::from(self.blocks) * BLOCK_BYTES as u64
    }
}

impl Allowance {
    pub fn new(account: Account) -> Self {
        let charge = Mutex::new(account.open());
        Self(Arc::new(Shared {
            account,
            charge,
            state: AtomicU64::new(0),
        }))
    }

    pub fn account(&self) -> &Account {
        &self.0.account
    }

    /// Takes of what is charged; no lock, no accountant.
    pub fn try_take(&self, bytes: usize) -> Option<Taken> {
        let bytes = u32::try_from(bytes).ok()?;
        self.0.change(|state| {
            let taken = state.taken.checked_add(bytes)?;
            (u64::from(taken) <= state.bytes()).then_some(State { taken, ..state })
        })?;
        Some(Taken {
            allowance: Arc::clone(&self.0),
            bytes,
        })
    }

    /// Has more charged where it must, and waits for it for no longer than `patience`.
    pub async fn take_within(&self, bytes: usize, patience: Duration) -> Result<Taken, OverBudget> {
        loop {
            if let Some(taken) = self.try_take(bytes) {
                return Ok(taken);
            }
            let blocks = bytes.div_ceil(BLOCK_BYTES).max(1);
            let more = self.0.account.charge_within(blocks * BLOCK_BYTES, patience);
            let more = more.await?;
            self.0.lock().absorb(more);
            let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
            self.0.change(|state| {
                let blocks = state.blocks.saturating_add(blocks);
                Some(State { blocks, ..state })
            });
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Charge> {
        self.charge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives what was before, where `next` allows a change.
    fn change(&self, next: impl Fn(State) -> Option<State>) -> Option<State> {
        let changed = self
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                next(State::of(word)).map(State::word)
            });
        changed.ok().map(State::of)
    }

    /// Nothing is taken: what a burst needed goes back, but for one block.
    fn shrink(&self) {
        let before = self.change(|state| {
            (state.taken == 0 && state.blocks > 1).then_some(State {
                blocks: 1,
                taken: 0,
            })
        });
        if let Some(before) = before {
            let surplus = (before.blocks as usize - 1) * BLOCK_BYTES;
            let surplus = self.lock().split(surplus);
            drop(surplus);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let shared = &self.allowance;
        let before = shared.change(|state| {
            let taken = state.taken.saturating_sub(self.bytes);
            Some(State { taken, ..state })
        });
        if before.is_some_and(|before| before.blocks > 1 && before.taken == self.bytes) {
            shared.shrink();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::ClientKey;
    use crate::memory::{Accountant, Standing};

    const PATIENCE: Duration = Duration::from_secs(1);

    fn allowance(accountant: &Accountant) -> Allowance {
        let client = ClientKey::new("one");
        Allowance::new(accountant.account(client, Standing::Ordinary))
    }

    #[tokio::test(start_paused = true)]
    async fn small_bytes_are_taken_of_one_block() {
        let accountant = Accountant::new(1 << 20);
        let allowance = allowance(&accountant);
        assert!(allowance.try_take(1).is_none(), "nothing is charged yet");
        for _ in 0..1000 {
            let taken = allowance.take_within(300, PATIENCE).await.unwrap();
            assert_eq!(accountant.used_bytes(), BLOCK_BYTES as u64);
            drop(taken);
            assert_eq!(accountant.used_bytes(), BLOCK_BYTES as u64);
        }
        drop(allowance);
        assert_eq!(accountant.used_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_charged_whole_and_goes_back_to_one_block() {
        let accountant = Accountant::new(1 << 20);
        let allowance = allowance(&accountant);
        let mut taken = Vec::new();
        for _ in 0..100 {
            taken.push(allowance.take_within(1000, PATIENCE).await.unwrap());
            assert!(accountant.used_bytes() >= taken.len() as u64 * 1000);
        }
        let large = allowance.take_within(200_000, PATIENCE).await.unwrap();
        assert!(accountant.used_bytes() >= 300_000);
        drop((taken, large));
        assert_eq!(accountant.used_bytes(), BLOCK_BYTES as u64);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_charged_is_not_taken() {
        let accountant = Accountant::new(1 << 20);
        let allowance = allowance(&accountant);
        let all = allowance.account().charge(1 << 19).unwrap();
        assert!(allowance.take_within(1, PATIENCE).await.is_err());
        drop(all);
        assert!(allowance.take_within(1, PATIENCE).await.is_ok());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_threads_give_back_all_they_took() {
        let accountant = Accountant::new(1 << 24);
        let allowance = allowance(&accountant);
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let allowance = allowance.clone();
                tokio::spawn(async move {
                    for step in 0..2000 {
                        let bytes = (task * 7919 + step * 104_729) % 40_000;
                        drop(allowance.take_within(bytes, PATIENCE).await.unwrap());
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(accountant.used_bytes() <= BLOCK_BYTES as u64);
        drop(allowance);
        assert_eq!(accountant.used_bytes(), 0);
    }
}
