//! What other tests do in the same process is measured as well, so `scripts/check` runs modules of this name apart.

use std::io::Write as _;

use super::super::measure;

/// Fills memory of this process and looks at the difference.
#[test]
fn own_memory_is_seen_and_mapped_files_are_not() {
    const AMOUNT: usize = 64 << 20;
    const MARGIN: u64 = 16 << 20;
    let measure = || measure(std::process::id()).expect("this process lives");

    let before = measure();
    let filled = vec![1_u8; AMOUNT];
    std::hint::black_box(&filled);
    let full = measure();
    assert!(full.anonymous_bytes > before.anonymous_bytes + AMOUNT as u64 - MARGIN);
    drop(filled);

    let mut file = tempfile::tempfile().expect("a temporary file");
    let block = vec![1_u8; 1 << 20];
    for _ in 0..AMOUNT >> 20 {
        file.write_all(&block).expect("room for the file");
    }
    let before = measure();
    let mapped = mapping::Mapping::of(&file, AMOUNT);
    mapped.read_every_page();
    let after = measure();
    assert!(
        after.total_bytes() < before.total_bytes() + MARGIN,
        "{before:?} {after:?}"
    );
}

/// A file mapped into memory, as the CPU runtime maps a model.
#[allow(unsafe_code, reason = "there is no safe way to map a file")]
mod mapping {
    use std::ffi::c_void;
    use std::fs::File;
    use std::ptr;

    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

    pub struct Mapping {
        start: *mut c_void,
        length: usize,
    }

    impl Mapping {
        pub fn of(file: &File, length: usize) -> Self {
            // SAFETY: a new mapping at an address of the kernel's choice replaces no other.
            let start = unsafe {
                let protection = ProtFlags::READ;
                mmap(
                    ptr::null_mut(),
                    length,
                    protection,
                    MapFlags::SHARED,
                    file,
                    0,
                )
            };
            let start = start.expect("the file can be mapped");
            Self { start, length }
        }

        pub fn read_every_page(&self) {
            for offset in (0..self.length).step_by(rustix::param::page_size()) {
                // SAFETY: within the mapping, which lives as long as `self`; the file is not
                // shortened.
                let byte = unsafe { self.start.cast::<u8>().add(offset).read_volatile() };
                assert_eq!(byte, 1);
            }
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: the mapping is of this length and nothing points into it any more.
            let _ = unsafe { munmap(self.start, self.length) };
        }
    }
}
