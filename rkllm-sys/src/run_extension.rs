//! What a run may have beyond the vendor's parameters, where the library takes it. The library is given
//! a run's number and never a pointer of ours, so that a hook that is called too late finds nothing; no
//! Rust panic passes through it.

use crate::abi::extension::{RKLLMLogitBias, RKLLMRunExtension, SECOND_SIZE};
use crate::run::RunId;
use crate::runs_in_progress;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{ptr, slice};

type SharedHook = Arc<Mutex<Box<dyn LogitsHook>>>;

static HOOKS: Mutex<BTreeMap<RunId, SharedHook>> = Mutex::new(BTreeMap::new());

const GOES_ON: c_int = 0;
const ENDS_HERE: c_int = 1;

/// What a hook says of a draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draw {
    /// A token is drawn of those that the row allows.
    GoesOn,
    /// The run ends as if the model had ended it, without another token.
    EndsHere,
}

/// Has a say in each draw of a run.
pub trait LogitsHook: Send {
    /// `drawn` is what the run has drawn so far, of which its sink may not have been told all yet. What is
    /// `-inf` in `logits` afterwards is not drawn. Called on a thread of the library's that computes for
    /// others as well, so it should be quick. A hook that panics ends its run.
    fn on_row(&mut self, drawn: &[i32], logits: &mut [f32]) -> Draw;

    /// Asked before `on_row`, where the library does so: `Some`, and the draw needs neither the hook nor a
    /// copy of the row.
    fn before_row(&mut self, _drawn: &[i32]) -> Option<Draw> {
        None
    }
}

/// How much of a [`RunExtension`] a library reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExtensionVersion {
    /// It takes none.
    None,
    /// Hook, seed, min-p and biases.
    First,
    /// Also log probabilities, and when tokens may end the run.
    Second,
    /// All of it.
    Third,
}

impl ExtensionVersion {
    /// Of a library that has the function, by the size of the struct that it says it knows.
    pub(crate) fn of_size(size: Option<usize>) -> Self {
        match size {
            Some(0) => Self::None,
            Some(size) if size >= size_of::<RKLLMRunExtension>() => Self::Third,
            Some(size) if size >= SECOND_SIZE => Self::Second,
            _ => Self::First,
        }
    }
}

/// Settings of one run that only some libraries take
/// ([`Library::extension_version`](crate::Library::extension_version)).
#[derive(Default)]
pub struct RunExtension {
    pub hook: Option<Box<dyn LogitsHook>>,
    /// Below 4294967295; `None`: drawn anew, or as the library's environment says.
    pub seed: Option<u32>,
    /// From 0 to 1.
    pub min_p: Option<f32>,
    /// Tokens with what is added to their logits.
    pub logit_bias: Vec<(i32, f32)>,
    /// The run's sink is told how likely its tokens were.
    pub logprobs: Option<Logprobs>,
    pub ends: Ends,
    /// With a seed it says the same, whatever else runs or ran.
    pub is_deterministic: bool,
}

/// When tokens may end a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Ends {
    #[default]
    AtAnyTime,
    /// So many tokens are drawn before one of the model's own, or one of `tokens`, can be.
    NotBefore { count: u32, tokens: Vec<i32> },
    /// Neither the model's own nor one of these is drawn.
    Never { tokens: Vec<i32> },
}

/// Which log probabilities a run's sink is told
/// ([`ResultSink::on_logprobs`](crate::ResultSink::on_logprobs)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logprobs {
    /// How many of the likeliest tokens of each row.
    pub top: u16,
    /// Those of the prompt's tokens, too.
    pub of_prompt: bool,
}

/// An extension as C has it. The library copies it; the hook is found until this is dropped.
pub(crate) struct OwnedExtension {
    run: RunId,
    has_hook: bool,
    biases: Vec<RKLLMLogitBias>,
    seed: i64,
    min_p: f32,
    logprobs: Option<Logprobs>,
    min_tokens: i32,
    ends: Vec<i32>,
    is_deterministic: bool,
}

impl OwnedExtension {
    /// `run` is in no other's use.
    pub(crate) fn enter(run: RunId, extension: RunExtension) -> Self {
        let has_hook = extension.hook.is_some();
        if let Some(hook) = extension.hook {
            lock(&HOOKS).insert(run, Arc::new(Mutex::new(hook)));
        }
        let biases = extension.logit_bias.into_iter();
        let (min_tokens, ends) = match extension.ends {
            Ends::AtAnyTime => (0, Vec::new()),
            Ends::NotBefore { count, tokens } => (i32::try_from(count).unwrap_or(-1), tokens),
            Ends::Never { tokens } => (-1, tokens),
        };
        Self {
            run,
            has_hook,
            biases: biases
                .map(|(token, bias)| RKLLMLogitBias { token, bias })
                .collect(),
            seed: extension.seed.map_or(-1, i64::from),
            min_p: extension.min_p.unwrap_or(0.0),
            logprobs: extension.logprobs,
            min_tokens,
            ends,
            is_deterministic: extension.is_deterministic,
        }
    }

    /// Must be used before `self` is dropped.
    pub(crate) fn raw(&self) -> RKLLMRunExtension {
        let userdata = ptr::without_provenance_mut(self.run.get() as usize);
        let logprobs = self.logprobs;
        RKLLMRunExtension {
            size: size_of::<RKLLMRunExtension>(),
            logits_hook: self.has_hook.then_some(on_row),
            hook_userdata: userdata,
            logprobs_callback: logprobs.map(|_| runs_in_progress::on_logprobs as _),
            logprobs_userdata: userdata,
            n_logprobs: logprobs.map_or(0, |logprobs| logprobs.top.into()),
            end_tokens: self.ends.as_ptr(),
            n_end_tokens: self.ends.len(),
            min_tokens: self.min_tokens,
            deterministic: self.is_deterministic.into(),
            row_question: self.has_hook.then_some(before_row),
            prompt_logprobs: logprobs.map_or(0, |logprobs| logprobs.of_prompt.into()),
            logit_bias: self.biases.as_ptr(),
            n_logit_bias: self.biases.len(),
            seed: self.seed,
            min_p: self.min_p,
        }
    }
}

impl Drop for OwnedExtension {
    fn drop(&mut self) {
        if self.has_hook {
            lock(&HOOKS).remove(&self.run);
        }
    }
}

/// The hook that every library is given.
///
/// # Safety
/// `ids` and `logits` are NULL or arrays of these lengths, which nothing else uses during the call.
/// `userdata` may be anything.
unsafe extern "C" fn on_row(
    userdata: *mut c_void,
    ids: *const i32,
    n_ids: usize,
    logits: *mut f32,
    n_vocab: usize,
) -> c_int {
    let hook = RunId::new(userdata.addr() as u64).and_then(|id| lock(&HOOKS).get(&id).cloned());
    let Some(hook) = hook.filter(|_| !logits.is_null()) else {
        return ENDS_HERE;
    };
    // SAFETY: passed on from the caller, and not NULL.
    let (drawn, row) = unsafe {
        let drawn = match ids.is_null() {
            true => &[],
            false => slice::from_raw_parts(ids, n_ids),
        };
        (drawn, slice::from_raw_parts_mut(logits, n_vocab))
    };
    let asked = catch_unwind(AssertUnwindSafe(|| lock(&hook).on_row(drawn, row)));
    match asked {
        Ok(Draw::GoesOn) => GOES_ON,
        // The panic has been printed; a run that its hook does not see must not go on.
        Ok(Draw::EndsHere) | Err(_) => ENDS_HERE,
    }
}

/// What every library is given that asks before the hook.
///
/// # Safety
/// `ids` is NULL or an array of this length, which is not changed during the call. `userdata` may be
/// anything.
unsafe extern "C" fn before_row(userdata: *mut c_void, ids: *const i32, n_ids: usize) -> c_int {
    const IS_FREE: c_int = 0;
    const LOOKS: c_int = 1;
    const ENDS: c_int = 2;
    let hook = RunId::new(userdata.addr() as u64).and_then(|id| lock(&HOOKS).get(&id).cloned());
    let Some(hook) = hook else {
        return ENDS;
    };
    let drawn = match ids.is_null() {
        true => &[],
        // SAFETY: passed on from the caller, and not NULL.
        false => unsafe { slice::from_raw_parts(ids, n_ids) },
    };
    match catch_unwind(AssertUnwindSafe(|| lock(&hook).before_row(drawn))) {
        Ok(None) => LOOKS,
        Ok(Some(Draw::GoesOn)) => IS_FREE,
        Ok(Some(Draw::EndsHere)) | Err(_) => ENDS,
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Forbids(usize);

    impl LogitsHook for Forbids {
        fn on_row(&mut self, drawn: &[i32], logits: &mut [f32]) -> Draw {
            assert!(drawn.len() < 3, "it is asked once too often");
            logits[self.0] = f32::NEG_INFINITY;
            match drawn.len() {
                2 => Draw::EndsHere,
                _ => Draw::GoesOn,
            }
        }

        fn before_row(&mut self, drawn: &[i32]) -> Option<Draw> {
            (drawn.len() == 1).then_some(Draw::GoesOn)
        }
    }

    fn call(raw: &RKLLMRunExtension, drawn: &[i32], row: &mut [f32]) -> Option<c_int> {
        let hook = raw.logits_hook?;
        // SAFETY: arrays of these lengths.
        Some(unsafe {
            hook(
                raw.hook_userdata,
                drawn.as_ptr(),
                drawn.len(),
                row.as_mut_ptr(),
                row.len(),
            )
        })
    }

    #[test]
    fn a_hook_is_found_by_its_runs_number_as_long_as_the_run_lasts() {
        let Some(run) = RunId::new(u64::MAX - 17) else {
            unreachable!("it is not zero")
        };
        let extension = RunExtension {
            hook: Some(Box::new(Forbids(1))),
            ..RunExtension::default()
        };
        let owned = OwnedExtension::enter(run, extension);
        let raw = owned.raw();
        let mut row = [1.0, 2.0];
        assert_eq!(call(&raw, &[7], &mut row), Some(GOES_ON));
        assert_eq!(row, [1.0, f32::NEG_INFINITY]);
        assert_eq!(call(&raw, &[7, 8], &mut row), Some(ENDS_HERE));
        let before = |drawn: &[i32]| {
            let ask = raw.row_question?;
            // SAFETY: an array of this length.
            Some(unsafe { ask(raw.hook_userdata, drawn.as_ptr(), drawn.len()) })
        };
        assert_eq!(before(&[]), Some(1), "the hook looks at the row");
        assert_eq!(before(&[7]), Some(0), "it does not");
        let panics = call(&raw, &[7, 8, 9], &mut row);
        assert_eq!(panics, Some(ENDS_HERE), "a panic stays on this side");
        drop(owned);
        let mut late = [1.0, 2.0];
        assert_eq!(call(&raw, &[], &mut late), Some(ENDS_HERE));
        assert_eq!(late, [1.0, 2.0]);
    }

    #[test]
    fn a_library_that_says_nothing_is_of_the_first_version() {
        let whole = size_of::<RKLLMRunExtension>();
        for (size, version) in [
            (None, ExtensionVersion::First),
            (Some(0), ExtensionVersion::None),
            (Some(56), ExtensionVersion::First),
            (Some(SECOND_SIZE), ExtensionVersion::Second),
            (Some(whole), ExtensionVersion::Third),
            (Some(whole + 8), ExtensionVersion::Third),
        ] {
            assert_eq!(ExtensionVersion::of_size(size), version);
        }
    }

    #[test]
    fn an_extension_without_a_hook_gives_none() {
        let Some(run) = RunId::new(u64::MAX - 18) else {
            unreachable!("it is not zero")
        };
        let extension = RunExtension {
            logit_bias: vec![(3, -1.0)],
            seed: Some(5),
            ..RunExtension::default()
        };
        let owned = OwnedExtension::enter(run, extension);
        let raw = owned.raw();
        assert!(raw.logits_hook.is_none());
        assert_eq!((raw.seed, raw.n_logit_bias), (5, 1));
    }
}
