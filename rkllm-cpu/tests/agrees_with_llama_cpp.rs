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
    rows_and_log(&model(), "c/outputs.c", promise, tokens).0
}

fn rows_and_log(
    model_path: &str,
    source: &str,
    promise: &str,
    tokens: &[i32],
) -> (Vec<u8>, String) {
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
    let log = hold_with(source, promise, model_path, &environment);
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

/// What a run of the C program was told of one token.
struct Told {
    of_prompt: bool,
    token: i32,
    logprob: f32,
    top: Vec<(i32, f32)>,
}

impl Told {
    const TOP: usize = 5;
    const WORDS: usize = 4 + 2 * Self::TOP;

    fn of(words: &[[u8; 4]]) -> Told {
        let whole = |at: usize| i32::from_ne_bytes(words[at]);
        let float = |at: usize| f32::from_ne_bytes(words[at]);
        let count = whole(3) as usize;
        Told {
            of_prompt: whole(0) == 1,
            token: whole(1),
            logprob: float(2),
            top: (4..4 + count)
                .map(|at| (whole(at), float(at + Self::TOP)))
                .collect(),
        }
    }
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
    row.iter()
        .map(|&logit| f64::from(logit) - sum.ln())
        .collect()
}

#[test]
fn log_probabilities_are_llama_cpps() {
    const CLOSE: f64 = 1e-2;
    let reference = Reference::open(&model());
    let prompt = tokens(&reference, 210);
    let promise = "logprobs_of_a_prompt_and_what_follows";
    let written = rows_and_log(&model(), "c/logprobs.c", promise, &prompt).0;
    let mut words = written.as_chunks::<4>().0;
    let mut runs = 0;
    while let Some((count, rest)) = words.split_first() {
        let count = i32::from_ne_bytes(*count) as usize;
        let (run, rest) = rest.split_at(count * Told::WORDS);
        words = rest;
        runs += 1;
        let told: Vec<Told> = run.chunks(Told::WORDS).map(Told::of).collect();
        let (of_prompt, drawn) = told.split_at(prompt.len());
        assert!(of_prompt.iter().all(|told| told.of_prompt));
        assert!(drawn.len() > 10 && drawn.iter().all(|told| !told.of_prompt));
        let following: Vec<i32> = drawn.iter().map(|told| told.token).collect();
        let wanted = reference.logits_by(32, &prompt, &following);
        let all: Vec<i32> = prompt.iter().chain(&following).copied().collect();
        // The hook of the run forbids the likeliest token of each row.
        assert!(drawn.iter().all(|told| told.token != told.top[0].0));
        for (at, told) in told.iter().enumerate().skip(1) {
            assert_eq!(told.token, all[at]);
            let row = &wanted.values[(at - 1) * wanted.width..at * wanted.width];
            let row = log_softmax(row);
            let is_close = |token: i32, logprob: f32| {
                let wanted = row[token as usize];
                let got = f64::from(logprob);
                assert!(
                    (wanted - got).abs() <= CLOSE,
                    "run {runs}, place {at}, token {token}: {got}, but llama.cpp has {wanted}"
                );
            };
            is_close(told.token, told.logprob);
            assert_eq!(told.top.len(), Told::TOP);
            let last = f64::from(told.top[Told::TOP - 1].1);
            let above = row.iter().filter(|&&logprob| logprob > last + CLOSE);
            assert!(above.count() < Told::TOP, "run {runs}, place {at}");
            for &(token, logprob) in &told.top {
                is_close(token, logprob);
            }
        }
    }
    assert_eq!(runs, 4);
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
    let got = floats(
        &rows_and_log(
            &model(),
            "c/adapters.c",
            "adapters_are_chosen_per_run",
            &tokens,
        )
        .0,
    );
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
    let (_, log) = rows_and_log(
        &model(),
        "c/adapters.c",
        "an_adapter_must_be_known_once",
        &tokens,
    );
    for line in [
        "E rkllm: Lora adapter 'first' is already initialized!",
        "E rkllm: Not Found Lora adapter named: absent",
    ] {
        assert!(log.lines().any(|l| l == line), "no `{line}` in\n{log}");
    }
}

/// The demo model with numbers only: its tokenizer is declared to be none, in place.
fn model_without_tokenizer(file: &Scratch) {
    let mut bytes = std::fs::read(model()).expect("the model is readable");
    let key = b"tokenizer.ggml.model";
    let at = bytes.windows(key.len()).position(|at| at == key);
    // The key is followed by the value's type (u32) and length (u64).
    let value = at.expect("the demo model has a tokenizer") + key.len() + 12;
    let value = &mut bytes[value..value + 4];
    assert_eq!(value, b"gpt2");
    value.copy_from_slice(b"none");
    std::fs::write(&file.0, bytes).expect("scratch is writable");
}

#[test]
fn a_host_tokenises_for_a_model_that_cannot() {
    let reference = Reference::open(&model());
    let tokens = tokens(&reference, 40);
    let without = Scratch::new("without_tokenizer.gguf");
    model_without_tokenizer(&without);
    let promise = "a_host_tokenises_for_a_model_that_cannot";
    let (rows, log) = rows_and_log(without.path(), "c/host.c", promise, &tokens);
    let wanted = reference.hidden_states(&tokens);
    assert_close(&floats(&rows), &wanted.values, "hidden states");
    let line = "E rkllm: the model has no tokenizer: give rkllm_init a tokenizer_callback, or \
                tokens to the run";
    assert!(log.lines().any(|l| l == line), "{log}");
}

/// The demo model with its table as the output layer only. The head keeps its length: what the
/// tensor's name loses, the model's gets.
fn model_without_embeddings(file: &Scratch) {
    let mut bytes = std::fs::read(model()).expect("the model is readable");
    let mut replace = |old: &[u8], new: &[u8]| {
        let at = bytes.windows(old.len()).position(|at| at == old);
        let at = at.unwrap_or_else(|| panic!("no {} in the model", old.escape_ascii()));
        bytes.splice(at..at + old.len(), new.iter().copied());
        at
    };
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    replace(&text("token_embd.weight"), &text("output.weight"));
    let name = text("general.name");
    let at = replace(&name, &name) + name.len() + 4;
    let length = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    bytes[at..at + 8].copy_from_slice(&(length + 4).to_le_bytes());
    let end = at + 8 + length as usize;
    bytes.splice(end..end, *b"----");
    std::fs::write(&file.0, bytes).expect("scratch is writable");
}

#[test]
fn a_host_embeds_for_a_model_that_cannot() {
    let reference = Reference::open(&model());
    let tokens = tokens(&reference, 40);
    let without = Scratch::new("without_embeddings.gguf");
    model_without_embeddings(&without);
    let promise = "a_host_embeds_for_a_model_that_cannot";
    let (rows, log) = rows_and_log(without.path(), "c/host.c", promise, &tokens);
    let wanted = reference.hidden_states(&tokens);
    assert_close(&floats(&rows), &wanted.values, "hidden states");
    let logits = reference.logits(&tokens, &[]);
    let last = logits.values.chunks(logits.width).next_back();
    let best = last.and_then(|row| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])));
    let line = format!("next: {}", best.expect("there is a vocabulary"));
    assert!(log.lines().any(|l| l == line), "no `{line}` in\n{log}");
}

#[test]
fn a_model_tokenises_and_embeds_itself() {
    let tokens = tokens(&Reference::open(&model()), 20);
    let promise = "a_model_tokenises_and_embeds_itself";
    let (_, log) = rows_and_log(&model(), "c/host.c", promise, &tokens);
    for line in [
        "I rkllm: tokenizer_callback is not used: the model has a tokenizer",
        "I rkllm: embed_callback is not used: the model has an embedding layer",
    ] {
        assert!(log.lines().any(|l| l == line), "no `{line}` in\n{log}");
    }
}
