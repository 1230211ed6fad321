//! The library's own name, as the dynamic linker knows it: the vendor's. A program that is linked
//! with either library then asks for that name and runs with both, wherever this file lies.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,librkllmrt.so");
}
