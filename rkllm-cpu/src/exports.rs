//! The functions of the ABI. Nothing unwinds across them: a panic becomes -1 and a line in the log.
//! A handle that is NULL, destroyed or not from here is -1 (`live_handles`), and so is every call
//! that would need the engine while it runs; only `rkllm_abort`, `rkllm_is_running` and
//! `rkllm_get_kv_cache_size` may come from another thread then.

use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

mod adapters;
mod live_handles;
mod prompt_cache;
mod run_extension;
mod runs;

use crate::abi::*;
use crate::enabled_cpus;
use crate::engine::Engine;
use crate::host_callbacks::HostCallbacks;
use crate::log::error;
use crate::marshalling::string_of;
use crate::run_state::{Occupation, RunState};
use live_handles::EndRefusal;

const OK: c_int = 0;
const FAILED: c_int = -1;

/// What an `LLMHandle` names.
struct Handle {
    /// None: it has been destroyed, and a call that found it before is still on its way.
    engine: Mutex<Option<Engine>>,
    state: Arc<RunState>,
    callback: LLMResultCallback,
    result_userdata: *mut c_void,
    /// The thread of the last `rkllm_run_async`, which uses this handle until it is joined.
    background: Mutex<Option<JoinHandle<()>>>,
}

// SAFETY: the callback and its userdata are the host's, only ever handed back to it; the engine is
// behind its lock and the rest is atomic.
unsafe impl Sync for Handle {}
// SAFETY: as above; nothing in it belongs to the thread that made it.
unsafe impl Send for Handle {}

/// The vendor's defaults where they are known; the CPUs are this machine's.
#[unsafe(no_mangle)]
pub extern "C" fn rkllm_createDefaultParam() -> RKLLMParam {
    let mask = enabled_cpus::default_mask(&enabled_cpus::available());
    RKLLMParam {
        model_path: std::ptr::null(),
        max_context_len: 512,
        max_new_tokens: -1,
        top_k: 40,
        n_keep: -1,
        top_p: 0.9,
        temperature: 0.8,
        repeat_penalty: 1.1,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        mirostat: 0,
        mirostat_tau: 5.0,
        mirostat_eta: 0.1,
        skip_special_token: true,
        ignore_eos_token: false,
        is_async: false,
        extend_param: RKLLMExtendParam {
            base_domain_id: 0,
            embed_flash: 1,
            enabled_cpus_num: mask.count_ones() as i8,
            enabled_cpus_mask: mask,
            n_batch: 1,
            use_cross_attn: 0,
            reserved: [0; 104],
        },
    }
}

/// Loads a model. The handle is written only on success.
///
/// # Safety
/// The pointers are NULL or point to what the ABI says; strings are NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rkllm_init(
    handle: *mut LLMHandle,
    param: *mut RKLLMParam,
    callback: *mut RKLLMCallback,
) -> c_int {
    guarded("rkllm_init", || {
        // SAFETY: by this function's contract, a pointer that is not NULL is valid.
        let (param, callback) = unsafe { (param.as_ref(), callback.as_ref()) };
        let (Some(param), Some(callback)) = (param, callback) else {
            error!("rkllm_init needs parameters and a callback, but got NULL");
            return FAILED;
        };
        let Some(result_callback) = callback.result_callback else {
            error!("rkllm_init needs a result_callback, but got NULL");
            return FAILED;
        };
        if !HostCallbacks::is_plausible(callback) {
            error!(
                "rkllm_init needs an RKLLMCallback with a result_callback, but got something else; \
                 was this program built for 1.2.x, which passes the function itself? This is 1.3.1: \
                 build it with its rkllm.h"
            );
            return FAILED;
        }
        if handle.is_null() {
            error!("rkllm_init needs a place for its handle, but got NULL");
            return FAILED;
        }
        let state = Arc::new(RunState::new(usize::from(param.extend_param.n_batch)));
        // SAFETY: the path is NULL or a C string by this function's contract.
        let engine = match unsafe { Engine::load(param, HostCallbacks::of(callback), &state) } {
            Ok(engine) => engine,
            Err(reason) => {
                error!("{reason}");
                error!("rkllm_init failed");
                return FAILED;
            }
        };
        let loaded = live_handles::give_out(Handle {
            engine: Mutex::new(Some(engine)),
            state,
            callback: result_callback,
            result_userdata: callback.result_userdata,
            background: Mutex::new(None),
        });
        // SAFETY: checked above, and valid for a write by this function's contract.
        unsafe { *handle = loaded };
        OK
    })
}

/// Frees a model. A run on another thread is aborted and waited for; from inside the callback it is
/// refused. The handle is dead from the moment of the call, except for that run's callback.
#[unsafe(no_mangle)]
pub extern "C" fn rkllm_destroy(handle: LLMHandle) -> c_int {
    guarded("rkllm_destroy", || {
        let ending = match live_handles::begin_to_end(handle) {
            Ok(ending) => ending,
            Err(EndRefusal::Dead) => {
                error!("rkllm_destroy needs {A_LIVE_HANDLE}");
                return FAILED;
            }
            Err(EndRefusal::InItsCallback) => {
                error!("rkllm_destroy is not possible inside the callback of a run");
                return FAILED;
            }
        };
        ending.state.close();
        ending.join_background();
        ending.state.wait_until_idle();
        let engine = ending
            .engine
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(engine);
        live_handles::forget(handle);
        OK
    })
}

/// Ends the run in progress, also in its prefill; without one, does nothing. Returns at once.
#[unsafe(no_mangle)]
pub extern "C" fn rkllm_abort(handle: LLMHandle) -> c_int {
    let Some(live) = live_handles::find(handle) else {
        return FAILED;
    };
    live.state.request_abort();
    OK
}

/// 1 while a run is in progress, 0 otherwise (a paused handle is not running).
#[unsafe(no_mangle)]
pub extern "C" fn rkllm_is_running(handle: LLMHandle) -> c_int {
    let Some(live) = live_handles::find(handle) else {
        return FAILED;
    };
    c_int::from(live.state.occupation() != Occupation::Idle)
}

/// Writes the tokens physically in the KV cache, also those kept only for reuse; `n_batch` integers.
///
/// # Safety
/// `cache_sizes` is NULL or has room for `n_batch` integers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rkllm_get_kv_cache_size(
    handle: LLMHandle,
    cache_sizes: *mut c_int,
) -> c_int {
    let Some(live) = live_handles::find(handle) else {
        return FAILED;
    };
    if cache_sizes.is_null() {
        return FAILED;
    }
    for (sequence, tokens) in live.state.kv_tokens().enumerate() {
        // SAFETY: by this function's contract there is room for each sequence.
        unsafe { cache_sizes.add(sequence).write(tokens as c_int) };
    }
    OK
}

/// Forgets history, cells and a paused generation; or, with a range for each sequence, those cells
/// of a paused one.
///
/// # Safety
/// The positions are NULL or `n_batch` integers each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rkllm_clear_kv_cache(
    handle: LLMHandle,
    keep_system_prompt: c_int,
    start_pos: *mut c_int,
    end_pos: *mut c_int,
) -> c_int {
    with_idle_engine(handle, "rkllm_clear_kv_cache", |engine| {
        if start_pos.is_null() && end_pos.is_null() {
            engine.clear(keep_system_prompt != 0);
            return OK;
        }
        if start_pos.is_null() || end_pos.is_null() {
            error!("rkllm_clear_kv_cache needs both a start and an end, or neither");
            return FAILED;
        }
        let ranges: Vec<_> = (0..engine.sequences())
            // SAFETY: not NULL, and one integer for each sequence by this function's contract.
            .map(|at| unsafe { (start_pos.add(at).read(), end_pos.add(at).read()) })
            .collect();
        match engine.clear_ranges(&ranges) {
            Ok(()) => OK,
            Err(reason) => {
                error!("{reason}");
                FAILED
            }
        }
    })
}

/// Replaces the chat template at once and clears the cache. Three empty strings: prompts are
/// tokenised as given. Prefix and postfix NULL: the model's own template with this system prompt.
///
/// # Safety
/// The strings are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rkllm_set_chat_template(
    handle: LLMHandle,
    system_prompt: *const c_char,
    prompt_prefix: *const c_char,
    prompt_postfix: *const c_char,
) -> c_int {
    // SAFETY: by this function's contract.
    let [system, prefix, postfix] =
        unsafe { [system_prompt, prompt_prefix, prompt_postfix].map(|text| string_of(text)) };
    with_idle_engine(handle, "rkllm_set_chat_template", |engine| {
        engine.set_template(system.as_deref(), prefix.as_deref(), postfix.as_deref());
        OK
    })
}

/// Gives tools (a JSON array) to the model's own template, with a system prompt that replaces any
/// other, and clears the cache. The last argument marks results in a template without a role for
/// them.
///
/// # Safety
/// The strings are NULL or NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rkllm_set_function_tools(
    handle: LLMHandle,
    system_prompt: *const c_char,
    tools: *const c_char,
    tool_response_str: *const c_char,
) -> c_int {
    // SAFETY: by this function's contract.
    let [system, tools, tag] =
        unsafe { [system_prompt, tools, tool_response_str].map(|text| string_of(text)) };
    with_idle_engine(handle, "rkllm_set_function_tools", |engine| {
        let tools = tools.as_deref().unwrap_or_default();
        let tag = tag.as_deref().unwrap_or_default();
        match engine.set_tools(system.as_deref(), tools, tag) {
            Ok(()) => OK,
            Err(reason) => {
                error!("{reason}");
                FAILED
            }
        }
    })
}

/// Refused: no model this runtime loads has cross attention. The parameters are not looked at.
#[unsafe(no_mangle)]
pub extern "C" fn rkllm_set_cross_attn_params(
    handle: LLMHandle,
    _cross_attn_params: *mut c_void,
) -> c_int {
    guarded("rkllm_set_cross_attn_params", || {
        if live("rkllm_set_cross_attn_params", handle).is_some() {
            error!("the model has no cross attention");
        }
        FAILED
    })
}

/// Runs `call` and turns a panic into -1.
fn guarded(name: &str, call: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        // A panic while logging must not escape either.
        let _ = catch_unwind(|| error!("{name} failed: internal error of the CPU runtime"));
        FAILED
    })
}

const A_LIVE_HANDLE: &str =
    "a live handle, but this one is NULL, destroyed, or not from rkllm_init";

/// None, with a line that says so, if the handle is dead or none of this library's.
fn live(name: &str, handle: LLMHandle) -> Option<Arc<Handle>> {
    let found = live_handles::find(handle);
    if found.is_none() {
        error!("{name} needs {A_LIVE_HANDLE}");
    }
    found
}

/// Calls `work` with the engine, unless a run has it.
fn with_idle_engine(
    handle: LLMHandle,
    name: &str,
    work: impl FnOnce(&mut Engine) -> c_int,
) -> c_int {
    guarded(name, || {
        let Some(live) = live(name, handle) else {
            return FAILED;
        };
        let is_running = || {
            let running = live.state.occupation() != Occupation::Idle;
            if running {
                error!("{name} is not possible while the model is running");
            }
            running
        };
        if is_running() {
            return FAILED;
        }
        match live.engine.lock().as_deref_mut() {
            // A run may have been accepted while this call waited for the lock, and its generation be
            // prepared already.
            Ok(Some(_)) if is_running() => FAILED,
            Ok(Some(engine)) => work(engine),
            Ok(None) => {
                error!("{name} needs {A_LIVE_HANDLE}");
                FAILED
            }
            Err(_) => {
                error!("{name} is not possible after an internal error; destroy this handle");
                FAILED
            }
        }
    })
}
