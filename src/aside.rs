//! Work on what may be large. Much of it must not hold up the tokens of others, which pass through the same
//! thread. In a process without such threads it is simply done.

use tokio::runtime::{Handle, RuntimeFlavor};

/// What is smaller takes less time than being moved aside.
pub const LARGE_BYTES: usize = 64 * 1024;

/// Does bounded work on about so many bytes; what else this thread has to do goes on meanwhile.
pub fn aside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let is_among_others = || {
        let runtime = Handle::try_current();
        runtime.is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::MultiThread)
    };
    if bytes > LARGE_BYTES && is_among_others() {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    /// Each of the few threads that serve hands its other work on.
    #[test]
    fn others_go_on_beside_large_work_on_the_only_thread() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let limit = Duration::from_secs(20);
        let (begun, has_begun) = channel();
        let (said, heard) = channel();
        let large = runtime.spawn(async move {
            begun.send(()).unwrap();
            aside(LARGE_BYTES + 1, || heard.recv_timeout(limit))
        });
        has_begun.recv_timeout(limit).unwrap();
        runtime.spawn(async move { said.send(()) });
        assert_eq!(runtime.block_on(large).unwrap(), Ok(()));
    }
}
