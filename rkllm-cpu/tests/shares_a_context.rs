//! Handles that share a context (`RKLLM_CPU_SLOTS`) answer as if each had one of its own. What runs
//! say beside others is judged by plain llama.cpp: rounding depends on who else is in a step and on
//! where cells lie, so that each token must be as good as the best there, within a hair.

mod common;
#[path = "common/reference.rs"]
mod reference;

use common::{Scratch, hold, hold_with, model, promises, test_adapters};
use reference::{Reference, token_embeddings, unquantised};

/// How much better than the one that was said a token may be for the judge.
const HAIR: f32 = 1e-2;

promises! { "c/shared.c":
    a_lone_run_is_as_with_a_context_of_its_own,
    a_full_window_shifts_as_in_a_context_of_its_own,
    aborting_one_run_leaves_the_others,
    a_slow_host_stalls_no_other,
    destroying_one_handle_leaves_the_others,
    a_prefix_is_kept_for_each_handle,
    idle_prefixes_go_first,
    a_host_that_takes_nothing_holds_up_no_queue,
}

promises! { "c/streams.c":
    memory_is_that_of_the_pool,
    a_shifted_window_takes_no_memory_of_others,
}

#[test]
fn a_restored_prompt_takes_no_cells_of_a_run() {
    let promise = "a_restored_prompt_takes_no_cells_of_a_run";
    let cache = Scratch::new(&format!("{promise}.cache"));
    hold_with("c/shared.c", promise, &model(), &[("CACHE", cache.path())]);
}

#[test]
fn slow_hosts_take_no_cells_from_each_other() {
    let promise = "slow_hosts_take_no_cells_from_each_other";
    let details = [("RKLLM_LOG_LEVEL", "2")];
    let printed = hold_with("c/shared.c", promise, &model(), &details);
    assert_eq!(printed.matches("waits for cells").count(), 0, "{printed}");
}

/// A run as the C program wrote it down.
struct Run {
    prompt: String,
    ids: Vec<i32>,
}

fn runs_of(mut written: &[u8]) -> Vec<Run> {
    let mut runs = Vec::new();
    while let Some(end) = written.iter().position(|&byte| byte == 0) {
        let prompt = String::from_utf8(written[..end].to_vec()).expect("prompts are text");
        let numbers: Vec<i32> = written[end + 1..]
            .chunks_exact(4)
            .map(|four| i32::from_ne_bytes(four.try_into().expect("four bytes")))
            .collect();
        let count = usize::try_from(numbers[0]).expect("a count");
        written = &written[end + 5 + 4 * count..];
        runs.push(Run {
            prompt,
            ids: numbers[1..=count].to_vec(),
        });
    }
    runs
}

/// Has the C program of `source` hold `promise`, and judges what its runs said. Returns what it printed.
fn judge(source: &str, promise: &str, runs: usize) -> String {
    let model = unquantised(&model());
    let written = Scratch::new(&format!("{promise}.runs"));
    let environment = [("ROWS", written.path()), ("RKLLM_LOG_LEVEL", "2")];
    let printed = hold_with(source, promise, &model, &environment);
    let evaluated: Vec<usize> = (printed.lines())
        .filter_map(|line| line.strip_prefix("prefill tokens: ")?.parse().ok())
        .collect();
    let reference = Reference::open(&model);
    let said = runs_of(&std::fs::read(&written.0).expect("the program wrote it"));
    assert_eq!((said.len(), evaluated.len()), (runs, runs));
    for (run, evaluated) in said.iter().zip(evaluated) {
        let prompt = reference.tokenize(&run.prompt);
        assert_eq!(prompt.len(), evaluated, "of `{}`", run.prompt);
        let rows = reference.logits_by(32, &prompt, &run.ids);
        let drawn_from = rows.values.chunks(rows.width).skip(prompt.len() - 1);
        let missed = drawn_from.zip(&run.ids).map(|(row, &id)| {
            let best = row.iter().copied().fold(f32::MIN, f32::max);
            best - row[id as usize]
        });
        let worst = missed.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
        let (at, missed) = worst.expect("it said something");
        println!("`{}` misses by {missed} at token {at}", run.prompt);
        assert!(missed <= HAIR, "it misses by {missed}");
    }
    printed
}

#[test]
fn two_runs_share_their_steps() {
    judge("c/shared.c", "two_runs_share_their_steps", 2);
}

#[test]
fn eight_runs_share_their_steps() {
    judge("c/shared.c", "eight_runs_share_their_steps", 8);
}

#[test]
fn runs_are_brought_together() {
    let printed = judge("c/streams.c", "runs_are_brought_together", 2);
    let copied = "cells are copied so that runs lie side by side";
    assert!(printed.contains(copied), "{printed}");
}

#[test]
fn a_full_pool_fails_no_run() {
    let printed = judge("c/shared.c", "a_full_pool_fails_no_run", 8);
    let parked = "waits for cells, and will be evaluated again";
    assert!(printed.contains(parked), "{printed}");
}

#[test]
fn there_are_as_many_slots_as_was_said() {
    let printed = hold("c/shared.c", "there_are_as_many_slots_as_was_said");
    for line in [
        "E rkllm: all 2 slots that RKLLM_CPU_SLOTS names are taken by other handles of this model",
        "E rkllm: RKLLM_CPU_POOL_TOKENS must be a number of at least the 1024 tokens of one \
         context, but is `1023`",
        "E rkllm: RKLLM_CPU_SLOTS must be a number up to 256, but is `many`",
    ] {
        assert!(
            printed.lines().any(|l| l == line),
            "no `{line}` in\n{printed}"
        );
    }
}

fn bytes<T: Copy, const N: usize>(values: &[T], encode: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| encode(value)).collect()
}

#[test]
fn rows_come_beside_generations() {
    let reference = Reference::open(&model());
    let mut tokens = reference.tokenize(include_str!("../../LICENSE-APACHE").trim_start());
    tokens.truncate(100);
    let promise = "rows_come_beside_generations";
    let [rows, ids, embeddings] =
        ["rows", "tokens", "embeddings"].map(|kind| Scratch::new(&format!("{promise}.{kind}")));
    let table = token_embeddings(&model(), &tokens);
    std::fs::write(&ids.0, bytes(&tokens, i32::to_ne_bytes)).expect("scratch is writable");
    std::fs::write(&embeddings.0, bytes(&table.values, f32::to_ne_bytes)).expect("as above");
    let environment = [
        ("ROWS", rows.path()),
        ("TOKENS", ids.path()),
        ("EMBEDDINGS", embeddings.path()),
    ];
    hold_with("c/shared_outputs.c", promise, &model(), &environment);
    let written = std::fs::read(&rows.0).expect("the program wrote it");
    let (rows, ids) = written.split_at(written.len() - 3 * 4);
    let floats: Vec<f32> = (rows.chunks_exact(4))
        .map(|four| f32::from_ne_bytes(four.try_into().expect("four bytes")))
        .collect();
    let ids: Vec<i32> = (ids.chunks_exact(4))
        .map(|four| i32::from_ne_bytes(four.try_into().expect("four bytes")))
        .collect();
    let wanted = reference.hidden_states(&tokens).values;
    let (hidden, rest) = floats.split_at(wanted.len());
    let (embedded, logits) = rest.split_at(wanted.len());
    assert_alike(hidden, &wanted, "hidden states");
    assert_alike(embedded, &wanted, "hidden states of embedding rows");
    let wanted = reference.logits(&tokens, &ids[..2]).values;
    assert_alike(logits, &wanted, "logits");
}

/// As far apart as rounding makes them. Cells that lie behind another handle's are summed up in other
/// groups, and the model's activations have eight bits: measured with no other beside it, the first rows
/// are equal, and those that reach into a second group differ by one to four parts in a hundred. With
/// another's cells among its own nothing would be alike.
fn assert_alike(got: &[f32], wanted: &[f32], what: &str) {
    assert_eq!(got.len(), wanted.len(), "{what}: number of floats");
    let square = |sum: f64, value: f32| sum + f64::from(value).powi(2);
    let error = (got.iter().zip(wanted))
        .map(|(got, wanted)| got - wanted)
        .fold(0.0, square);
    let whole = wanted.iter().copied().fold(0.0, square);
    let part = (error / whole).sqrt();
    println!("{what}: {part} of it differs");
    assert!(part <= 0.1, "{what}: {part} of it differs");
}

/// The promises that hold for a handle with a context of its own hold for one that shares.
macro_rules! held_in_a_slot {
    ($source:literal: $($promise:ident),* $(,)?) => {
        $(#[test]
        fn $promise() {
            let slots = [("RKLLM_CPU_SLOTS", "8")];
            super::hold_with($source, stringify!($promise), &super::model(), &slots);
        })*
    };
}

mod in_a_slot {
    held_in_a_slot! { "c/runs.c":
        callbacks_come_in_order,
        an_ignored_end_token_does_not_end_the_run,
        incomplete_characters_wait,
        an_abort_in_the_callback_ends_the_run,
        an_abort_from_another_thread_ends_the_run,
        an_abort_reaches_into_the_prefill,
        an_abort_while_idle_is_not_kept,
        a_paused_run_is_resumed_by_the_next,
        calls_in_the_callback_cannot_disturb_the_run,
        destroying_ends_a_run_first,
    }

    held_in_a_slot! { "c/cache.c":
        a_common_prefix_is_not_evaluated_again,
        clearing_can_keep_the_system_prompt,
        history_is_kept_or_forgotten,
        a_range_can_be_cleared_while_paused,
        the_window_shifts_when_it_is_full,
        a_prompt_that_does_not_fit_is_refused,
        each_run_has_its_own_limit,
        sampling_is_chosen_per_run,
    }

    held_in_a_slot! { "c/async.c":
        a_background_run_is_the_same_run,
        a_background_run_excludes_others,
        destroying_ends_a_background_run,
    }

    held_in_a_slot! { "c/batch.c":
        each_sequence_answers_its_own_prompt,
        a_sequence_without_an_input_idles,
    }

    held_in_a_slot! { "c/lifecycle.c":
        loading_and_destroying_leaves_nothing,
        two_models_run_at_once,
        a_dead_handle_is_an_error,
        a_handle_is_dead_while_it_is_destroyed,
        many_threads_destroy_once,
    }

    #[test]
    fn a_saved_prompt_is_not_evaluated_again() {
        let cache = super::Scratch::new("a_slots_prompt.cache");
        let adapters = super::test_adapters();
        super::hold_with(
            "c/prompt_cache.c",
            "a_saved_prompt_is_not_evaluated_again",
            &super::model(),
            &[
                ("RKLLM_CPU_SLOTS", "8"),
                ("CACHE", cache.path()),
                ("ADAPTERS", &adapters),
            ],
        );
    }
}
