//! `rkllm_run` and `rkllm_run_async`. Both take the handle first, so that of two runs one is refused
//! and an abort meets the run from its first moment; both refuse a bad request on the caller's
//! thread, with -1 and without a callback.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use super::{FAILED, Handle, OK, guarded, live};
use crate::abi::*;
use crate::generation::{Outcome, Report};
use crate::log::error;
use crate::marshalling::request_of;
use crate::results::Results;

/// Runs one prompt to its end, calling back on this thread; or, after a callback has returned 1,
/// goes on with the paused generation and does not read the input.
///
/// # Safety
/// The pointers are NULL or point to what the ABI says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rkllm_run(
    handle: LLMHandle,
    rkllm_input: *mut RKLLMInput,
    rkllm_infer_params: *mut RKLLMInferParam,
    userdata: *mut c_void,
) -> c_int {
    guarded("rkllm_run", || {
        let Some(live) = live("rkllm_run", handle) else {
            return FAILED;
        };
        let Some(_running) = live.state.begin() else {
            return refuse("rkllm_run is not possible while the model is running");
        };
        // SAFETY: by this function's contract.
        match unsafe { live.prepare(rkllm_input, rkllm_infer_params) } {
            Ok(_) => live.go_on(live.userdata_of_run(userdata)),
            Err(reason) => refuse(&reason),
        }
    })
}

/// As `rkllm_run`, but on a thread of its own: returns as soon as the request is accepted, and the
/// callbacks come on that thread. The input is read before it returns and need not outlive it.
///
/// # Safety
/// As for `rkllm_run`; the userdata may be used on another thread until FINISH or ERROR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rkllm_run_async(
    handle: LLMHandle,
    rkllm_input: *mut RKLLMInput,
    rkllm_infer_params: *mut RKLLMInferParam,
    userdata: *mut c_void,
) -> c_int {
    guarded("rkllm_run_async", || {
        let Some(live) = live("rkllm_run_async", handle) else {
            return FAILED;
        };
        let Some(running) = live.state.begin_elsewhere() else {
            return refuse("rkllm_run_async is not possible while the model is running");
        };
        // The last one's run is over, so its thread is about to end if it has not.
        live.join_background();
        // SAFETY: by this function's contract.
        let is_new = match unsafe { live.prepare(rkllm_input, rkllm_infer_params) } {
            Ok(is_new) => is_new,
            Err(reason) => return refuse(&reason),
        };
        let userdata = HostPointer(live.userdata_of_run(userdata));
        let thread = std::thread::Builder::new().name("rkllm-run".into());
        let handle = Arc::clone(&live);
        let spawned = thread.spawn(move || {
            running.adopt();
            handle.run_in_background(userdata);
        });
        match spawned {
            Ok(thread) => {
                *live
                    .background
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = Some(thread);
                OK
            }
            Err(reason) => {
                if is_new && let Ok(Some(engine)) = live.engine.lock().as_deref_mut() {
                    engine.discard_paused();
                }
                refuse(&format!("rkllm_run_async cannot start a thread: {reason}"))
            }
        }
    })
}

/// The host's userdata on its way to another thread.
#[derive(Clone, Copy)]
struct HostPointer(*mut c_void);

// SAFETY: the library never looks behind it; the host gave it for callbacks on that thread.
unsafe impl Send for HostPointer {}

impl Handle {
    /// userdata of the run wins over that of init.
    fn userdata_of_run(&self, userdata: *mut c_void) -> *mut c_void {
        if userdata.is_null() {
            self.result_userdata
        } else {
            userdata
        }
    }

    /// Readies the engine for `go_on`. False: a paused generation goes on, and nothing was read.
    ///
    /// # Safety
    /// The pointers are NULL or point to what the ABI says: `n_batch` inputs.
    unsafe fn prepare(
        &self,
        input: *const RKLLMInput,
        infer: *const RKLLMInferParam,
    ) -> Result<bool, String> {
        let mut engine = self.engine.lock().map_err(|_| {
            "a run is not possible after an internal error; destroy this handle".to_owned()
        })?;
        // It is there while a run is: who takes it waits for the run's end.
        let engine = engine.as_mut().ok_or("the handle is destroyed")?;
        if engine.is_paused() {
            return Ok(false);
        }
        let width = engine.embedding_width();
        let requests = (0..engine.sequences())
            // SAFETY: by this function's contract; `wrapping_add` leaves a NULL array's refusal to
            // its first element.
            .map(|at| unsafe { request_of(input.wrapping_add(at), infer, width) })
            .collect::<Result<Vec<_>, String>>()?;
        engine
            .prepare(&requests)
            .map_err(|refusal| refusal.to_string())?;
        Ok(true)
    }

    fn go_on(&self, userdata: *mut c_void) -> c_int {
        let mut engine = self.engine.lock();
        let Ok(Some(engine)) = engine.as_deref_mut() else {
            return FAILED;
        };
        let mut results = Results::of(engine.sequences());
        let mut report = |step: Report<'_>| results.call_back(self.callback, userdata, step);
        match engine.resume(&self.state, &mut report) {
            Outcome::Finished | Outcome::Paused => OK,
            Outcome::Failed => FAILED,
        }
    }

    /// The end is always told: no caller reads a return value here.
    fn run_in_background(&self, userdata: HostPointer) {
        let HostPointer(userdata) = userdata;
        if catch_unwind(AssertUnwindSafe(|| self.go_on(userdata))).is_err() {
            error!("rkllm_run_async failed: internal error of the CPU runtime");
            let sequences = self.state.kv_tokens().count();
            Results::of(sequences).call_back(self.callback, userdata, Report::Error);
        }
    }

    pub(super) fn join_background(&self) {
        let thread = self
            .background
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // Panics are caught inside it.
            let _ = thread.join();
        }
    }
}

fn refuse(reason: &str) -> c_int {
    error!("{reason}");
    FAILED
}
