//! Embeddings of the real model over HTTP: the cosines of sentence pairs are in the order in which
//! llama.cpp's own embeddings of the same model put them, for both ways of pooling.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::daemon_support::{Daemon, Setup, built_library, demo_model};
use serde::Deserialize;
use serde_json::{Value, json};

/// The same said twice, near things, and things that have nothing to do with each other.
const PAIRS: [(&str, &str); 12] = [
    (
        "A man is playing a guitar on the stage.",
        "Somebody plays a guitar in front of an audience.",
    ),
    (
        "The cat sleeps on the sofa.",
        "A cat is asleep on the couch.",
    ),
    (
        "How do I reset my password?",
        "I forgot my password, how can I get a new one?",
    ),
    (
        "The train to Berlin leaves at nine.",
        "The nine o'clock train goes to Berlin.",
    ),
    (
        "Water boils at one hundred degrees.",
        "At one hundred degrees water begins to boil.",
    ),
    (
        "The stock market fell sharply on Monday.",
        "Shares lost much of their value at the start of the week.",
    ),
    ("The cat sleeps on the sofa.", "The dog runs in the garden."),
    (
        "The train to Berlin leaves at nine.",
        "The flight to Madrid was cancelled.",
    ),
    (
        "She bakes bread every morning",
        "He repairs old watches in the evening",
    ),
    ("How do I reset my password?", "The soup needs more salt."),
    (
        "Photosynthesis turns light into sugar.",
        "The committee will vote on the budget tomorrow!",
    ),
    (
        "for i in range(10): print(i)",
        "My grandmother lived by the sea.",
    ),
];
/// How far a cosine may be from llama.cpp's. Cosines that are closer to each other than twice this
/// have no order.
const ROUNDING: f32 = 1e-4;

/// What llama.cpp says of a text.
#[derive(Deserialize)]
struct Embedded {
    tokens: Vec<i32>,
    embedding: Vec<f32>,
}

/// The texts of all pairs: the first of pair `n` is at `2n`, its second behind it.
fn texts() -> Vec<&'static str> {
    PAIRS
        .iter()
        .flat_map(|&(left, right)| [left, right])
        .collect()
}

/// Built with the tests, as every example of the workspace is.
fn llama_embeddings() -> PathBuf {
    let folder = built_library("rkllm_cpu");
    let program = folder.with_file_name("examples").join("llama_embeddings");
    assert!(
        program.is_file(),
        "{} is missing: run `cargo build --release --workspace --examples`",
        program.display()
    );
    program
}

fn embedded_by_llama_cpp(pooling: &str) -> Vec<Embedded> {
    let question = json!({"model": demo_model(), "pooling": pooling, "texts": texts()});
    let mut program = Command::new(llama_embeddings())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = program.stdin.take().expect("piped");
    write!(stdin, "{question}").expect("the program reads");
    drop(stdin);
    let output = program.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", output.status);
    serde_json::from_slice(&output.stdout).expect("an entry for each text")
}

fn daemon(pooling: &str) -> Daemon {
    let manifest = format!("template = \"chatml\"\n[embeddings]\npooling = \"{pooling}\"\n");
    Setup::new()
        .demo_model("m")
        .model_file("m", "model.toml", &manifest)
        .environment("RKLLM_CPU_THREADS", "1")
        .start()
}

/// The rows, and the tokens that were counted.
fn embedded_by(daemon: &Daemon, input: &Value) -> (Vec<Vec<f32>>, Value) {
    let answer = daemon.post("/v1/embeddings", &json!({"model": "m", "input": input}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = answer.json();
    let data = body["data"].as_array().expect("a list").iter();
    let rows = data.map(|entry| serde_json::from_value(entry["embedding"].clone()));
    let rows = rows.collect::<Result<_, _>>().expect("rows of numbers");
    (rows, body["usage"]["prompt_tokens"].clone())
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    let products = left
        .iter()
        .zip(right)
        .map(|(l, r)| f64::from(*l) * f64::from(*r));
    products.sum::<f64>() as f32
}

fn cosine(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    dot(left, right) / (dot(left, left).sqrt() * dot(right, right).sqrt())
}

/// Of each of the pairs.
fn cosines(rows: &[Vec<f32>]) -> Vec<f32> {
    let pairs = rows.chunks_exact(2);
    pairs.map(|pair| cosine(&pair[0], &pair[1])).collect()
}

/// Every two pairs that `reference` has in an order, those whose cosine is the larger first.
fn ordered(reference: &[f32]) -> Vec<(usize, usize)> {
    let places = 0..reference.len();
    let all = places
        .clone()
        .flat_map(|l| places.clone().map(move |r| (l, r)));
    all.filter(|&(l, r)| reference[l] > reference[r] + 2.0 * ROUNDING)
        .collect()
}

/// Those that `cosines` has in another order than `reference`.
fn disagreements(cosines: &[f32], reference: &[f32]) -> Vec<(usize, usize)> {
    let mut found = ordered(reference);
    found.retain(|&(larger, smaller)| cosines[larger] <= cosines[smaller]);
    found
}

fn rows_of(embedded: Vec<Embedded>) -> Vec<Vec<f32>> {
    embedded.into_iter().map(|one| one.embedding).collect()
}

/// The daemon's rows point where llama.cpp's do, have the length 1, and order the pairs as they do.
fn assert_same_order(rows: &[Vec<f32>], reference: &[Vec<f32>], what: &str) {
    for ((text, row), wanted) in texts().iter().zip(rows).zip(reference) {
        let same = cosine(row, wanted);
        assert!(same > 0.9999, "{what}: {text:?} differs: cosine {same}");
        let length = dot(row, row).sqrt();
        assert!((length - 1.0).abs() < 1e-5, "{what}: length {length}");
    }
    let (got, wanted) = (cosines(rows), cosines(reference));
    println!("{what}: {got:?}\n  llama.cpp: {wanted:?}");
    for (pair, (got, wanted)) in PAIRS.iter().zip(got.iter().zip(&wanted)) {
        let error = (got - wanted).abs();
        assert!(error <= ROUNDING, "{what}: {pair:?}: {got}, not {wanted}");
    }
    let possible = PAIRS.len() * (PAIRS.len() - 1) / 2;
    assert_eq!(
        ordered(&wanted).len(),
        possible,
        "{what}: every two have an order"
    );
    assert_eq!(disagreements(&got, &wanted), [], "{what}");
}

/// The texts as llama.cpp's tokens give the rows of the texts, bit for bit: so both sides have the
/// same tokens, those that begin or end a text included.
fn assert_same_tokens(daemon: &Daemon, rows: &[Vec<f32>], counted: &Value, reference: &[Embedded]) {
    let tokens: Vec<&[i32]> = reference.iter().map(|one| &*one.tokens).collect();
    assert_eq!(*counted, json!(tokens.concat().len()));
    let (of_tokens, _) = embedded_by(daemon, &json!(tokens));
    assert!(
        of_tokens == rows,
        "the texts were other tokens than llama.cpp's"
    );
}

#[test]
fn the_real_models_embeddings_order_pairs_as_llama_cpp_does() {
    let both = ["last", "mean"].map(|pooling| {
        let daemon = daemon(pooling);
        let reference = embedded_by_llama_cpp(pooling);
        let (rows, counted) = embedded_by(&daemon, &json!(texts()));
        assert_same_tokens(&daemon, &rows, &counted, &reference);
        let reference = rows_of(reference);
        assert_same_order(&rows, &reference, pooling);
        (cosines(&rows), cosines(&reference))
    });
    // The order says something: with the other pooling it is another one.
    let [(last, last_reference), (mean, mean_reference)] = both;
    assert!(!disagreements(&last, &mean_reference).is_empty());
    assert!(!disagreements(&mean, &last_reference).is_empty());
}
