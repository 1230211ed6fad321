//! What a run may have beyond the vendor's parameters, held by a C program.

mod common;
#[path = "../../tests/daemon_support/mod.rs"]
mod daemon_support;

use common::{hold_with, promises};
use daemon_support::write_tiny_models;

promises! { "c/extension.c":
    a_hook_sees_what_was_drawn_and_forbids,
    a_hook_that_allows_all_changes_nothing,
    a_hook_ends_its_run,
    a_row_that_the_hook_does_not_see_is_drawn_as_without_it,
    a_deterministic_run_takes_nothing_that_was_drawn,
    a_library_tells_how_much_of_it_it_knows,
    a_library_can_be_no_more_than_the_vendors,
    a_paused_run_keeps_its_hook,
    a_run_has_its_own_seed,
    a_bias_forbids_and_forces,
    min_p_leaves_the_likely_ones,
    a_run_ends_no_sooner_than_it_may,
    what_an_extension_cannot_be_is_refused,
    a_batch_takes_no_extension,
    handles_that_share_a_context_have_a_hook_each,
}

promises! { "c/logprobs.c":
    pieces_are_the_bytes_of_the_text,
    a_paused_run_goes_on_telling,
    handles_that_share_a_context_are_told_their_own,
    what_cannot_be_told_is_refused,
}

/// With a tiny model, each of whose thousands of draws takes next to nothing.
#[test]
fn draws_keep_the_definition() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("model.gguf");
    write_tiny_models(&[(model.clone(), Vec::new())]);
    let model = model.to_str().expect("a path in UTF-8");
    hold_with("c/draws.c", "draws_keep_the_definition", model, &[]);
}
