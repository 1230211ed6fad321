//! The library's functions over JSON-RPC 2.0.

mod protocol;
