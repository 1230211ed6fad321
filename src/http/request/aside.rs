//! Work on a client's text that may be large. Much of it must not hold up the tokens of others, which
//! pass through the same few threads.

use tokio::runtime::{Handle, RuntimeFlavor};

/// What is smaller takes less time than being moved aside.
const LARGE_BYTES: usize = 64 * 1024;

/// Does bounded work on about so many bytes; what else this thread has to do goes on meanwhile.
pub(crate) fn aside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
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
