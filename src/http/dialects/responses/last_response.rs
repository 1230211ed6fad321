//! The last response of each stream of one WebSocket that is not kept: the next message of its stream may go on from it,
//! once, and takes it away; those of other streams may until then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::http::dialects::kept_responses::KeptResponse;
use crate::memory::{Account, Charge};

/// A stream, as its client calls it; `None`: that of the messages that name none.
pub(super) type Stream = Option<Arc<str>>;

type Kept = HashMap<Stream, (Arc<KeptResponse>, Charge)>;

/// That of one stream.
pub(super) struct LastResponse {
    account: Account,
    stream: Stream,
    /// Those of all streams.
    responses: Arc<Mutex<Kept>>,
}

impl LastResponse {
    /// None yet. What is kept is charged to `account`.
    pub fn new(account: Account) -> Self {
        Self {
            account,
            stream: None,
            responses: Arc::default(),
        }
    }

    /// That of another stream of the same socket.
    pub fn of(&self, stream: Stream) -> Self {
        Self {
            account: self.account.clone(),
            stream,
            responses: Arc::clone(&self.responses),
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

    /// Gives it to a request that goes on from it. One that fails has no second chance, as in OpenAI's API. Another
    /// stream's stays there, for that stream.
    pub fn take(&self, id: &str) -> Option<Arc<KeptResponse>> {
        let is_it = |(response, _): &(Arc<KeptResponse>, Charge)| response.id == id;
        let mut responses = self.lock();
        if responses.get(&self.stream).is_some_and(is_it) {
            let taken = responses.remove(&self.stream);
            // Its memory is given back without the lock.
            drop(responses);
            return taken.map(|(response, _)| response);
        }
        let other = responses.values().find(|&kept| is_it(kept));
        other.map(|(response, _)| Arc::clone(response))
    }

    fn replace(&self, response: Option<(Arc<KeptResponse>, Charge)>) {
        let before = match response {
            Some(response) => self.lock().insert(self.stream.clone(), response),
            None => self.lock().remove(&self.stream),
        };
        drop(before);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Whole after every statement.
        self.responses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn each_stream_has_its_own_and_gives_it_to_others_too() {
        let account = Accountant::new(1 << 20).account(ClientKey::new("c"), Standing::Ordinary);
        let unnamed = LastResponse::new(account);
        let [main, critic] = ["main", "critic"].map(|name| unnamed.of(Some(name.into())));
        unnamed.keep(response("a", 10));
        main.keep(response("b", 10));
        assert!(critic.take("a").is_some() && critic.take("b").is_some());
        assert!(critic.take("b").is_some(), "it is not its own");
        critic.keep(response("c", 10));
        assert!(main.take("b").is_some() && main.take("b").is_none());
        assert!(critic.take("b").is_none());
        assert!(unnamed.take("c").is_some() && unnamed.take("a").is_some());
        assert!(unnamed.take("a").is_none() && critic.take("c").is_some());
        assert!(main.lock().is_empty());
    }
}
