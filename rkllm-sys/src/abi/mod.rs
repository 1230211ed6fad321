//! The C types of `librkllmrt.so`, one module per ABI family, and nothing that calls them.
//! The vendor changes layouts between releases without changing a symbol name, so a type from one
//! module must never be handed to a library of another family; where two families agree, the
//! later module re-exports the earlier one's type, and every layout is tested against the
//! measured facts in `tests/data/abi-facts.json`.
//!
//! C `bool` is a `u8` here and enums are `u32`: these values also come from the library, and a
//! Rust `bool` or `enum` holding a value it does not know would be undefined behaviour.

#![allow(non_camel_case_types)]

pub mod extension;
pub mod v1_1;
pub mod v1_2_0;
pub mod v1_2_1;
pub mod v1_2_1b1;
pub mod v1_3_0;
pub mod v1_3_1;

use core::ffi::c_void;

/// `LLMHandle`: opaque, written by `rkllm_init` only when it succeeds.
pub type LLMHandle = *mut c_void;

/// C++ `bool`, one byte, 0 or 1.
pub type CBool = u8;
