//! The functions of one fake library, behind the exported ones: handles that are checked before
//! they are believed, and faults that come before anything else a call does.

use crate::answer::Answers;
use crate::console;
use crate::fault::{After, Call, Fault, Scene};
use crate::faults_of_a_run::faults_of_run;
use crate::generation::{Generation, Userdata};
use crate::late_callback;
use crate::layout::Layout;
use crate::load;
use crate::memory::{MIB, Memory};
use crate::model::{Cache, Callback, Model, lock};
use crate::params::{self, InitParams, Input, RunParams};
use crate::scenario::{Scenario, Template};
use std::ffi::{c_char, c_int, c_void};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const FAILED: c_int = -1;

/// One fake library.
pub struct Runtime {
    version: &'static str,
    pub layout: Layout,
    models: Mutex<Vec<Arc<Model>>>,
    calls: [AtomicU32; 13],
}

impl Runtime {
    pub const fn new(version: &'static str, layout: Layout) -> Runtime {
        Runtime {
            version,
            layout,
            models: Mutex::new(Vec::new()),
            calls: [const { AtomicU32::new(0) }; 13],
        }
    }

    /// # Safety
    /// As `rkllm_init`.
    pub unsafe fn init(
        &self,
        handle: *mut *mut c_void,
        param: *const c_void,
        callback: *const c_void,
    ) -> c_int {
        let occasion = self.count(Call::Init);
        if handle.is_null() || param.is_null() || callback.is_null() {
            console::error("rkllm_init: a NULL argument");
            return FAILED;
        }
        // SAFETY: not NULL, and of this family by the caller's promise.
        let (params, callback) = unsafe {
            (
                InitParams::read(&self.layout, param.cast()),
                self.callback(callback),
            )
        };
        let loaded = callback
            .ok_or_else(|| "no callback".to_owned())
            .and_then(|callback| self.load(params, callback, occasion));
        match loaded {
            Ok(Some(model)) => {
                // SAFETY: not NULL, and room for a pointer by the caller's promise.
                unsafe { handle.write(Arc::as_ptr(&model).cast_mut().cast()) };
                lock(&self.models).push(model);
                0
            }
            Ok(None) => 0,
            Err(reason) => {
                console::error(&reason);
                console::error("rkllm_init failed");
                FAILED
            }
        }
    }

    /// `None` is success without a handle.
    fn load(
        &self,
        params: InitParams,
        callback: Callback,
        occasion: u32,
    ) -> Result<Option<Arc<Model>>, String> {
        let path = params.model_path.clone();
        let scenario = Scenario::read(Path::new(&path))
            .map_err(|error| format!("scenario {path}: {error}"))?;
        let toolkit = scenario.toolkit_version.as_deref().unwrap_or(self.version);
        console::info(&format!(
            "rkllm-runtime version: {}, rknpu driver version: {}, platform: {}",
            self.version, scenario.driver_version, scenario.platform
        ));
        if self.layout.family != "abi_1_1" {
            console::info(&format!("loading rkllm model from {path}"));
            console::info(&format!(
                "rkllm-toolkit version: {toolkit}, max_context_limit: {}, npu_core_num: {}, \
                 target_platform: {}, model_dtype: {}",
                scenario.max_context_limit,
                scenario.npu_core_num,
                scenario.platform,
                scenario.model_dtype
            ));
        }
        let memory = Memory::default();
        let scene = Scene {
            folder: Path::new(&path).parent().unwrap_or(Path::new("")),
            memory: &memory,
        };
        for fault in applicable(&scenario.fault, Call::Init, occasion) {
            match fault.happen(scene) {
                After::GoOn => {}
                After::NullHandle => return Ok(None),
                _ => return Err("load model file error!".to_owned()),
            }
        }
        let delay = Duration::from_millis(scenario.load_delay_ms);
        load::take_time(delay, scenario.load_progress, &memory)?;
        params.check(scenario.max_context_limit)?;
        if let (Some(number), Some(mask)) = (params.enabled_cpus_num, params.enabled_cpus_mask) {
            let cores: Vec<u32> = (0..32).filter(|core| mask >> core & 1 == 1).collect();
            console::info(&format!("Enabled cpus: {cores:?}"));
            console::info(&format!("Enabled cpus num: {number}"));
        }
        if scenario.report_params {
            let report = serde_json::to_string(&params).map_err(|error| error.to_string())?;
            console::info(&format!("init params {report}"));
        }
        let answers = Answers::of(&scenario, params.skip_special_token != 0)
            .map_err(|error| format!("scenario {path}: {error}"))?;
        memory.grow(scenario.memory_mib as usize * MIB);
        Ok(Some(Arc::new(Model::new(
            scenario, answers, params, callback, memory,
        ))))
    }

    /// # Safety
    /// As `rkllm_run`.
    pub unsafe fn run(
        &self,
        handle: *mut c_void,
        input: *const c_void,
        infer: *const c_void,
        userdata: *mut c_void,
    ) -> c_int {
        let occasion = self.count(Call::Run);
        let Some(model) = self.model(handle) else {
            return FAILED;
        };
        if input.is_null() || infer.is_null() {
            console::error("rkllm_run: a NULL argument");
            return FAILED;
        }
        // SAFETY: not NULL, and of this family by the caller's promise.
        let (copied, params) = unsafe {
            (
                Input::read(&self.layout, input.cast()),
                RunParams::read(&self.layout, input.cast(), infer.cast()),
            )
        };
        let Some(copied) = copied else {
            console::error("rkllm_run: an input of an unknown type");
            return FAILED;
        };
        if let Some(name) = &params.lora
            && !lock(&model.set_up)
                .loras
                .iter()
                .any(|lora| lora.name == *name)
        {
            console::error(&format!("Not Found Lora adapter named: {name}"));
            return FAILED;
        }
        // SAFETY: an array of as many inputs as init was told, by the caller's promise.
        let others = unsafe { self.other_inputs(&model, input) };
        let Some(others) = others else {
            console::error("rkllm_run: an input of an unknown type");
            return FAILED;
        };
        if model.running.swap(true, Ordering::AcqRel) {
            console::error("rkllm_run: the handle is running already");
            return FAILED;
        }
        model.forget_abort();
        model.userdata.store(userdata, Ordering::Relaxed);
        let prompts: Vec<&[u8]> = std::iter::once(&copied)
            .chain(&others)
            .map(|input| input.text.as_slice())
            .collect();
        let (before, during): (Vec<Fault>, Vec<Fault>) = faults_of_run(&model, occasion, &prompts)
            .into_iter()
            .partition(Fault::precedes_the_run);
        let refused = before
            .iter()
            .find_map(|fault| match fault.happen(model.scene()) {
                After::Return(code) => Some(code),
                _ => None,
            });
        let code = refused.unwrap_or_else(|| {
            let more = model.scenario.memory_mib_per_run as usize * MIB;
            model.memory.grow(more);
            let generation = Generation {
                layout: &self.layout,
                model: &model,
                userdata: Userdata(userdata),
                params,
                faults: during,
            };
            generation.run(copied, others)
        });
        model.running.store(false, Ordering::Release);
        code
    }

    pub fn abort(&self, handle: *mut c_void) -> c_int {
        self.simple(Call::Abort, handle, |model| {
            model.abort();
            0
        })
    }

    pub fn is_running(&self, handle: *mut c_void) -> c_int {
        self.simple(Call::IsRunning, handle, |model| {
            c_int::from(model.running.load(Ordering::Acquire))
        })
    }

    pub fn clear_kv_cache(&self, handle: *mut c_void) -> c_int {
        self.simple(Call::ClearKvCache, handle, |model| {
            *lock(&model.cache) = Cache::default();
            0
        })
    }

    /// # Safety
    /// As `rkllm_get_kv_cache_size`.
    pub unsafe fn get_kv_cache_size(&self, handle: *mut c_void, sizes: *mut c_int) -> c_int {
        self.simple(Call::GetKvCacheSize, handle, |model| {
            if sizes.is_null() {
                return FAILED;
            }
            let goes_on = model.running.load(Ordering::Acquire);
            let tokens = match goes_on && model.scenario.cache_size_in_runs {
                true => model.tokens_in_run.load(Ordering::Relaxed),
                false => lock(&model.cache).tokens,
            };
            for sequence in 0..model.sequences() {
                // SAFETY: not NULL, and room for every sequence that init was told.
                unsafe { sizes.add(sequence).write(tokens) };
            }
            0
        })
    }

    /// # Safety
    /// As `rkllm_set_chat_template`.
    pub unsafe fn set_chat_template(
        &self,
        handle: *mut c_void,
        parts: [*const c_char; 3],
    ) -> c_int {
        // SAFETY: NULL or C strings by the caller's promise.
        let [system, prefix, postfix] = parts.map(|part| unsafe { params::text(part) });
        self.simple(Call::SetChatTemplate, handle, |model| {
            *lock(&model.template) = Template {
                system,
                prefix,
                postfix,
            };
            lock(&model.set_up).tools = None;
            *lock(&model.cache) = Cache::default();
            0
        })
    }

    pub fn destroy(&self, handle: *mut c_void) -> c_int {
        self.simple(Call::Destroy, handle, |model| {
            if model.running.load(Ordering::Acquire) {
                // The vendor's library crashes some time later; a test should learn at once.
                console::error("rkllm_destroy during a run");
                // SAFETY: ends the process.
                unsafe { libc::abort() };
            }
            lock(&self.models).retain(|kept| !ptr::eq(Arc::as_ptr(kept), model));
            0
        })
    }

    /// A function of the family that the fake does not have.
    pub fn unsupported(&self, function: &str) -> c_int {
        console::error(&format!("{function}: not in the fake runtime"));
        FAILED
    }

    pub fn simple(
        &self,
        call: Call,
        handle: *mut c_void,
        perform: impl FnOnce(&Model) -> c_int,
    ) -> c_int {
        let occasion = self.count(call);
        let Some(model) = self.model(handle) else {
            return FAILED;
        };
        let mut late = false;
        for fault in applicable(&model.scenario.fault, call, occasion) {
            match fault.happen(model.scene()) {
                After::Return(code) => return code,
                // Only destroy can have it.
                After::LateCallback => late = true,
                _ => {}
            }
        }
        let code = perform(&model);
        if late {
            let userdata = Userdata(model.userdata.load(Ordering::Relaxed));
            late_callback::send(&self.layout, model.callback, userdata);
        }
        code
    }

    /// The inputs of the sequences after the first, each at the stride of this family.
    ///
    /// # Safety
    /// `input` must point to as many inputs as init was told.
    unsafe fn other_inputs(&self, model: &Model, input: *const c_void) -> Option<Vec<Input>> {
        let stride = self.layout.get("RKLLMInput").bytes;
        (1..model.sequences())
            // SAFETY: passed on from the caller.
            .map(|at| unsafe { Input::read(&self.layout, input.cast::<u8>().add(at * stride)) })
            .collect()
    }

    fn model(&self, handle: *mut c_void) -> Option<Arc<Model>> {
        let found = lock(&self.models)
            .iter()
            .find(|model| ptr::addr_eq(Arc::as_ptr(model), handle))
            .cloned();
        if found.is_none() {
            console::error("a handle that is NULL or was destroyed");
        }
        found
    }

    /// The number of this call in the process, from 1.
    fn count(&self, call: Call) -> u32 {
        self.calls[call as usize].fetch_add(1, Ordering::Relaxed) + 1
    }

    /// # Safety
    /// `callback` must be the third argument of this family's `rkllm_init`.
    unsafe fn callback(&self, callback: *const c_void) -> Option<Callback> {
        // SAFETY: the function pointer itself, or the struct that holds it, by the family's
        // signature; an absent one is NULL, which is `None`.
        unsafe {
            if self.layout.init_takes_callback_struct {
                let fields = self.layout.get("RKLLMCallback");
                fields
                    .read::<Option<Callback>>(callback.cast(), "result_callback")
                    .flatten()
            } else {
                Some(std::mem::transmute::<*const c_void, Callback>(callback))
            }
        }
    }
}

fn applicable(faults: &[Fault], call: Call, occasion: u32) -> impl Iterator<Item = &Fault> {
    faults
        .iter()
        .filter(move |fault| fault.applies(call, occasion, b""))
}

/// The struct that `rkllm_createDefaultParam` returns: large enough to travel through a result
/// pointer on every architecture, as the vendor's does.
#[repr(C, align(8))]
pub struct DefaultParam<const BYTES: usize>([u8; BYTES]);

impl<const BYTES: usize> DefaultParam<BYTES> {
    pub fn of(layout: &Layout) -> Self {
        let mut bytes = [0; BYTES];
        params::write_defaults(layout, &mut bytes);
        DefaultParam(bytes)
    }
}
