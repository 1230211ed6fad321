//! The library's own name, as the dynamic linker knows it: the vendor's. A program that is linked
//! with either library then asks for that name and runs with both, wherever this file lies.
//!
//! And the two functions of ggml that `cache_memory` stands before: what llama.cpp calls by these names is
//! `__wrap_` and the name.

const STOOD_BEFORE: [&str; 2] = [
    "ggml_backend_alloc_ctx_tensors_from_buft",
    "ggml_backend_buffer_clear",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,librkllmrt.so");
    for function in STOOD_BEFORE {
        println!("cargo:rustc-cdylib-link-arg=-Wl,--wrap={function}");
    }
}
