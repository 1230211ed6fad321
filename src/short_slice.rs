//! Threads that have little to do and are waited for, beside threads that compute all the time: they ask the
//! scheduler for short slices. From Linux 6.12 on one of these that wakes comes before a thread whose slice is not
//! over; with slices that are alike it comes behind that, some milliseconds later, at each hop of a token.
//! Older kernels take no notice: there who wakes comes first anyway. No priority changes, and no share of time. A
//! thread of a real-time policy is left as it is: the kernel refuses it a slice.
#![allow(unsafe_code)]

use std::time::Duration;

/// The shortest that the kernel gives.
const SLICE: Duration = Duration::from_micros(100);
/// `SCHED_FLAG_KEEP_POLICY`.
const KEEPS_POLICY: u64 = 0x08;

/// Asks for the thread that calls; the threads and processes that it starts have the same.
pub(crate) fn ask() {
    set(SLICE);
}

/// Gives the thread that calls the slice of every other one: it is of a process that a thread with a short one has
/// started, and is to compute.
pub(crate) fn end() {
    set(Duration::ZERO);
}

/// Nothing depends on it: where a kernel or a filter refuses, the thread goes on as it was.
fn set(slice: Duration) {
    let Ok(nice) = rustix::process::getpriority_process(None) else {
        return;
    };
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: 0,
        sched_flags: KEEPS_POLICY,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: slice.as_nanos() as u64,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: thread 0 is the calling one; the kernel reads as many bytes as `size` says, which is the struct's, and
    // keeps no pointer to it.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// The kernel's first with slices that threads ask for.
    const FIRST: (u32, u32) = (6, 12);

    fn kernel() -> (u32, u32) {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
        let mut numbers = release.split(|it: char| !it.is_ascii_digit());
        let mut next = || numbers.next().and_then(|it| it.parse().ok());
        (next().expect("a number"), next().expect("a number"))
    }

    fn own() -> libc::sched_attr {
        // SAFETY: all of its fields are numbers.
        let mut told: libc::sched_attr = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::sched_attr>();
        // SAFETY: the kernel writes at most `size` bytes, which are there.
        let code = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut told, size, 0) };
        assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
        told
    }

    #[test]
    fn a_thread_has_the_slice_that_it_asks_for_and_no_other_priority() {
        thread::spawn(|| {
            let before = own();
            ask();
            let after = own();
            assert_eq!(after.sched_policy, before.sched_policy);
            assert_eq!(after.sched_nice, before.sched_nice);
            match kernel() >= FIRST {
                true => assert_eq!(u128::from(after.sched_runtime), SLICE.as_nanos()),
                false => assert_eq!(after.sched_runtime, before.sched_runtime),
            }
            let inherited = thread::spawn(|| {
                end();
                own().sched_runtime
            });
            let ended = inherited.join().expect("it ends");
            assert_eq!(ended, before.sched_runtime);
        })
        .join()
        .expect("it ends");
        // Its starter has what it had.
        let other = own().sched_runtime;
        assert_ne!(u128::from(other), SLICE.as_nanos());
    }
}
