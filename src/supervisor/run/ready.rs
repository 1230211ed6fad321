//! What a slot needs before a run: nothing of another tenant's or adapter's in it, and what is stored of the prompt.

use super::Serving;
use crate::supervisor::adapters;
use crate::supervisor::lease::Lease;
use crate::supervisor::outcome::Outcome;
use crate::supervisor::prefixes::swap::{Plan, Swap};

impl Serving<'_> {
    pub(super) fn swap(&self) -> Swap<'_> {
        Swap::new(self.services, self.job.cut_off.clone())
    }

    /// A worker that is lost meanwhile is no attempt of the request's: the next one has no swapping.
    pub(super) async fn make_ready(&mut self, mut lease: Lease) -> Result<Lease, Outcome> {
        // For a run that was lost.
        self.loaded = None;
        loop {
            // One that is not served costs no slot what it holds.
            let adapter = self.job.request.adapter.clone();
            adapters::check(lease.worker(), adapter.as_deref()).map_err(Outcome::Failed)?;
            if lease.is_batch() {
                // Each batch begins with an empty cache.
                return Ok(lease);
            }
            let plan = match std::mem::take(&mut self.may_swap) {
                true => self.swap().plan(&lease, &self.job.request),
                false => None,
            };
            let ready = match plan {
                Some(plan) => self.prepared(lease, plan).await?,
                None => Some(lease),
            };
            let ready = match ready {
                Some(lease) if self.loaded.is_some() => Some(lease),
                Some(lease) => self.swap().clear(lease, adapter.as_deref()).await,
                None => None,
            };
            lease = match ready {
                Some(lease) => return Ok(lease),
                None => self.next_worker().await?,
            };
        }
    }

    /// A client that leaves, or has no time left, waits for none of it. The library is not interrupted in
    /// the middle of a file, and its slot is given back behind it.
    async fn prepared(&mut self, lease: Lease, plan: Plan) -> Result<Option<Lease>, Outcome> {
        let (services, cut_off) = (self.services.clone(), self.job.cut_off.clone());
        let adapter = self.job.request.adapter.clone();
        let preparing = tokio::spawn(async move {
            let mut swap = Swap::new(&services, cut_off);
            swap.prepare(lease, plan, adapter.as_deref()).await
        });
        let prepared = tokio::select! {
            biased;
            over = self.is_over() => return Err(over),
            prepared = preparing => prepared,
        };
        // One that panics has taken its worker with it.
        let Some((lease, loaded)) = prepared.ok().flatten() else {
            return Ok(None);
        };
        self.loaded = loaded;
        Ok(Some(lease))
    }
}
