//! What llama.cpp calls in the place of two functions of ggml (`build.rs`). But for caches that are being
//! watched these only hand on.

use std::cell::RefCell;
use std::ffi::CStr;

use llama_cpp_sys_2 as llama;

use super::{CacheMemory, Layer, forget};

#[derive(Default)]
struct Watched {
    layers: Vec<Layer>,
    buffers: Vec<llama::ggml_backend_buffer_t>,
}

thread_local! {
    static WATCHED: RefCell<Option<Watched>> = const { RefCell::new(None) };
}

/// What `make` allocates for caches, on this thread.
pub(super) fn watch<T>(make: impl FnOnce() -> T) -> (T, CacheMemory) {
    WATCHED.set(Some(Watched::default()));
    let made = make();
    let watched = WATCHED.take().unwrap_or_default();
    (made, CacheMemory(watched.layers))
}

/// The layers among a context's tensors, once they have memory.
///
/// # Safety
/// The context is alive.
unsafe fn layers_of(context: *const llama::ggml_context) -> Vec<Layer> {
    let mut layers = Vec::new();
    // SAFETY: the caller vouches for the context, which owns its tensors and their names.
    unsafe {
        let mut tensor = llama::ggml_get_first_tensor(context);
        while let Some(found) = tensor.as_ref() {
            let name = CStr::from_ptr(found.name.as_ptr()).to_bytes();
            let is_cache = [&b"cache_k_l"[..], b"cache_v_l"]
                .iter()
                .any(|start| name.starts_with(start));
            // A part of another tensor is one stream of it.
            if is_cache && found.view_src.is_null() && !found.data.is_null() {
                layers.push(Layer {
                    first: found.data as usize,
                    row_bytes: found.nb[1],
                    stream_bytes: found.nb[2],
                    rows: usize::try_from(found.ne[1]).unwrap_or(0),
                    streams: usize::try_from(found.ne[2]).unwrap_or(0),
                });
            }
            tensor = llama::ggml_get_next_tensor(context, tensor);
        }
    }
    layers
}

unsafe extern "C" {
    #[cfg_attr(
        not(test),
        link_name = "__real_ggml_backend_alloc_ctx_tensors_from_buft"
    )]
    #[cfg_attr(test, link_name = "ggml_backend_alloc_ctx_tensors_from_buft")]
    fn allocate_as_ever(
        context: *mut llama::ggml_context,
        kind: llama::ggml_backend_buffer_type_t,
    ) -> llama::ggml_backend_buffer_t;

    #[link_name = "__real_ggml_backend_buffer_clear"]
    fn clear_as_ever(buffer: llama::ggml_backend_buffer_t, value: u8);
}

/// In the place of `ggml_backend_alloc_ctx_tensors_from_buft`.
unsafe extern "C" fn allocate(
    context: *mut llama::ggml_context,
    kind: llama::ggml_backend_buffer_type_t,
) -> llama::ggml_backend_buffer_t {
    // SAFETY: handed on.
    let buffer = unsafe { allocate_as_ever(context, kind) };
    WATCHED.with_borrow_mut(|watched| {
        if let Some(watched) = watched.as_mut().filter(|_| !buffer.is_null()) {
            // SAFETY: llama.cpp passes a context that is alive.
            let layers = unsafe { layers_of(context) };
            if !layers.is_empty() {
                watched.layers.extend(layers);
                watched.buffers.push(buffer);
            }
        }
    });
    buffer
}

/// In the place of `ggml_backend_buffer_clear`.
unsafe extern "C" fn clear(buffer: llama::ggml_backend_buffer_t, value: u8) {
    let is_watched = WATCHED.with_borrow(|watched| {
        let watched = watched.as_ref();
        watched.is_some_and(|watched| watched.buffers.contains(&buffer))
    });
    // SAFETY: llama.cpp passes a buffer that is alive; a watched one is of the CPU's, which has its bytes in
    // this process.
    unsafe {
        let is_forgotten = is_watched
            && value == 0
            && forget(
                llama::ggml_backend_buffer_get_base(buffer).cast(),
                llama::ggml_backend_buffer_get_size(buffer),
            );
        if !is_forgotten {
            clear_as_ever(buffer, value);
        }
    }
}

/// The names that the linker looks for. An attribute would export them beside the vendor's functions.
macro_rules! stand_before {
    ($name:literal, $function:path) => {
        #[cfg(target_arch = "x86_64")]
        stand_before!($name, $function, "jmp {function}");
        #[cfg(target_arch = "aarch64")]
        stand_before!($name, $function, "b {function}");
    };
    ($name:literal, $function:path, $jump:literal) => {
        std::arch::global_asm!(
            ".text",
            concat!(".globl __wrap_", $name),
            concat!(".hidden __wrap_", $name),
            concat!("__wrap_", $name, ":"),
            $jump,
            function = sym $function,
        );
    };
}

stand_before!("ggml_backend_alloc_ctx_tensors_from_buft", allocate);
stand_before!("ggml_backend_buffer_clear", clear);
