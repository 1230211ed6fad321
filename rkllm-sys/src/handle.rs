//! A loaded model. Its calls are serial except for the three that are made while it runs, which
//! [`ControlHandle`] carries to other threads; it is destroyed once, and no call reaches the
//! library after that.

mod control;

use crate::abi::{v1_2_1, v1_3_0, v1_3_1};
use crate::error::CallError;
use crate::family::Family;
use crate::handle_calls::OwnedCrossAttention;
use crate::init::{EffectiveSampling, Sampling};
use crate::input::{OwnedInput, RunInput, RunItem};
use crate::library::Library;
use crate::result::{ReleaseBuffer, ResultSink};
use crate::run::{OwnedExtras, PerRun, RunExtras, RunId, RunOptions};
use crate::run_extension::{OwnedExtension, RunExtension};
use crate::runs_in_progress;
use crate::symbols::{self, FamilyCalls};
use std::ffi::{CString, c_int, c_void};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, TryLockError};

/// A model loaded by [`Library::init`]. Dropping it destroys it and ignores what the library says
/// to that; [`destroy`](Handle::destroy) tells.
pub struct Handle {
    pub(crate) control: ControlHandle,
    sampling: EffectiveSampling,
    /// Held by every call that must not overlap another (docs/vendor-library.md §2).
    serial: Mutex<()>,
    /// What the library was given last: the vendor does not say whether it copies it. Freed after
    /// the model, which is destroyed before fields are dropped.
    pub(crate) cross_attention: Mutex<Vec<OwnedCrossAttention>>,
}

/// The calls that are allowed while the model runs, from any thread and from inside a sink.
/// After the model is destroyed they return [`CallError::Destroyed`].
#[derive(Clone)]
pub struct ControlHandle(Arc<Shared>);

struct Shared {
    library: Arc<Library>,
    /// Sequences a run works on, as init was told.
    sequences: usize,
    /// `None` once the model is destroyed. Control calls hold it for reading, so that destroying
    /// waits for them.
    raw: RwLock<Option<RawHandle>>,
}

#[derive(Clone, Copy)]
struct RawHandle(NonNull<c_void>);

// SAFETY: the library's calls take the handle on any thread: run on one while abort, is_running
// and get_kv_cache_size are called on others is its documented use, all else is serialised by
// `Handle::serial`, and destroying waits for all of them.
unsafe impl Send for RawHandle {}
// SAFETY: as above; the pointer itself is never dereferenced on this side.
unsafe impl Sync for RawHandle {}

impl Handle {
    /// # Safety
    /// `raw` must come from `rkllm_init` of `library` and have no other owner.
    pub(crate) unsafe fn new(
        library: Arc<Library>,
        raw: NonNull<c_void>,
        sampling: EffectiveSampling,
        sequences: u8,
    ) -> Handle {
        let shared = Shared {
            library,
            sequences: usize::from(sequences),
            raw: RwLock::new(Some(RawHandle(raw))),
        };
        Handle {
            control: ControlHandle(Arc::new(shared)),
            sampling,
            serial: Mutex::new(()),
            cross_attention: Mutex::default(),
        }
    }

    /// The calls that other threads may make while this one runs.
    pub fn control(&self) -> ControlHandle {
        self.control.clone()
    }

    pub fn library(&self) -> &Library {
        &self.control.0.library
    }

    /// Sampling and max-new-tokens per run, if the family has them.
    pub fn per_run(&self) -> Option<PerRun> {
        let family = self.library().family();
        family.has_per_run_sampling().then_some(PerRun(()))
    }

    /// What a run draws with that is given `sampling`, with a value for every setting.
    pub fn sampling(&self, of_run: &Sampling) -> Sampling {
        let at_init = self.sampling;
        match self.per_run() {
            Some(_) => at_init.with(of_run).all(),
            None => at_init.all(),
        }
    }

    /// The answer [`Flow::ReleaseBuffer`](crate::Flow::ReleaseBuffer), if the family has it.
    pub fn release_buffer(&self) -> Option<ReleaseBuffer> {
        let family = self.library().family();
        family.has_release_buffer().then_some(ReleaseBuffer(()))
    }

    /// Runs the model on `input` (`rkllm_run`). Blocks until the run has ended; `sink` gets its
    /// results meanwhile and is dropped before this returns.
    ///
    /// # Errors
    /// [`CallError::Failed`] when the library refuses or breaks off the run (a prompt longer than
    /// the context: code -1 and no result at all), [`CallError::SinkPanicked`],
    /// [`CallError::Busy`], [`CallError::RunIdInUse`], [`CallError::InteriorNul`],
    /// [`CallError::NotInFamily`] for per-run settings made with another library's [`PerRun`].
    pub fn run(
        &self,
        input: &RunInput<'_>,
        options: &RunOptions,
        run: RunId,
        sink: Box<dyn ResultSink>,
    ) -> Result<(), CallError> {
        let items = [RunItem::user(*input)];
        self.run_batch(&items, options, &RunExtras::default(), run, sink)
    }

    /// As [`run`](Self::run), with what only some libraries take of a run.
    ///
    /// # Errors
    /// Those of [`run`](Self::run), and [`CallError::SymbolMissing`] for a library that takes no
    /// extensions.
    pub fn run_extended(
        &self,
        input: &RunInput<'_>,
        options: &RunOptions,
        (extras, extension): (&RunExtras<'_>, RunExtension),
        run: RunId,
        sink: Box<dyn ResultSink>,
    ) -> Result<(), CallError> {
        let items = [RunItem::user(*input)];
        let beside = (extras, Some(extension));
        self.run_items(&items, options, beside, run, sink)
    }

    /// Runs the model on one item a sequence, as many as init was told (`n_batch`); the sink gets
    /// the results of all sequences with each callback.
    ///
    /// # Errors
    /// Those of [`run`](Self::run), [`CallError::OutOfRange`] for another number of items, and
    /// [`CallError::NotInLibrary`] for one that idles where the library knows none.
    pub fn run_batch(
        &self,
        items: &[RunItem<'_>],
        options: &RunOptions,
        extras: &RunExtras<'_>,
        run: RunId,
        sink: Box<dyn ResultSink>,
    ) -> Result<(), CallError> {
        self.run_items(items, options, (extras, None), run, sink)
    }

    fn run_items(
        &self,
        items: &[RunItem<'_>],
        options: &RunOptions,
        (extras, extension): (&RunExtras<'_>, Option<RunExtension>),
        run: RunId,
        sink: Box<dyn ResultSink>,
    ) -> Result<(), CallError> {
        let sequences = self.control.0.sequences;
        if items.len() != sequences {
            return Err(CallError::OutOfRange {
                what: "the number of inputs",
                value: items.len().to_string(),
                allowed: "it must be n_batch of init, which is 1 unless set",
            });
        }
        let is_idle = |item: &RunItem<'_>| matches!(item.input, RunInput::Nothing);
        let is_taken = sequences > 1 && self.library().takes_idle_sequences();
        if items.iter().any(is_idle) && !is_taken {
            return Err(CallError::NotInLibrary {
                what: "a sequence without an input",
                version: self.library().version().to_owned(),
            });
        }
        let _serial = self.serial("rkllm_run")?;
        let raw = self.control.raw("rkllm_run")?;
        let mut owned: Vec<OwnedInput> = items
            .iter()
            .map(OwnedInput::copy_of)
            .collect::<Result<_, _>>()?;
        let mut extras = OwnedExtras::copy_of(extras)?;
        let version = self.library().version();
        if options.per_run.is_some() && self.per_run().is_none() {
            return Err(CallError::NotInFamily {
                what: "set sampling or max-new-tokens for one run",
                version: self.library().version().to_owned(),
            });
        }
        let userdata = ptr::without_provenance_mut::<c_void>(run.get() as usize);
        let mut inputs = Inputs::of(&mut owned, self.library().family(), version)?;
        let entry = runs_in_progress::enter(run, options.mode, self.control(), sink)?;
        // The number is this run's now.
        let extension = extension.map(|extension| OwnedExtension::enter(run, extension));
        if let Some(extension) = &extension {
            self.extend_next_run(raw, extension)?;
        }
        let code = match self.library().symbols().family_calls {
            FamilyCalls::V1_2_1 { run, .. } => {
                let mut infer = options.v1_2_1(&mut extras);
                // SAFETY: the handle is alive: destroying needs `self`, which is borrowed. The
                // types are those of the library's family, there are as many inputs as init was
                // told, and what they point to (`owned`, `extras`) lives through the call, which
                // returns when the run has ended.
                unsafe { run(raw.as_ptr(), inputs.first(), &mut infer, userdata) }
            }
            FamilyCalls::V1_3 { run, .. } => {
                let mut sampling = options.sampling(self.sampling);
                let mut infer = options.v1_3(sampling.as_mut(), &mut extras);
                // SAFETY: as above; `sampling` lives through the call too. The inputs of a 1.3.0
                // library are an array of its own struct.
                unsafe { run(raw.as_ptr(), inputs.first(), &mut infer, userdata) }
            }
        };
        drop(extension);
        entry.leave()?;
        self.library().succeeded("rkllm_run", code)
    }

    fn extend_next_run(
        &self,
        raw: NonNull<c_void>,
        extension: &OwnedExtension,
    ) -> Result<(), CallError> {
        const NAME: &str = "rkllm_set_run_extension";
        let library = self.library();
        let set = symbols::require(library.symbols().set_run_extension, NAME, library.version())?;
        // SAFETY: the handle is alive because `self` is; the extension lives through the call, which
        // copies it.
        let code = unsafe { set(raw.as_ptr(), &extension.raw()) };
        library.succeeded(NAME, code)
    }

    /// See [`ControlHandle::abort`].
    pub fn abort(&self) -> Result<(), CallError> {
        self.control.abort()
    }

    /// See [`ControlHandle::is_running`].
    pub fn is_running(&self) -> Result<bool, CallError> {
        self.control.is_running()
    }

    /// See [`ControlHandle::kv_cache_size`].
    pub fn kv_cache_size(&self) -> Result<i32, CallError> {
        self.control.kv_cache_size()
    }

    /// Empties the KV cache (`rkllm_clear_kv_cache`), except for the system prompt if
    /// `keep_system`.
    pub fn clear_kv_cache(&self, keep_system: bool) -> Result<(), CallError> {
        const NAME: &str = "rkllm_clear_kv_cache";
        let _serial = self.serial(NAME)?;
        let raw = self.control.raw(NAME)?;
        let library = self.library();
        let clear = symbols::require(library.symbols().clear_kv_cache, NAME, library.version())?;
        // SAFETY: the handle is alive because `self` is; without ranges the pointers are NULL.
        let code = unsafe {
            clear(
                raw.as_ptr(),
                c_int::from(keep_system),
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        library.succeeded(NAME, code)
    }

    /// Replaces the chat template (`rkllm_set_chat_template`) at once; this clears the KV cache
    /// and turns the model's own template off. With three empty strings a prompt is tokenised
    /// exactly as given.
    pub fn set_chat_template(
        &self,
        system: &str,
        prefix: &str,
        postfix: &str,
    ) -> Result<(), CallError> {
        const NAME: &str = "rkllm_set_chat_template";
        let _serial = self.serial(NAME)?;
        let raw = self.control.raw(NAME)?;
        let library = self.library();
        let set = symbols::require(library.symbols().set_chat_template, NAME, library.version())?;
        let system = c_string("the system prompt of the chat template", system)?;
        let prefix = c_string("the prefix of the chat template", prefix)?;
        let postfix = c_string("the postfix of the chat template", postfix)?;
        // SAFETY: the handle is alive because `self` is; the strings live through the call.
        let code = unsafe {
            set(
                raw.as_ptr(),
                system.as_ptr(),
                prefix.as_ptr(),
                postfix.as_ptr(),
            )
        };
        library.succeeded(NAME, code)
    }

    /// Frees the model (`rkllm_destroy`). No run can be in progress, because a run borrows the
    /// handle; control calls in progress are waited for.
    pub fn destroy(self) -> Result<(), CallError> {
        self.control.destroy()
    }

    pub(crate) fn serial(&self, function: &'static str) -> Result<MutexGuard<'_, ()>, CallError> {
        match self.serial.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(CallError::Busy { function }),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Destroyed already after `destroy`; and a drop has no caller to tell.
        let _ = self.control.destroy();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Handle")
            .field(self.library())
            .finish()
    }
}

pub(crate) fn c_string(what: &'static str, text: &str) -> Result<CString, CallError> {
    CString::new(text).map_err(|error| CallError::InteriorNul {
        what,
        position: error.nul_position(),
    })
}

/// The inputs of a run as an array of the library's own struct.
enum Inputs {
    V1_2_1(Vec<v1_2_1::RKLLMInput>),
    V1_3_0(Vec<v1_3_0::RKLLMInput>),
    V1_3_1(Vec<v1_3_1::RKLLMInput>),
}

impl Inputs {
    fn of(owned: &mut [OwnedInput], family: Family, version: &str) -> Result<Self, CallError> {
        let owned = owned.iter_mut();
        Ok(if family >= Family::V1_3_1 {
            Inputs::V1_3_1(owned.map(OwnedInput::v1_3_1).collect())
        } else if family >= Family::V1_3_0 {
            let inputs: Result<_, _> = owned.map(|input| input.v1_3_0(version)).collect();
            Inputs::V1_3_0(inputs?)
        } else {
            let inputs: Result<_, _> = owned.map(|input| input.v1_2_1(version)).collect();
            Inputs::V1_2_1(inputs?)
        })
    }

    /// Where the array begins, for the function of the same family.
    fn first<T>(&mut self) -> *mut T {
        match self {
            Inputs::V1_2_1(inputs) => inputs.as_mut_ptr().cast(),
            Inputs::V1_3_0(inputs) => inputs.as_mut_ptr().cast(),
            Inputs::V1_3_1(inputs) => inputs.as_mut_ptr().cast(),
        }
    }
}
