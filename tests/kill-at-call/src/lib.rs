//! Preloaded into a program (`LD_PRELOAD`), it ends that by SIGKILL right before the call of the C library that
//! `KILL_AT_CALL` says, counted from 1, of those that make, name, remove, cut or sync what is in a folder: the only
//! places between which something on the disk can be half done. It says on standard error which call that was. Without
//! the variable nothing changes.

use std::ffi::{c_char, c_int, c_long, c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

const SIGKILL: c_int = 9;
/// The definition behind this one (`dlfcn.h`).
const RTLD_NEXT: *mut c_void = std::ptr::without_provenance_mut(usize::MAX);

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn raise(signal: c_int) -> c_int;
}

static CALLS: AtomicU64 = AtomicU64::new(0);

/// Before each of the calls; no more is done where it is the one.
fn comes(name: &str) {
    let Some(last) = std::env::var_os("KILL_AT_CALL") else {
        return;
    };
    let last = last.to_str().and_then(|last| last.parse::<u64>().ok());
    let last = last.expect("KILL_AT_CALL is a number");
    let nth = CALLS.fetch_add(1, Ordering::SeqCst) + 1;
    if nth == last {
        eprintln!("killed before call {nth}: {name}");
        // SAFETY: it takes a number, and the process ends in it.
        unsafe { raise(SIGKILL) };
    }
}

macro_rules! counted {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {$(
        /// As the C library's of this name, whose contract its caller keeps.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $kind),*) -> c_int {
            type Call = unsafe extern "C" fn($($kind),*) -> c_int;
            comes(stringify!($name));
            // SAFETY: the name ends with a NUL, and the handle is one that dlsym knows.
            let next = unsafe { dlsym(RTLD_NEXT, concat!(stringify!($name), "\0").as_ptr().cast()) };
            assert!(!next.is_null(), "the C library has it");
            // SAFETY: it is the C library's function of this name, which has this type.
            let next = unsafe { std::mem::transmute::<*mut c_void, Call>(next) };
            // SAFETY: the arguments are the caller's.
            unsafe { next($($argument),*) }
        }
    )*};
}

counted! {
    fsync(file: c_int);
    fdatasync(file: c_int);
    ftruncate64(file: c_int, length: c_long);
    rename(from: *const c_char, to: *const c_char);
    mkdir(path: *const c_char, mode: c_uint);
    rmdir(path: *const c_char);
    unlink(path: *const c_char);
    chmod(path: *const c_char, mode: c_uint);
}
