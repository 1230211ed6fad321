//! What is taken of memory, counted by an allocator of these tests' own.

mod counting;
mod ipc_frames_are_bounded;
mod plain_tokens_take_no_memory;
