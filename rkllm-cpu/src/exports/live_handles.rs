//! Which handles a host may use. A handle is a number that is given out once, not an address, and it
//! is looked up, never followed: a call on one that was destroyed, or that never came from here, is
//! an error, also when another model was loaded since. Hosts do destroy twice, from a signal handler
//! and at their end.
//!
//! ```text
//!   give_out ──► live ──► ending (rkllm_destroy waits for the run) ──► forgotten
//! ```
//!
//! A handle that is ending is dead, except for the callback of its last run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Handle;
use crate::abi::LLMHandle;
use crate::run_state::Occupation;

/// Where no Linux maps anything by itself, so that a host's pointer to something else is no handle.
const FIRST: usize = 0x524b_0000_0000;
/// As far apart as allocations, for hosts that keep marks in the lowest bits.
const STEP: usize = 16;

static HANDLES: Mutex<Handles> = Mutex::new(Handles {
    next: FIRST,
    entries: BTreeMap::new(),
});

struct Handles {
    next: usize,
    entries: BTreeMap<usize, Entry>,
}

struct Entry {
    handle: Arc<Handle>,
    ending: bool,
}

/// Why a handle cannot be ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum EndRefusal {
    Dead,
    /// The caller is inside the callback of this handle's run.
    InItsCallback,
}

pub(super) fn give_out(handle: Handle) -> LLMHandle {
    let mut handles = lock();
    let number = handles.next;
    handles.next += STEP;
    let entry = Entry {
        handle: Arc::new(handle),
        ending: false,
    };
    handles.entries.insert(number, entry);
    std::ptr::without_provenance_mut(number)
}

pub(super) fn find(handle: LLMHandle) -> Option<Arc<Handle>> {
    let handles = lock();
    let entry = handles.entries.get(&handle.addr())?;
    (!entry.ending || entry.handle.state.occupation() == Occupation::OnThisThread)
        .then(|| Arc::clone(&entry.handle))
}

/// Makes a handle dead. The caller alone ends its run, frees its engine, and has it forgotten.
pub(super) fn begin_to_end(handle: LLMHandle) -> Result<Arc<Handle>, EndRefusal> {
    let mut handles = lock();
    let entry = handles
        .entries
        .get_mut(&handle.addr())
        .ok_or(EndRefusal::Dead)?;
    if entry.handle.state.occupation() == Occupation::OnThisThread {
        return Err(EndRefusal::InItsCallback);
    }
    if entry.ending {
        return Err(EndRefusal::Dead);
    }
    entry.ending = true;
    Ok(Arc::clone(&entry.handle))
}

pub(super) fn forget(handle: LLMHandle) {
    let forgotten = lock().entries.remove(&handle.addr());
    // Not under the lock: what is left of it is freed here.
    drop(forgotten);
}

fn lock() -> MutexGuard<'static, Handles> {
    // Nothing panics while it is held.
    HANDLES.lock().unwrap_or_else(PoisonError::into_inner)
}
