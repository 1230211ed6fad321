//! The C library's standard output, which the runtime prints to. Ours is a pipe, and C would
//! buffer it in blocks: lines would arrive long after the call they explain, or never.
#![allow(unsafe_code)]

use std::ptr;

unsafe extern "C" {
    #[link_name = "stdout"]
    static C_STDOUT: *mut libc::FILE;
}

/// Lines leave the process when they end.
pub fn make_line_buffered() {
    // SAFETY: `stdout` is initialised by the C library before main; setvbuf with a NULL buffer
    // lets it allocate its own, and nothing was printed yet.
    unsafe { libc::setvbuf(C_STDOUT, ptr::null_mut(), libc::_IOLBF, 0) };
}

/// Writes out what the library printed without ending the line. Called on the thread that made the
/// call: a library that hangs while it prints holds the stream's lock.
pub fn flush() {
    // SAFETY: fflush(NULL) flushes every open output stream and has no other requirement.
    unsafe { libc::fflush(ptr::null_mut()) };
}
