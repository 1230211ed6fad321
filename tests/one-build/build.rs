//! Nothing: what counts is in Cargo.toml.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
