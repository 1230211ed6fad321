//! Nothing: what counts is in this crate's Cargo.toml.
