//! What a slot needs before a run: nothing of another tenant's in it, and what is stored of the prompt.

use super::Serving;
use crate::supervisor::lease::Lease;
use crate::supervisor::outcome::Outcome;
use crate::supervisor::prefixes::swap::Swap;

impl Serving<'_> {
    pub(super) fn swap(&self) -> Swap<'_> {
        Swap::new(self.services, self.job.cut_off.clone())
    }

    /// A worker that is lost meanwhile is no attempt of the request's: the next one has no swapping.
    pub(super) async fn make_ready(&mut self, mut lease: Lease) -> Result<Lease, Outcome> {
        // For a run that was lost.
        self.loaded = None;
        loop {
            let ready = match std::mem::take(&mut self.may_swap) {
                true => {
                    let prepared = self.swap().prepare(lease, &self.job.request).await;
                    prepared.map(|(lease, loaded)| {
                        self.loaded = loaded;
                        lease
                    })
                }
                false => Some(lease),
            };
            let ready = match ready {
                Some(lease) if self.loaded.is_some() => Some(lease),
                Some(lease) => self.swap().clear(lease).await,
                None => None,
            };
            lease = match ready {
                Some(lease) => return Ok(lease),
                None => self.next_worker().await?,
            };
        }
    }
}
