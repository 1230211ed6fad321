//! The last response of one WebSocket that is not kept: the next message on it may go on from it, once.

use std::sync::{Arc, Mutex, PoisonError};

use crate::http::dialects::kept_responses::KeptResponse;
use crate::memory::{Account, Charge};

pub(super) struct LastResponse {
    account: Account,
    response: Mutex<Option<(Arc<KeptResponse>, Charge)>>,
}

impl LastResponse {
    /// None yet. What is kept is charged to `account`.
    pub fn new(account: Account) -> Self {
        Self {
            account,
            response: Mutex::default(),
        }
    }

    /// Keeps it in place of the one before, if there is memory for it.
    pub fn keep(&self, response: KeptResponse) {
        // Its place is its successor's.
        self.replace(None);
        if let Ok(charge) = self.account.charge(response.bytes()) {
            self.replace(Some((Arc::new(response), charge)));
        }
    }

    /// Gives it to a request that goes on from it. One that fails has no second chance, as in OpenAI's API.
    pub fn take(&self, id: &str) -> Option<Arc<KeptResponse>> {
        let mut last = self.lock();
        let taken = last.take_if(|(response, _)| response.id == id);
        drop(last);
        taken.map(|(response, _)| response)
    }

    fn replace(&self, response: Option<(Arc<KeptResponse>, Charge)>) {
        let before = std::mem::replace(&mut *self.lock(), response);
        drop(before);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Arc<KeptResponse>, Charge)>> {
        self.response.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::ClientKey;
    use crate::memory::{Accountant, Standing};

    fn response(id: &str, bytes: usize) -> KeptResponse {
        KeptResponse {
            id: id.to_owned(),
            json: vec![b'x'; bytes].into(),
            items: Vec::new(),
            asked: 0,
            is_answered: true,
            is_background: false,
        }
    }

    #[test]
    fn one_is_kept_and_taken_once_and_charged_until_then() {
        let account = Accountant::new(1 << 20).account(ClientKey::new("c"), Standing::Ordinary);
        let most = account.most_bytes();
        let last = LastResponse::new(account.clone());
        last.keep(response("a", most / 2));
        last.keep(response("b", most / 2));
        assert!(account.charge(most - most / 4).is_err());
        assert!(last.take("a").is_none());
        assert!(last.take("b").is_some() && last.take("b").is_none());
        assert!(account.charge(most).is_ok());
        last.keep(response("c", 10));
        last.keep(response("d", most));
        assert!(last.take("c").is_none() && last.take("d").is_none());
    }
}
