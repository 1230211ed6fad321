//! Hidden states, logits and embedding input are llama.cpp's own: a C program gets them over the
//! ABI, and a plain `llama_decode` in another process is the judge.

mod common;
#[path = "common/reference.rs"]
mod reference;

use common::{Scratch, hold_with, model, test_adapters};
use reference::{Reference, assert_close, token_embeddings};

/// A text of the project's own, up to about 2,000 tokens.
const TEXT: &str = include_str!("../../LICENSE-APACHE");

fn tokens(reference: &Reference, count: usize) -> Vec<i32> {
    let mut tokens = reference.tokenize(TEXT.trim_start());
    tokens.truncate(count);
    assert_eq!(tokens.len(), count);
    tokens
}

fn bytes<T: Copy, const N: usize>(values: &[T], encode: fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| encode(value)).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|four| f32::from_ne_bytes(*four))
        .collect()
}

/// Has the C program hold `promise` with `tokens`, and returns what it wrote to its rows file.
fn rows_of(promise: &str, tokens: &[i32]) -> Vec<u8> {
    rows_and_log("c/outputs.c", promise, tokens).0
}

fn rows_and_log(source: &str, promise: &str, tokens: &[i32]) -> (Vec<u8>, String) {
    let (rows, ids, embeddings) = (
        Scratch::new(&format!("{promise}.rows")),
        Scratch::new(&format!("{promise}.tokens")),
        Scratch::new(&format!("{promise}.embeddings")),
    );
    std::fs::write(&ids.0, bytes(tokens, i32::to_ne_bytes)).expect("scratch is writable");
    let table = token_embeddings(&model(), tokens);
    std::fs::write(&embeddings.0, bytes(&table.values, f32::to_ne_bytes)).expect("as above");
    let adapters = test_adapters();
    let environment = [
        ("ADAPTERS", adapters.as_str()),
        ("ROWS", rows.path()),
        ("TOKENS", ids.path()),
        ("EMBEDDINGS", embeddings.path()),
    ];
    let log = hold_with(source, promise, &model(), &environment);
    (std::fs::read(&rows.0).unwrap_or_default(), log)
}

#[test]
fn hidden_states_are_llama_cpps() {
    let reference = Reference::open(&model());
    let tokens = tokens(&reference, 160);
    let got = floats(&rows_of("hidden_states_of_a_prompt", &tokens));
    let wanted = reference.hidden_states(&tokens);
    assert_eq!(wanted.width, 576);
    assert_close(&got, &wanted.values, "hidden states");
}

#[test]
fn hidden_states_know_the_history() {
    let reference = Reference::open(&model());
    let tokens = tokens(&reference, 60);
    let got = floats(&rows_of("hidden_states_after_a_history", &tokens));
    let wanted = reference.hidden_states(&tokens);
    let second_half = &wanted.values[30 * wanted.width..];
    assert_close(&got, second_half, "hidden states after a history");
}

#[test]
fn hidden_states_can_be_paused_and_aborted() {
    let tokens = tokens(&Reference::open(&model()), 20);
    rows_of("hidden_states_can_be_paused_and_aborted", &tokens);
}

#[test]
fn logits_do_not_wait_for_a_character() {
    let tokens = tokens(&Reference::open(&model()), 20);
    rows_of("logits_do_not_wait_for_a_character", &tokens);
}

#[test]
fn logits_are_llama_cpps() {
    let reference = Reference::open(&model());
    let tokens = tokens(&reference, 140);
    let written = rows_of("logits_of_a_prompt_and_what_follows", &tokens);
    let (rows, ids) = written.split_at(written.len() - 4 * 4);
    let ids: Vec<i32> = ids
        .as_chunks()
        .0
        .iter()
        .map(|four| i32::from_ne_bytes(*four))
        .collect();
    let wanted = reference.logits(&tokens, &ids[..3]);
    let got = floats(rows);
    assert_close(&got, &wanted.values, "logits");
    // Each id is the best of the row before it.
    let drawn_from = got.chunks(wanted.width).skip(139);
    for (row, &id) in drawn_from.zip(&ids) {
        let best = row.iter().copied().fold(f32::MIN, f32::max);
        assert_eq!(row[id as usize], best);
    }
}

#[test]
fn embedding_rows_are_as_good_as_tokens() {
    let reference = Reference::open(&model());
    let tokens = tokens(&reference, 40);
    let got = floats(&rows_of("embedding_rows_are_as_good_as_tokens", &tokens));
    let wanted = reference.hidden_states(&tokens);
    assert_close(&got, &wanted.values, "hidden states of embedding rows");
}

#[test]
fn an_adapter_changes_the_output_as_llama_cpp_does() {
    let reference = Reference::open(&model());
    let tokens = tokens(&reference, 40);
    let got = floats(&rows_and_log("c/adapters.c", "adapters_are_chosen_per_run", &tokens).0);
    let folder = test_adapters();
    let file = |name: &str| format!("{folder}/{name}.gguf");
    let plain = reference.logits(&tokens, &[]).values;
    let first = reference.logits_with_adapter(&tokens, &file("first"), 0.5);
    let second = reference.logits_with_adapter(&tokens, &file("second"), 1.0);
    let (first, second) = (first.values, second.values);
    let runs = got.chunks_exact(plain.len());
    assert_eq!(runs.len(), 5);
    for (at, (run, wanted)) in runs
        .zip([&plain, &first, &second, &first, &plain])
        .enumerate()
    {
        assert_close(run, wanted, &format!("logits of run {at}"));
    }
    let differ =
        |left: &[f32], right: &[f32]| left.iter().zip(right).any(|(l, r)| (l - r).abs() > 1.0);
    assert!(differ(&plain, &first) && differ(&plain, &second) && differ(&first, &second));
}

#[test]
fn an_adapter_must_be_known_once() {
    let tokens = tokens(&Reference::open(&model()), 20);
    let (_, log) = rows_and_log("c/adapters.c", "an_adapter_must_be_known_once", &tokens);
    for line in [
        "E rkllm: Lora adapter 'first' is already initialized!",
        "E rkllm: Not Found Lora adapter named: absent",
    ] {
        assert!(log.lines().any(|l| l == line), "no `{line}` in\n{log}");
    }
}

#[test]
fn a_host_tokenises_and_embeds() {
    let reference = Reference::open(&model());
    let tokens = tokens(&reference, 40);
    let got = floats(&rows_and_log("c/host.c", "a_host_tokenises_and_embeds", &tokens).0);
    let wanted = reference.hidden_states(&tokens);
    assert_eq!(got.len(), wanted.values.len());
    // Its rows are f16, so they are close, not equal: each state points the same way.
    for (at, (left, right)) in got
        .chunks(wanted.width)
        .zip(wanted.values.chunks(wanted.width))
        .enumerate()
    {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let cosine = dot(left, right) / (dot(left, left) * dot(right, right)).sqrt();
        assert!(cosine > 0.99, "token {at}: {cosine}");
    }
}
