//! `/v1/embeddings` of a real daemon: the rows of each family's library, whatever becomes of a worker, and beside
//! others who want to use the model.

use crate::daemon_support::{
    Answer, Daemon, FAMILIES_RUN, Setup, begin, chat as chat_body, eventually, kill, send,
};
use serde_json::json;

const PATH: &str = "/v1/embeddings";

const MODEL: &str = "template = \"chatml\"\n[embeddings]\nnormalize = false\n";

fn numbers(answer: &Answer) -> Vec<Vec<f32>> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = answer.json();
    let data = body["data"].as_array().expect("a list").iter();
    data.map(|entry| serde_json::from_value(entry["embedding"].clone()).expect("numbers"))
        .collect()
}

/// The fake runtime's hidden states count up from 0 over rows of 8.
fn row(first: u8) -> Vec<f32> {
    (first..first + 8).map(f32::from).collect()
}

#[test]
fn every_family_gives_the_rows_of_its_library() {
    let scenario = "tokens = [\"x\"]\n";
    for family in FAMILIES_RUN {
        let daemon = Setup::with_family(family)
            .scenario("last", scenario)
            .model_file("last", "model.toml", MODEL)
            .scenario("mean", scenario)
            .model_file(
                "mean",
                "model.toml",
                &format!("{MODEL}pooling = \"mean\"\n"),
            )
            .scenario("unit", scenario)
            .settings("models.max-loaded = 3")
            .start();
        let body = |model: &str| json!({"model": model, "input": ["one two three", "one"]});
        let last = daemon.post(PATH, &body("last"));
        assert_eq!(
            numbers(&last),
            [row(16), row(0)],
            "{family}: the last of three rows"
        );
        assert_eq!(
            last.json()["usage"],
            json!({"prompt_tokens": 4, "total_tokens": 4})
        );
        // The same again: nothing of the first two is left in the cache.
        assert_eq!(
            numbers(&daemon.post(PATH, &body("last"))),
            [row(16), row(0)],
            "{family}"
        );
        assert_eq!(
            numbers(&daemon.post(PATH, &body("mean"))),
            [row(8), row(0)],
            "{family}"
        );
        let tokens = json!({"model": "last", "input": [[7, 8], [9]]});
        assert_eq!(
            numbers(&daemon.post(PATH, &tokens)),
            [row(8), row(0)],
            "{family}"
        );
        let unit = numbers(&daemon.post(PATH, &json!({"model": "unit", "input": "one two"})));
        let length = row(8).iter().map(|value| value * value).sum::<f32>().sqrt();
        for (value, raw) in unit[0].iter().zip(row(8)) {
            assert!((value - raw / length).abs() < 1e-6, "{family}: {unit:?}");
        }
        let many = json!({"model": "unit", "input": "one", "dimensions": 9});
        let refused = daemon.post(PATH, &many);
        assert_eq!(
            (refused.status, &*refused.error_code()),
            (400, "invalid_value"),
            "{family}"
        );
        assert!(
            refused.body.contains("have 8 dimensions"),
            "{}",
            refused.body
        );
        // The worker of a chat and of an embedding is the same one.
        let chat = daemon.post("/v1/chat/completions", &chat_body("last", "hi", json!({})));
        assert_eq!(chat.content(), "x", "{family}");
        let long = json!({"model": "last", "input": ["one", "word ".repeat(4200)]});
        let long = daemon.post(PATH, &long);
        assert_eq!(
            (long.status, &*long.error_code()),
            (400, "context_length_exceeded")
        );
        assert_eq!(long.json()["error"]["param"], "input[1]", "{family}");
        let long = json!({"model": "last", "input": "word ".repeat(4200)});
        let long = daemon.post(PATH, &long);
        assert_eq!(long.json()["error"]["param"], "input", "{family}");
    }
}

#[test]
fn a_runtime_without_usable_hidden_states_is_told() {
    for family in FAMILIES_RUN {
        let daemon = Setup::with_family(family)
            .scenario("none", "tokens = [\"x\"]\nhidden-states = \"none\"\n")
            .scenario(
                "nan",
                "tokens = [\"x\"]\nhidden-states = \"not-a-number\"\n",
            )
            .settings("models.max-loaded = 2")
            .start();
        for (model, status, code) in [
            ("none", 400, "no_hidden_states"),
            ("nan", 500, "embedding_not_finite"),
        ] {
            for format in ["float", "base64"] {
                let body = json!({"model": model, "input": "one", "encoding_format": format});
                let answer = daemon.post(PATH, &body);
                assert_eq!(
                    (answer.status, &*answer.error_code()),
                    (status, code),
                    "{family}"
                );
            }
            let chat = daemon.post("/v1/chat/completions", &chat_body(model, "hi", json!({})));
            assert_eq!(
                chat.content(),
                "x",
                "{family}: the worker is as good as before"
            );
        }
    }
}

/// Its model is loaded and takes 20 ms for each input.
fn slow_daemon() -> Daemon {
    let slow = "tokens = [\"x\"]\nprefill-delay-ms = 20\n";
    let daemon = Setup::new()
        .scenario("m", slow)
        .model_file("m", "model.toml", MODEL)
        .settings("models.preload = [\"m\"]")
        .start();
    daemon.wait_for_phase("m", "ready");
    daemon
}

#[test]
fn a_worker_that_dies_is_not_noticed() {
    let daemon = slow_daemon();
    let worker = daemon.worker_pid();
    let address = daemon.address;
    let asking = std::thread::spawn(move || {
        let stream = std::net::TcpStream::connect(address).expect("listening");
        let body = json!({"model": "m", "input": vec!["one two"; 20]});
        let begun = begin(stream, "POST", PATH, Some(&body));
        begun.expect("an answer").into_answer().expect("whole")
    });
    daemon.wait_for_phase("m", "running");
    kill(worker);
    let answer = asking.join().expect("an answer");
    assert_eq!(numbers(&answer), vec![row(8); 20]);
    assert_eq!(answer.json()["usage"]["prompt_tokens"], 40);
}

#[test]
fn others_get_their_turn_between_two_inputs() {
    let daemon = slow_daemon();
    let mut stream = std::net::TcpStream::connect(daemon.address).expect("listening");
    // 2,000 inputs of 20 ms and more: without turns, no chat would be answered for 40 s.
    let body = json!({"model": "m", "input": vec!["one"; 2000]});
    send(&mut stream, "POST", PATH, Some(&body)).expect("sent");
    daemon.wait_for_phase("m", "running");
    let began = std::time::Instant::now();
    for _ in 0..3 {
        let chat = daemon.post("/v1/completions", &json!({"model": "m", "prompt": "a"}));
        assert_eq!(chat.status, 200, "{}", chat.body);
    }
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    assert_eq!(daemon.phase("m"), "running", "the embeddings go on");
    // Its client leaves: nothing more is run.
    drop(stream);
    daemon.wait_for_phase("m", "ready");
    eventually("the count of a cancelled request", || {
        let metrics = daemon.get("/metrics").body;
        metrics.contains("outcome=\"cancelled\"} 1").then_some(())
    });
}
