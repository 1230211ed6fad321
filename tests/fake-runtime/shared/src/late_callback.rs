//! A result that comes when none is expected: from a thread of its own, after the call that it
//! belongs to has returned and, after a destroy, without a model.

use crate::answer::NORMAL;
use crate::generation::Userdata;
use crate::layout::Layout;
use crate::model::Callback;
use std::time::Duration;

/// From when the call is about to return.
const DELAY: Duration = Duration::from_millis(50);

/// Calls back once, in the state NORMAL, with a zeroed result.
pub fn send(layout: &Layout, callback: Callback, userdata: Userdata) {
    let bytes = layout.get("RKLLMResult").bytes;
    std::thread::spawn(move || {
        let userdata = userdata;
        std::thread::sleep(DELAY);
        let mut result = vec![0u64; bytes.div_ceil(8)];
        // SAFETY: the host's callback with a result of its family, zeroed.
        unsafe { callback(result.as_mut_ptr().cast(), userdata.0, NORMAL) };
    });
}
