//! Has a slot hold what a model's owner has pinned, before anybody asks for it: evaluated and written where no
//! file has it, and loaded where one has. What the slot holds then is no client's, and so every client's.

use std::sync::Arc;

use super::calls::Gone;
use super::keeping::give_up;
use super::{Loaded, Swap};
use crate::ipc::{RunEnd, RunOutcome};
use crate::supervisor::drive::Over;
use crate::supervisor::lease::Lease;
use crate::supervisor::prefixes::marks::{Text, mark};
use crate::supervisor::prefixes::record::{Identity, Owner};
use crate::supervisor::prefixes::state::Turn;
use crate::supervisor::prefixes::{Inner, Prefixes, identity};
use crate::supervisor::probe::PROMPT;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// A file has it.
    Kept,
    /// There is no room, the disk rests, or the library does not do it.
    NotKept,
    /// Its worker is of no more use.
    Lost,
}

impl Swap<'_> {
    /// `nth`: of what its model pins; what there are no slots for is only kept. No client's conversation leaves
    /// its slot for what a file has.
    pub async fn pin(&mut self, lease: Lease, text: &str, nth: usize) -> Pinned {
        let Prefixes(Some(prefixes)) = self.supervisor.prefixes().clone() else {
            return Pinned::NotKept;
        };
        let Some(of) = identity(lease.worker(), None) else {
            return Pinned::NotKept;
        };
        let stale = prefixes.lock().meet(&of);
        prefixes.remove(stale);
        if !prefixes.lock().may_pin(&of, text) {
            return Pinned::NotKept;
        }
        let pinned = self.pin_in(&prefixes, lease, (&of, text), nth).await;
        match pinned {
            Pinned::Kept => prefixes.lock().is_pinned(&of, text),
            // That it was cut short is not its fault.
            Pinned::Lost if *self.cut_off.borrow() => {}
            Pinned::Lost => {
                let is_left_alone = prefixes.lock().is_lost_pinning(&of, text);
                if is_left_alone {
                    tracing::warn!(
                        model = &*of.model,
                        nth,
                        "a prompt that the model pins is left alone until a reload: worker after worker was lost \
                         with it"
                    );
                }
            }
            Pinned::NotKept => {}
        }
        pinned
    }

    async fn pin_in(
        &mut self,
        prefixes: &Arc<Inner>,
        lease: Lease,
        (of, text): (&Identity, &str),
        nth: usize,
    ) -> Pinned {
        let prompt = Text::from(text);
        mark(&[&prompt]);
        let marks = prompt.marked().marks().clone();
        let is_kept = || prefixes.lock().has_shared(of, &marks);
        let was_kept = is_kept();
        let is_a_clients = lease.holder().is_some() && !lease.holds().is_empty();
        let is_held = lease.holder().is_none() && lease.holds() == text && lease.is_evaluated();
        if was_kept && (is_a_clients || is_held || nth >= usize::from(lease.slots())) {
            return Pinned::Kept;
        }
        let lease = match was_kept && !lease.was_used() {
            true => self.use_once(prefixes, lease, of).await,
            false => Some(lease),
        };
        let Some(lease) = lease else {
            return Pinned::Lost;
        };
        let owner = Owner::nobody();
        let turn = Turn {
            prompt,
            owner: &owner,
            // Loading what another one begins with alike would take the place of writing it.
            can_load: was_kept,
        };
        let prepared = match Self::planned(prefixes, &lease, None, turn) {
            Some(plan) => self.prepare(lease, plan, None).await,
            None => Some((lease, None)),
        };
        let lease = match prepared {
            Some((lease, Some(loaded))) => self.take_in(prefixes, lease, loaded, text).await,
            Some((lease, None)) => Some(lease),
            None => None,
        };
        let Some(mut lease) = lease else {
            return Pinned::Lost;
        };
        if lease.holds() == text && lease.is_evaluated() {
            lease.restore(text.to_owned(), None);
        }
        match is_kept() {
            true => Pinned::Kept,
            false => Pinned::NotKept,
        }
    }

    /// Without a tokenizer a worker counts prompts by its slot's first run, which has to find that empty: a load
    /// comes behind it.
    async fn use_once(
        &mut self,
        prefixes: &Arc<Inner>,
        lease: Lease,
        of: &Identity,
    ) -> Option<Lease> {
        let run = prefixes.next_run();
        let over = match self.run(lease, run, (PROMPT.to_owned(), None), None).await {
            Ok(over) => over,
            Err(Gone { fault, cause }) => {
                prefixes.failed(of, "load", &cause, fault);
                return None;
            }
        };
        let after = over.after(false);
        let mut running = over.running;
        let cells = running.worker().facts.context_length;
        // It stays its user's, so that what comes next empties the slot where no load does.
        running.link().hold(&[], cells.unwrap_or(1));
        running.ended(after)
    }

    /// What was loaded becomes the slot's own by a run that begins with it.
    async fn take_in(
        &mut self,
        prefixes: &Arc<Inner>,
        lease: Lease,
        loaded: Loaded,
        text: &str,
    ) -> Option<Lease> {
        let run = prefixes.next_run();
        let over = match self.run(lease, run, (text.to_owned(), None), None).await {
            Ok(over) => over,
            Err(Gone { fault, cause }) => {
                give_up(prefixes, &loaded.order, &cause, fault);
                return None;
            }
        };
        let after = over.after(false);
        let Over {
            mut running,
            end,
            stop,
            ..
        } = over;
        if stop.is_none() && is_whole(&end) {
            loaded.learn(self.supervisor.prefixes(), &end);
            running.link().restore(text.to_owned(), None);
            running.link().set_evaluated(true);
        }
        let lease = running.ended(after)?;
        self.release(lease).await
    }
}

fn is_whole(end: &RunEnd) -> bool {
    matches!(end.outcome, RunOutcome::Finished(_))
}
