//! Printing as the vendor's library does: through C stdio to stdout, so that the host's buffering
//! decides when a line leaves the process.

use std::ffi::CString;

pub fn line(text: &str) {
    let text = CString::new(text.replace('\0', "\u{FFFD}")).expect("no NUL is left");
    // SAFETY: a C string that lives through the call.
    unsafe { libc::puts(text.as_ptr()) };
}

pub fn info(text: &str) {
    line(&format!("I rkllm: {text}"));
}

pub fn error(text: &str) {
    line(&format!("E rkllm: {text}"));
}

/// Exactly these bytes, at once: there may never be a newline after them.
pub fn bytes(bytes: &[u8]) {
    unsafe extern "C" {
        static stdout: *mut libc::FILE;
    }
    // SAFETY: C's own stream, which lives as long as the process, and bytes that live through the
    // calls.
    unsafe {
        libc::fwrite(bytes.as_ptr().cast(), 1, bytes.len(), stdout);
        libc::fflush(stdout);
    }
}
