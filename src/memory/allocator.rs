//! What glibc's allocator is told. Its defaults keep the memory of a burst for good: an arena a core,
//! a threshold for mappings that grows with each large block, and a heap that shrinks only at its top.
//! No other allocator is used, since those that keep less break on kernels with pages of 16 or 64 KiB.
//! And how the kernel gets back what the program's start has mapped of its code.

#![allow(unsafe_code)]

use std::ffi::c_int;

/// Arenas, in which the freed parts of a burst stay. Two threads serve sockets.
const ARENAS: c_int = 2;
/// Blocks from this size on are mapped, and go back to the kernel with their end.
const MAPPED_BYTES: c_int = 128 * 1024;
/// What may stay free at the top of a heap.
const SPARE_BYTES: c_int = 1024 * 1024;

/// To be called before the first thread starts.
pub(crate) fn prepare() {
    for (parameter, value) in [
        (libc::M_ARENA_MAX, ARENAS),
        (libc::M_MMAP_THRESHOLD, MAPPED_BYTES),
        (libc::M_TRIM_THRESHOLD, SPARE_BYTES),
    ] {
        // SAFETY: mallopt takes any integers, and refuses those it does not know.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// Gives every free page to the kernel. Other threads may have to wait for their arena meanwhile, a
/// millisecond for some tens of megabytes.
pub(super) fn trim() {
    // SAFETY: malloc_trim locks each arena itself and has no other precondition.
    unsafe { libc::malloc_trim(0) };
}

unsafe extern "C" {
    /// The program's first byte, as its linker tells it, …
    static __executable_start: u8;
    /// … and the first one behind its code.
    static etext: u8;
}

/// Lets go of the program's code: the kernel maps 64 KiB around each page that runs, and most of what
/// was mapped so is of the start alone. What runs again comes back from the page cache.
pub(crate) fn release_code() {
    let first = &raw const __executable_start;
    let page = rustix::param::page_size();
    let bytes = (&raw const etext).addr().saturating_sub(first.addr()) / page * page;
    // SAFETY: what lies between the two is mapped from the program's file for reading and running, so
    // its pages are read again as they were; what relocations change comes behind it.
    let result = unsafe {
        rustix::mm::madvise(
            first.cast_mut().cast(),
            bytes,
            rustix::mm::Advice::LinuxDontNeed,
        )
    };
    if let Err(error) = result {
        tracing::debug!(%error, "the code of the start stays mapped");
    }
}
