//! The threads that another thread starts, found by their name.

use std::sync::atomic::{AtomicU32, Ordering};

/// The calling thread under a name that no other thread of the process has, which the threads that it
/// starts inherit, and by which they are found; it gets its own name back.
pub(super) struct ThreadName {
    own: [u8; 16],
    given: String,
}

impl ThreadName {
    pub(super) fn for_new_threads() -> ThreadName {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut own = [0; 16];
        // A name has 15 bytes.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed) % 100_000;
        let given = format!("rkllm-cpu-{number}");
        // SAFETY: the kernel writes at most 16 bytes.
        unsafe { libc::prctl(libc::PR_GET_NAME, own.as_mut_ptr()) };
        set_name(given.as_bytes());
        ThreadName { own, given }
    }

    /// The other threads of that name, in the order in which they were started.
    pub(super) fn bearers(&self) -> Vec<libc::pid_t> {
        // SAFETY: gettid has no preconditions.
        let this = unsafe { libc::gettid() };
        let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
            return Vec::new();
        };
        let mut found: Vec<libc::pid_t> = tasks
            .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
            .filter(|&id| id != this)
            .filter(|id| {
                std::fs::read_to_string(format!("/proc/self/task/{id}/comm"))
                    .is_ok_and(|name| name.trim_end() == self.given)
            })
            .collect();
        in_order_of_start(&mut found);
        found
    }
}

impl Drop for ThreadName {
    fn drop(&mut self) {
        set_name(&self.own);
    }
}

fn set_name(name: &[u8]) {
    let mut ended = [0_u8; 16];
    let length = name.len().min(15);
    ended[..length].copy_from_slice(&name[..length]);
    // SAFETY: the kernel reads at most 16 bytes, the last of which is 0.
    unsafe { libc::prctl(libc::PR_SET_NAME, ended.as_ptr()) };
}

/// The kernel gives out ids upwards, and begins again below when they are used up: the first is the
/// one after the widest gap, the one across the end included.
fn in_order_of_start(ids: &mut [libc::pid_t]) {
    ids.sort_unstable();
    let (Some(&lowest), Some(&highest)) = (ids.first(), ids.last()) else {
        return;
    };
    // The smallest range of ids that a kernel has.
    const IDS: libc::pid_t = 32_768;
    let across = (lowest + IDS - highest).max(0);
    let widest = ids
        .windows(2)
        .enumerate()
        .map(|(at, pair)| (pair[1] - pair[0], at + 1))
        .max()
        .filter(|&(gap, _)| gap > across);
    if let Some((_, first)) = widest {
        ids.rotate_left(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_order_of_start_also_where_they_begin_again() {
        let ordered = |mut ids: Vec<libc::pid_t>| {
            in_order_of_start(&mut ids);
            ids
        };
        assert_eq!(ordered(vec![12, 10, 11, 40]), [10, 11, 12, 40]);
        assert_eq!(
            ordered(vec![301, 32_767, 300, 32_760]),
            [32_760, 32_767, 300, 301]
        );
        assert_eq!(ordered(vec![7]), [7]);
        assert!(ordered(vec![]).is_empty());
    }

    #[test]
    fn new_threads_are_found_by_their_name_and_this_one_keeps_its_own() {
        let own = || std::fs::read_to_string("/proc/thread-self/comm").ok();
        let before = own();
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let named = ThreadName::for_new_threads();
        assert!(named.bearers().is_empty());
        let thread = std::thread::Builder::new().spawn(move || {
            // SAFETY: gettid has no preconditions.
            let id = unsafe { libc::gettid() };
            let _released = wait.recv();
            id
        });
        let found = named.bearers();
        drop(named);
        drop(release);
        let id = thread.ok().and_then(|thread| thread.join().ok());
        assert_eq!(found, id.into_iter().collect::<Vec<_>>());
        assert_eq!(own(), before);
    }
}
