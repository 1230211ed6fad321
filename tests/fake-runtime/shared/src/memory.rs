//! Memory that the fake takes so that its host is seen to grow: anonymous mappings with every page
//! written, given back as a whole when the model is destroyed.

use crate::model::lock;
use std::ptr::{self, NonNull};
use std::sync::Mutex;

pub const MIB: usize = 1 << 20;

#[derive(Default)]
pub struct Memory(Mutex<Vec<Mapping>>);

struct Mapping {
    address: NonNull<u8>,
    bytes: usize,
}

// SAFETY: memory of its own that nothing points to; unmapping works on every thread.
unsafe impl Send for Mapping {}

impl Memory {
    /// Takes so many bytes more, resident when this returns. Where the machine does not have
    /// them, the process aborts, as one that allocates them does.
    pub fn grow(&self, bytes: usize) {
        if bytes > 0 {
            lock(&self.0).push(Mapping::new(bytes));
        }
    }
}

impl Mapping {
    /// Not from the allocator: it would keep some of what is freed, and hand out some of what
    /// was freed before.
    fn new(bytes: usize) -> Mapping {
        // SAFETY: a new anonymous mapping at a place of the kernel's choosing.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            // SAFETY: ends the process.
            unsafe { libc::abort() };
        }
        let address = NonNull::new(address.cast::<u8>()).expect("a mapping is not at address 0");
        // SAFETY: writable memory of that size, just mapped.
        unsafe { address.write_bytes(0xA5, bytes) };
        Mapping { address, bytes }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping, which is not used any more.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.bytes) };
    }
}
