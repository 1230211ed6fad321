//! The memory behind a KV cache of streams, of which only what holds cells is real. llama.cpp writes zeros
//! to all of a cache when it makes it, which would take memory for a whole context of each sequence; here
//! the kernel gives a page when a cell is first written to it, and takes it back when `CacheMemory` says so.
//! A page that was taken back reads as zeros, as in a new cache: llama.cpp masks free cells and reads nothing
//! else from them.
//!
//! The linker has llama.cpp call `hooks` where it allocates and clears.

use std::ffi::c_void;
use std::ops::Range;

// Unit tests are linked as llama.cpp is.
#[cfg(not(test))]
mod hooks;

/// Of all layers.
#[derive(Debug, Default)]
pub(crate) struct CacheMemory(Vec<Layer>);

/// The keys or the values of one layer: a row for each cell of each stream.
#[derive(Clone, Copy, Debug)]
struct Layer {
    first: usize,
    row_bytes: usize,
    stream_bytes: usize,
    rows: usize,
    streams: usize,
}

impl CacheMemory {
    /// What `make` allocates for caches, on this thread.
    pub(crate) fn watch<T>(make: impl FnOnce() -> T) -> (T, CacheMemory) {
        #[cfg(not(test))]
        return hooks::watch(make);
        #[cfg(test)]
        (make(), CacheMemory::default())
    }

    /// There is a row for each cell of so many streams, in some layer; in others, which look back over a
    /// window, there may be fewer.
    pub(crate) fn has(&self, streams: usize, cells: usize) -> bool {
        let all = |layer: &Layer| layer.streams == streams;
        self.0.iter().all(all) && self.0.iter().any(|layer| layer.rows >= cells)
    }

    /// The kernel takes back the pages of a stream's cells from `from` on, which hold nothing. `from` is 0 or
    /// counts cells that lie in the order of their positions, which those of a window do not.
    ///
    /// # Safety
    /// The cache is alive and not being used, and these cells are free.
    pub(crate) unsafe fn give_back(&self, stream: usize, from: usize, cells: usize) {
        for layer in &self.0 {
            if from > 0 && layer.rows < cells {
                continue;
            }
            let begin = layer.first + stream * layer.stream_bytes;
            let freed = begin + from.min(layer.rows) * layer.row_bytes
                ..begin + layer.rows * layer.row_bytes;
            let pages = whole_pages(&freed);
            // SAFETY: the pages lie in the cache, and by the caller's word nothing is in them.
            unsafe { advise(&pages, libc::MADV_DONTNEED) };
        }
    }
}

fn page_bytes() -> usize {
    // SAFETY: it has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).unwrap_or(1 << 16)
}

/// The whole pages in a range of addresses.
fn whole_pages(range: &Range<usize>) -> Range<usize> {
    let page = page_bytes();
    let start = range.start.next_multiple_of(page);
    start..(range.end / page * page).max(start)
}

/// False: the kernel refuses, and the pages are as they were.
///
/// # Safety
/// The pages are this process's own, and it does not matter what the kernel does with them.
unsafe fn advise(pages: &Range<usize>, advice: i32) -> bool {
    // SAFETY: the caller vouches for it.
    pages.is_empty()
        || unsafe { libc::madvise(pages.start as *mut c_void, pages.len(), advice) } == 0
}

/// Like `ggml_backend_buffer_clear` with 0, without a page taken. False: the kernel refuses.
///
/// # Safety
/// `first` is the first of `length` bytes of this process's own memory.
unsafe fn forget(first: *mut u8, length: usize) -> bool {
    let all = first as usize..first as usize + length;
    let pages = whole_pages(&all);
    // Huge pages would be taken as a whole for one cell. Kernels without them refuse to do without.
    // SAFETY: the caller vouches for the memory.
    let is_forgotten = unsafe {
        advise(&pages, libc::MADV_NOHUGEPAGE);
        advise(&pages, libc::MADV_DONTNEED)
    };
    if !is_forgotten {
        return false;
    }
    let (before, after) = match pages.is_empty() {
        true => (length, length),
        false => (pages.start - all.start, pages.end - all.start),
    };
    // SAFETY: as above.
    unsafe {
        first.write_bytes(0, before);
        first.add(after).write_bytes(0, length - after);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Zeros where the kernel has taken pages back, and ones.
    fn zeros(bytes: &[u8]) -> usize {
        assert!(bytes.iter().all(|&byte| byte <= 1));
        bytes.iter().filter(|&&byte| byte == 0).count()
    }

    #[test]
    fn whole_pages_of_free_cells_are_given_back() {
        let page = page_bytes();
        let mut bytes = vec![1_u8; 64 * page];
        let first = (bytes.as_ptr() as usize).next_multiple_of(page) - bytes.as_ptr() as usize;
        let layer = |first, rows| Layer {
            first,
            row_bytes: page / 4,
            stream_bytes: rows * page / 4,
            rows,
            streams: 2,
        };
        let address = bytes.as_mut_ptr() as usize + first;
        // Eight pages a stream, and four in a layer of a window.
        let memory = CacheMemory(vec![layer(address, 32), layer(address + 32 * page, 16)]);
        assert!(memory.has(2, 32) && !memory.has(2, 33) && !memory.has(3, 32));
        // SAFETY: nothing but this test looks at the bytes.
        unsafe { memory.give_back(1, 5, 32) };
        assert_eq!(
            zeros(&bytes),
            6 * page,
            "two pages hold the first five cells"
        );
        assert_eq!(zeros(&bytes[first + 10 * page..][..6 * page]), 6 * page);
        // SAFETY: as above.
        unsafe { memory.give_back(0, 0, 32) };
        assert_eq!(zeros(&bytes), (6 + 8 + 4) * page);
    }

    #[test]
    fn what_is_forgotten_reads_as_zeros() {
        let page = page_bytes();
        for length in [100, page, 3 * page + 100] {
            let mut bytes = vec![1_u8; 16 * page];
            // SAFETY: nothing but this test looks at the bytes.
            assert!(unsafe { forget(bytes.as_mut_ptr().add(50), length) });
            assert_eq!(zeros(&bytes), length);
            assert_eq!(zeros(&bytes[50..50 + length]), length);
        }
    }
}
