//! What a run says does not depend, to the bit, on whether the beginning of its prompt was in the cells,
//! in a saved prompt, or is evaluated: with a context of its own, and in a slot of a shared one whose
//! other slots are empty.

mod common;
#[path = "common/reference.rs"]
mod reference;

use common::{Scratch, hold_with, model};
use reference::Reference;

fn same_logits(slots: &str) {
    hold_of_tokens("logits_do_not_depend_on_what_was_in_the_cells", slots);
}

fn hold_of_tokens(promise: &str, slots: &str) {
    let mut tokens = Reference::open(&model()).tokenize(include_str!("../../LICENSE-APACHE"));
    tokens.truncate(600);
    let ids = Scratch::new(&format!("{promise}.{slots}.tokens"));
    let bytes: Vec<u8> = tokens.iter().flat_map(|id| id.to_ne_bytes()).collect();
    std::fs::write(&ids.0, bytes).expect("scratch is writable");
    let environment = [("TOKENS", ids.path()), ("RKLLM_CPU_SLOTS", slots)];
    hold_with("c/exact.c", promise, &model(), &environment);
}

fn same_answers(promise: &str, slots: &str) {
    let cache = Scratch::new(&format!("{promise}.{slots}.cache"));
    let environment = [("CACHE", cache.path()), ("RKLLM_CPU_SLOTS", slots)];
    hold_with("c/exact.c", promise, &model(), &environment);
}

#[test]
fn logits_do_not_depend_on_what_was_in_the_cells() {
    same_logits("0");
}

#[test]
fn logits_do_not_depend_on_what_was_in_a_slots_cells() {
    same_logits("2");
}

#[test]
fn rows_can_be_of_what_was_not_in_the_cells() {
    hold_of_tokens("rows_can_be_of_what_was_not_in_the_cells", "0");
}

#[test]
fn answers_do_not_depend_on_what_was_in_a_slots_cells() {
    same_answers("answers_do_not_depend_on_what_was_in_the_cells", "2");
}

#[test]
fn answers_do_not_depend_on_a_saved_prompt_in_a_slot() {
    same_answers("answers_do_not_depend_on_a_saved_prompt", "2");
}
