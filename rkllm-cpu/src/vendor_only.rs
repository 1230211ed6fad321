//! For tests of hosts: a library that has nothing beyond the vendor's, so that what a host does on a board
//! can be tried without one. `rkllm_run_extension_size` is 0 then and `rkllm_set_run_extension` refuses; and
//! logits are those of tokens that were not in the cells, as with the vendor's library, which evaluates
//! nothing again for them. What goes on behind a prompt by a few tokens is evaluated one by one there, so that an
//! answer whose tokens a host draws itself is rounded as one that was drawn in one run.

/// Neither empty nor 0: it is so, for handles that are opened from then on.
const VARIABLE: &str = "RKLLM_CPU_VENDOR_ONLY";

pub(crate) fn is_asked_for() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty() && value != "0")
}
