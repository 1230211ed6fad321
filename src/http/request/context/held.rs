//! What a request holds of the memory for requests, and what becomes of it.

use std::sync::{MutexGuard, PoisonError};

use super::RequestContext;
use crate::memory::{Account, Charge, OverBudget};

impl RequestContext {
    /// Where what it holds is charged.
    pub fn account(&self) -> Account {
        self.memory().account().clone()
    }

    /// Sees to it that at least so many bytes are charged to the request.
    ///
    /// # Errors
    ///
    /// They cannot be had.
    pub fn hold(&self, bytes: usize) -> Result<(), OverBudget> {
        self.memory().grow_to(bytes)
    }

    pub fn held(&self) -> usize {
        self.memory().bytes()
    }

    /// Of what it holds, so many bytes are left.
    pub fn keep(&self, bytes: usize) {
        self.memory().shrink_to(bytes);
    }

    /// What it holds becomes the charge of an answer of so many bytes.
    pub fn hand_over(&self, bytes: usize) -> Result<Charge, OverBudget> {
        let mut memory = self.memory();
        memory.grow_to(bytes)?;
        Ok(memory.split(bytes))
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Charge> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
