//! Which models' prompts are being pinned, and of which models none are: whose worker is to go has it to itself. Each of
//! those who pin has a receiver for as long as it holds anything of its worker, and gives that back once it is told.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::generation::ModelId;

#[derive(Debug, Default)]
pub(super) struct Pinnings(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    /// The daemon ends.
    is_over: bool,
    going_on: HashMap<ModelId, watch::Sender<bool>>,
    /// How many want the model not to be pinned.
    stopped: HashMap<ModelId, usize>,
    /// Models that were left before their prompts were pinned, and not begun with again.
    unfinished: HashSet<ModelId>,
}

impl Pinnings {
    fn lock(&self) -> MutexGuard<'_, All> {
        // Whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins with a model; what is returned becomes true when it has to end. `None`: it is not to begin.
    pub fn begin(&self, model: &ModelId) -> Option<watch::Receiver<bool>> {
        let mut all = self.lock();
        if all.is_over || all.stopped.contains_key(model) {
            return None;
        }
        all.unfinished.remove(model);
        // Those that have ended have no receiver.
        all.going_on.retain(|_, told| told.receiver_count() > 0);
        let told = all.going_on.entry(ModelId::clone(model));
        Some(
            told.or_insert_with(|| watch::Sender::new(false))
                .subscribe(),
        )
    }

    /// Whether a model was left before its time, and may be begun with anew.
    pub fn is_unfinished(&self, model: &ModelId) -> bool {
        self.lock().unfinished.contains(model)
    }

    /// Ends that of one model, and returns once nothing of its worker is held.
    pub async fn stop(&self, model: &ModelId) -> NotPinned {
        let (guard, told) = {
            let mut all = self.lock();
            *all.stopped.entry(ModelId::clone(model)).or_default() += 1;
            let guard = NotPinned {
                all: Arc::clone(&self.0),
                model: ModelId::clone(model),
            };
            let told = all.going_on.remove(model);
            let told = told.filter(|told| told.receiver_count() > 0);
            if told.is_some() {
                all.unfinished.insert(ModelId::clone(model));
            }
            (guard, told)
        };
        if let Some(told) = told {
            told.send_replace(true);
            // As long as the deadlines of a run's end let it take.
            told.closed().await;
        }
        guard
    }

    /// Ends all, and lets none begin.
    pub fn end(&self) {
        let mut all = self.lock();
        all.is_over = true;
        for told in all.going_on.values() {
            told.send_replace(true);
        }
    }
}

/// As long as it lives, no prompt of its model is pinned.
#[derive(Debug)]
pub struct NotPinned {
    all: Arc<Mutex<All>>,
    model: ModelId,
}

impl Drop for NotPinned {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.stopped.get_mut(&self.model) {
            *count -= 1;
            if *count == 0 {
                all.stopped.remove(&self.model);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;

    #[tokio::test]
    async fn what_pins_is_told_and_waited_for_and_begins_again_only_afterwards() {
        let pinnings = Pinnings::default();
        let (model, other) = (ModelId::from("m"), ModelId::from("other"));
        let pinning = pinnings.begin(&model).expect("it begins");
        let elsewhere = pinnings.begin(&other).expect("it begins");
        let mut stopping = Box::pin(pinnings.stop(&model));
        assert!(futures_ready(&mut stopping).await.is_none(), "it is held");
        assert!(*pinning.borrow() && !*elsewhere.borrow());
        assert!(pinnings.begin(&model).is_none());
        drop(pinning);
        let guard = stopping.await;
        let second = pinnings.stop(&model).await;
        drop(guard);
        assert!(pinnings.begin(&model).is_none());
        drop(second);
        assert!(pinnings.is_unfinished(&model), "it is begun with anew");
        drop(pinnings.begin(&model).expect("it begins again"));
        assert!(!pinnings.is_unfinished(&model));
        // What has ended by itself is not.
        drop(pinnings.stop(&model).await);
        assert!(!pinnings.is_unfinished(&model));
        pinnings.end();
        assert!(*elsewhere.borrow() && pinnings.begin(&other).is_none());
    }

    /// What it has come to by now.
    async fn futures_ready<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            Poll::Ready(match std::pin::Pin::new(&mut *future).poll(cx) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            })
        })
        .await
    }
}
