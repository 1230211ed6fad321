//! The exported functions, a macro for each release that brought some, so that a package says
//! with its macros which release it is.

/// The library itself: version text, parameters and the functions that all families have, except
/// for `rkllm_abort`, so that one package can lack it.
#[macro_export]
macro_rules! runtime {
    (version = $version:literal, layout = $layout:ident, defaults = $defaults:ident) => {
        use std::ffi::{c_char, c_int, c_void};
        use $crate::layout::{$defaults as DEFAULTS, $layout as LAYOUT};

        /// Where the vendor's libraries have it: among the read-only data.
        #[used]
        static SDK: &str = concat!(
            "RKLLM SDK (version: ",
            $version,
            " | target: Linux | build: fake)"
        );

        static RUNTIME: $crate::Runtime = $crate::Runtime::new($version, LAYOUT);

        #[unsafe(no_mangle)]
        pub extern "C" fn rkllm_createDefaultParam()
        -> $crate::DefaultParam<{ DEFAULTS.param_bytes }> {
            $crate::DefaultParam::of(&DEFAULTS)
        }

        /// # Safety
        /// As the vendor's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn rkllm_init(
            handle: *mut *mut c_void,
            param: *const c_void,
            callback: *const c_void,
        ) -> c_int {
            // SAFETY: passed on from the caller.
            unsafe { RUNTIME.init(handle, param, callback) }
        }

        /// # Safety
        /// As the vendor's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn rkllm_run(
            handle: *mut c_void,
            input: *const c_void,
            infer: *const c_void,
            userdata: *mut c_void,
        ) -> c_int {
            // SAFETY: passed on from the caller.
            unsafe { RUNTIME.run(handle, input, infer, userdata) }
        }

        #[unsafe(no_mangle)]
        pub extern "C" fn rkllm_run_async(
            _: *mut c_void,
            _: *const c_void,
            _: *const c_void,
            _: *mut c_void,
        ) -> c_int {
            RUNTIME.unsupported("rkllm_run_async")
        }

        #[unsafe(no_mangle)]
        pub extern "C" fn rkllm_is_running(handle: *mut c_void) -> c_int {
            RUNTIME.is_running(handle)
        }

        #[unsafe(no_mangle)]
        pub extern "C" fn rkllm_destroy(handle: *mut c_void) -> c_int {
            RUNTIME.destroy(handle)
        }

        /// # Safety
        /// As the vendor's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn rkllm_load_lora(
            handle: *mut c_void,
            adapter: *const c_void,
        ) -> c_int {
            // SAFETY: passed on from the caller.
            unsafe { RUNTIME.load_lora(handle, adapter) }
        }

        /// # Safety
        /// As the vendor's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn rkllm_load_prompt_cache(
            handle: *mut c_void,
            path: *const c_char,
        ) -> c_int {
            // SAFETY: passed on from the caller.
            unsafe { RUNTIME.load_prompt_cache(handle, path) }
        }

        #[unsafe(no_mangle)]
        pub extern "C" fn rkllm_release_prompt_cache(handle: *mut c_void) -> c_int {
            RUNTIME.release_prompt_cache(handle)
        }
    };
    (version = $version:literal, layout = $layout:ident) => {
        $crate::runtime!(version = $version, layout = $layout, defaults = $layout);
    };
}

/// `rkllm_abort`.
#[macro_export]
macro_rules! abort {
    () => {
        #[unsafe(no_mangle)]
        pub extern "C" fn rkllm_abort(handle: *mut c_void) -> c_int {
            RUNTIME.abort(handle)
        }
    };
}

/// What 1.2.0 brought.
#[macro_export]
macro_rules! since_1_2_0 {
    () => {
        $crate::set_chat_template!();

        #[unsafe(no_mangle)]
        pub extern "C" fn rkllm_clear_kv_cache(handle: *mut c_void, _: c_int) -> c_int {
            RUNTIME.clear_kv_cache(handle)
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! set_chat_template {
    () => {
        /// # Safety
        /// As the vendor's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn rkllm_set_chat_template(
            handle: *mut c_void,
            system: *const c_char,
            prefix: *const c_char,
            postfix: *const c_char,
        ) -> c_int {
            // SAFETY: passed on from the caller.
            unsafe { RUNTIME.set_chat_template(handle, [system, prefix, postfix]) }
        }
    };
}

/// What this project's CPU runtime has beyond the vendor's ABI. It takes what a run is told in this way, in the
/// size of the struct of today, and leaves it at that: what is answered is scripted.
#[macro_export]
macro_rules! run_extension {
    () => {
        #[unsafe(no_mangle)]
        pub extern "C" fn rkllm_run_extension_size() -> usize {
            112
        }

        #[unsafe(no_mangle)]
        pub extern "C" fn rkllm_set_run_extension(handle: *mut c_void, _: *const c_void) -> c_int {
            match handle.is_null() {
                true => -1,
                false => 0,
            }
        }
    };
}

/// What 1.2.0 brought, as 1.2.1 changed it, and what 1.2.1 brought.
#[macro_export]
macro_rules! since_1_2_1 {
    () => {
        $crate::set_chat_template!();

        /// # Safety
        /// As the vendor's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn rkllm_clear_kv_cache(
            handle: *mut c_void,
            _: c_int,
            start: *mut c_int,
            end: *mut c_int,
        ) -> c_int {
            // SAFETY: passed on from the caller.
            unsafe { RUNTIME.clear_kv_cache_ranges(handle, start, end) }
        }

        /// # Safety
        /// As the vendor's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn rkllm_get_kv_cache_size(
            handle: *mut c_void,
            sizes: *mut c_int,
        ) -> c_int {
            // SAFETY: passed on from the caller.
            unsafe { RUNTIME.get_kv_cache_size(handle, sizes) }
        }

        /// # Safety
        /// As the vendor's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn rkllm_set_function_tools(
            handle: *mut c_void,
            system: *const c_char,
            tools: *const c_char,
            tool_response: *const c_char,
        ) -> c_int {
            // SAFETY: passed on from the caller.
            unsafe { RUNTIME.set_function_tools(handle, [system, tools, tool_response]) }
        }

        /// # Safety
        /// As the vendor's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn rkllm_set_cross_attn_params(
            handle: *mut c_void,
            given: *const c_void,
        ) -> c_int {
            // SAFETY: passed on from the caller.
            unsafe { RUNTIME.set_cross_attn_params(handle, given) }
        }
    };
}
