//! Rerankers: how likely a model's yes is beside its no, for each document with the query.

use crate::daemon_support::{Answer, Daemon, Setup, write_tiny_models};
use crate::sweep::{odd_values, places, with};
use serde_json::{Value, json};

const PATH: &str = "/v1/rerank";

/// A model that is read with its query and its document, and gives logits that count up from 0.
fn start(manifest: &str) -> Daemon {
    Setup::new()
        .scenario("m", "tokens = [\"x\"]\nvocab-size = 16\n")
        .model_file(
            "m",
            "model.toml",
            &format!("template = \"chatml\"\n{manifest}"),
        )
        .start()
}

fn judge(yes: u32, no: u32) -> String {
    format!("[rerank]\nyes = {yes}\nno = {no}\nprompt = \"{{query}}|{{document}}\"\n")
}

fn body(documents: Value) -> Value {
    json!({"model": "m", "query": "what", "documents": documents})
}

fn ranked(answer: &Answer) -> Vec<(u64, f64)> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    let results = answer["results"].as_array().expect("results").iter();
    results
        .map(|one| {
            let index = one["index"].as_u64().expect("an index");
            (index, one["relevance_score"].as_f64().expect("a score"))
        })
        .collect()
}

fn likelihood(margin: f64) -> f64 {
    1.0 / (1.0 + (-margin).exp())
}

#[test]
fn a_score_is_the_likelihood_of_the_models_yes() {
    for (yes, no, margin) in [(3, 1, 2.0), (1, 3, -2.0), (15, 0, 15.0)] {
        let daemon = start(&judge(yes, no));
        for path in [PATH, "/rerank", "/v2/rerank", "/reranking"] {
            let answer = daemon.post(path, &body(json!(["one", {"text": "two", "id": 7}])));
            let expected = likelihood(margin);
            for ((index, score), place) in ranked(&answer).into_iter().zip(0..) {
                assert_eq!(index, place, "equal ones stay in their order");
                assert!((score - expected).abs() < 1e-6, "{score} for {expected}");
            }
            let answer = answer.json();
            assert_eq!(
                (&answer["object"], &answer["model"]),
                (&json!("list"), &json!("m"))
            );
            assert_eq!(
                answer["usage"]["prompt_tokens"],
                answer["usage"]["total_tokens"]
            );
            assert!(
                answer["usage"]["prompt_tokens"].as_u64() >= Some(2),
                "{answer}"
            );
            assert!(answer["results"][0].get("document").is_none());
        }
    }
}

#[test]
fn the_best_are_answered_with_their_texts_where_that_is_asked_for() {
    let daemon = start(&judge(3, 1));
    let mut asked = body(json!(["one", "two", "three"]));
    asked["top_n"] = json!(2);
    asked["return_documents"] = json!(true);
    let answer = daemon.post(PATH, &asked).json();
    let texts: Vec<&Value> = answer["results"]
        .as_array()
        .expect("results")
        .iter()
        .map(|one| &one["document"])
        .collect();
    assert_eq!(texts, [&json!({"text": "one"}), &json!({"text": "two"})]);
    // Unlike `top_n`, what the daemon does not do is told.
    asked["max_chunks_per_doc"] = json!(3);
    asked["truncation"] = json!(true);
    let answer = daemon.post(PATH, &asked);
    assert_eq!(answer.header("x-rkllmd-not-applied"), Some("truncation"));
}

#[test]
fn what_is_no_reranker_or_judges_by_unknown_tokens_says_so() {
    let daemon = start("");
    let refused = daemon.post(PATH, &body(json!(["one"])));
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (400, "not_a_reranker")
    );
    assert_eq!(daemon.phase("m"), "unloaded", "nothing was loaded for it");
    drop(daemon);
    // The library's vocabulary has 16 tokens.
    let daemon = start(&judge(3, 16));
    let refused = daemon.post(PATH, &body(json!(["one"])));
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (400, "no_logits")
    );
}

/// The likeliest two tokens behind a text, by their ids, and how likely they are.
fn likeliest(daemon: &Daemon, prompt: &str) -> [(u32, f64); 2] {
    // A token without a text, as the end or a part of a character, is not told; what is told is the model's own,
    // whatever a grammar leaves of it.
    let body = json!({
        "model": "m0", "prompt": prompt, "n_predict": 1, "n_probs": 2, "grammar": "root ::= [a-z]+",
    });
    let answer = daemon.post("/completion", &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let told = answer.json();
    let top = &told["completion_probabilities"][0]["top_logprobs"];
    [0, 1].map(|place| {
        let id = top[place]["id"].as_u64().and_then(|id| id.try_into().ok());
        let logprob = top[place]["logprob"].as_f64();
        id.zip(logprob)
            .unwrap_or_else(|| panic!("an id and a number in {told}"))
    })
}

#[test]
fn a_model_on_the_cpu_judges_as_its_own_probabilities_say() {
    let written = tempfile::tempdir().expect("a folder");
    let model = written.path().join("model.gguf");
    write_tiny_models(&[(model.clone(), Vec::new())]);
    // The same model as often as there are documents, each with a yes and a no of its own.
    let start = |manifests: &[String]| {
        let mut setup = Setup::new().cpu_runtime();
        for (index, manifest) in manifests.iter().enumerate() {
            let id = format!("m{index}");
            let manifest = format!("template = \"chatml\"\n{manifest}");
            setup = setup.model_file(&id, "model.toml", &manifest);
            let file = setup.models().join(id).join("model.gguf");
            std::fs::copy(&model, file).expect("the model's file");
        }
        setup.start()
    };
    let documents = ["one", "and two", "three?"];
    let daemon = start(&[String::new()]);
    let likely = documents.map(|document| likeliest(&daemon, &format!("what|{document}")));
    drop(daemon);
    let manifests = likely.map(|[yes, no]| judge(yes.0, no.0));
    let daemon = start(&manifests);
    for (index, [yes, no]) in likely.into_iter().enumerate() {
        let mut asked = body(json!(documents));
        asked["model"] = json!(format!("m{index}"));
        let ranked = ranked(&daemon.post(PATH, &asked));
        assert!(ranked.is_sorted_by(|a, b| a.1 >= b.1), "{ranked:?}");
        let found = ranked.iter().find(|(place, _)| *place == index as u64);
        let (_, score) = found.expect("each document has a score");
        let expected = likelihood(yes.1 - no.1);
        assert!((score - expected).abs() < 1e-3, "{score}, not {expected}");
        assert!(*score > 0.5, "its yes is the likelier one");
    }
}

#[test]
fn no_value_of_a_field_is_the_daemons_fault() {
    let daemon = start(&judge(3, 1));
    let good = json!({
        "model": "m", "query": "what", "documents": ["one", {"text": "two"}], "top_n": 1,
        "return_documents": true, "truncation": false, "user": "u",
    });
    assert_eq!(daemon.post(PATH, &good).status, 200);
    let mut asked = 0;
    for place in places(&good) {
        for value in odd_values().iter().map(Some).chain([None]) {
            let body = with(&good, &place, value);
            let answer = daemon.post(PATH, &body);
            asked += 1;
            assert!(answer.status < 500, "{body}: {}", answer.body);
            if answer.status == 400 {
                let error = &answer.json()["error"];
                let is_named = error["param"].is_string() || error["code"] == "invalid_json";
                assert!(is_named, "{body}: {error}");
            }
        }
    }
    assert!(asked > 140, "{asked}");
}
