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
