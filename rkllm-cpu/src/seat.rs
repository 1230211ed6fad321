//! Where a handle computes: in a context of its own, on the thread of its run; or in a sequence of one
//! that it shares with others (`RKLLM_CPU_SLOTS`), by that one's scheduler.

use std::sync::Arc;

use parking_lot::{FairMutex, FairMutexGuard};

use crate::computing::Computing;
use crate::engine::Run;
use crate::generation::{Outcome, Reply, Report};
use crate::model_load::{LoadError, Loading};
use crate::run_state::RunState;
use crate::shared_context::{Membership, Sharing};
use crate::weights::Weights;

pub(crate) struct Seat {
    sequences: Vec<usize>,
    /// None: the context is this handle's own.
    shared: Option<Membership>,
    /// Fair, because a scheduler asks for it again as soon as it has given it back.
    computing: Arc<FairMutex<Computing>>,
    pub(crate) max_context: usize,
    pub(crate) weights: Arc<Weights>,
}

impl Seat {
    /// A handle of several sequences (`n_batch`), or one whose host embeds, has a context of its own.
    pub(crate) fn take(
        loading: &Loading,
        sequences: usize,
        state: &RunState,
    ) -> Result<Seat, LoadError> {
        let sharing = Sharing::from_environment(loading.context_length)?;
        let seat = match (sharing, loading.likeness()) {
            (Some(sharing), Some(likeness)) if sequences == 1 => {
                let shared = Membership::join(loading, likeness, sharing)?;
                state.is_computed_by(shared.scheduler());
                Seat {
                    sequences: vec![shared.take_sequence()?],
                    computing: Arc::clone(shared.computing()),
                    max_context: loading.context_length as usize,
                    weights: Arc::clone(shared.weights()),
                    shared: Some(shared),
                }
            }
            _ => {
                let weights = loading.weights()?;
                let computing = loading.context(Arc::clone(&weights), sequences as u32, None)?;
                Seat {
                    sequences: (0..sequences).collect(),
                    shared: None,
                    computing: Arc::new(FairMutex::new(computing)),
                    max_context: loading.context_length as usize,
                    weights,
                }
            }
        };
        let mut computing = seat.computing();
        for (&sequence, counter) in seat.sequences.iter().zip(state.kv_counters()) {
            computing.cells(sequence).publish_in(Arc::clone(counter));
        }
        drop(computing);
        Ok(seat)
    }

    /// The context, between two steps.
    pub(crate) fn computing(&self) -> FairMutexGuard<'_, Computing> {
        self.computing.lock()
    }

    /// The sequence of this handle's `slot`.
    pub(crate) fn sequence(&self, slot: usize) -> usize {
        self.sequences[slot]
    }

    /// Runs until `run` ends or is paused. None in its place: it is lost.
    pub(crate) fn drive(
        &self,
        run: Run,
        state: &Arc<RunState>,
        report: &mut dyn FnMut(Report<'_>) -> Reply,
    ) -> (Option<Run>, Outcome) {
        match (&self.shared, run) {
            (Some(shared), Run::Single(generation)) => {
                let (generation, outcome) = shared.drive(generation, state, report);
                (generation.map(Run::Single), outcome)
            }
            (_, mut run) => {
                let mut computing = self.computing();
                let _held = computing.threads.hold();
                let outcome = match &mut run {
                    Run::Single(generation) => generation.drive(&mut computing, state, report),
                    Run::Batch(batch) => batch.drive(&mut computing, state, report),
                };
                (Some(run), outcome)
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut computing = self.computing.lock();
        for &sequence in &self.sequences {
            computing.give_up(sequence);
        }
    }
}
