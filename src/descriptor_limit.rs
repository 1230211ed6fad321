//! The limit on open descriptors, raised at start by daemon and workers alike: the usual soft limit
//! of 1024 is less than the connections a daemon accepts, and less than the buffers of a large model
//! (one descriptor each; docs/vendor-library.md §6).

use rustix::process::{Resource, Rlimit};

/// What the vendor's own server sets.
const WANTED: u64 = 102_400;

/// Raises the soft limit as far as the hard one allows. Best effort: a lower limit works for most.
pub fn raise() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(WANTED, |most| most.min(WANTED));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    }
}
