//! How long a thread has waited for a CPU, by the kernel's own count.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// A thread's schedstat: time on a CPU, time ready and without one, and how often.
pub(super) struct RunDelay(File);

impl RunDelay {
    pub(super) fn of(thread: libc::pid_t) -> Option<RunDelay> {
        let file = File::open(format!("/proc/self/task/{thread}/schedstat"));
        file.ok().map(RunDelay)
    }

    pub(super) fn of_this_thread() -> Option<RunDelay> {
        File::open("/proc/thread-self/schedstat").ok().map(RunDelay)
    }

    /// A thread that reads this has run, so that zeros say that the kernel does not count.
    pub(super) fn is_kept(&self) -> bool {
        self.fields().is_some_and(|[ran, _]| ran > 0)
    }

    pub(super) fn read(&self) -> Option<Duration> {
        self.fields()
            .map(|[_, waited]| Duration::from_nanos(waited))
    }

    fn fields(&self) -> Option<[u64; 2]> {
        let mut text = [0; 96];
        let length = self.0.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..length]).ok()?;
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        Some([numbers.next()?.ok()?, numbers.next()?.ok()?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_waiting_is_read_where_the_kernel_keeps_it() {
        let Some(delay) = RunDelay::of_this_thread().filter(RunDelay::is_kept) else {
            eprintln!("this kernel keeps no schedstat");
            return;
        };
        let (first, second) = (delay.read(), delay.read());
        assert!(first.is_some() && second >= first);
    }
}
