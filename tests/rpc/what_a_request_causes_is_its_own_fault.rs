//! What the request caused is answered 4xx, with the field that is to blame, wherever it is found:
//! clients repeat a 5xx by themselves.

use std::path::Path;

use crate::daemon_support::{Answer, Setup, completion};
use crate::rpc_support::{Client, Transport};
use serde_json::{Value, json};

#[test]
fn no_token_at_all_is_an_empty_answer_with_its_counts() {
    let daemon = Setup::new()
        .scenario("m", "tokens = [\"one \", \"two\"]\neos-token-id = 2\n")
        .start();
    let body = completion("m", "once", json!({"max_tokens": 0}));
    let answer = daemon.post("/v1/completions", &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    assert_eq!(answer["choices"][0]["text"], "");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    assert!(
        answer["usage"]["prompt_tokens"].as_u64() > Some(0),
        "{answer}"
    );

    let body = completion(
        "m",
        "once",
        json!({"max_tokens": 0, "stream": true, "stream_options": {"include_usage": true}}),
    );
    let answer = daemon.post("/v1/completions", &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(!answer.body.contains("one"), "{}", answer.body);
    assert!(
        answer.body.contains("\"length\"") && answer.body.contains("\"completion_tokens\":0"),
        "{}",
        answer.body
    );
    assert!(answer.body.ends_with("data: [DONE]\n\n"), "{}", answer.body);
}

#[test]
fn a_prompt_that_is_refused_by_a_model_that_answers_others_is_to_blame() {
    let scenario = "tokens = [\"fine\"]\n[[fault]]\nwhen-prompt-contains = \"refuse me\"\n\
        call = \"run\"\nkind = \"fail\"\n";
    let daemon = Setup::new().scenario("m", scenario).start();
    let refused = completion("m", "refuse me", json!({}));
    let other = completion("m", "something else", json!({}));
    // The first time the model was not asked anything else.
    for _ in 0..2 {
        let (param, code) = blamed(&daemon.post("/v1/completions", &refused));
        assert_eq!((&*param, &*code), ("prompt", "run_refused"));
        assert_eq!(daemon.post("/v1/completions", &other).status, 200);
    }
}

#[test]
fn a_deadline_of_the_clients_own_is_no_fault_of_the_servers() {
    let slow = "tokens = [\"x\"]\nprefill-delay-ms = 2000\n";
    let daemon = Setup::new().scenario("m", slow).start();
    let body = completion("m", "once", json!({"total_deadline_ms": 50}));
    let (param, code) = blamed(&daemon.post("/v1/completions", &body));
    assert_eq!(
        (&*param, &*code),
        ("total_deadline_ms", "deadline_exceeded")
    );
}

#[test]
fn an_embedding_that_is_cut_to_zeros_is_the_cuts_fault() {
    // The first of the fake library's numbers is 0.
    let daemon = Setup::new().scenario("m", "tokens = [\"x\"]\n").start();
    let body = json!({"model": "m", "input": "text", "dimensions": 1});
    let (param, code) = blamed(&daemon.post("/v1/embeddings", &body));
    assert_eq!((&*param, &*code), ("dimensions", "invalid_value"));
}

/// The error of a refusal, which has to be the client's and to name what is to blame.
fn blamed(answer: &Answer) -> (String, String) {
    assert_eq!(answer.status, 400, "{}", answer.body);
    let error = &answer.json()["error"];
    let said = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    (said("param"), said("code"))
}

#[test]
fn a_token_outside_the_vocabulary_is_refused_before_the_library_sees_it() {
    let daemon = Setup::new().demo_model("m").start();
    // The vocabulary has 49152 tokens.
    for (input, param) in [
        (json!([49151, 49152]), "input[1]"),
        (json!([i32::MAX]), "input[0]"),
        (json!([[1, 2], [100257, 1]]), "input[1][0]"),
        (json!([[1, 2], [3, 49152.0]]), "input[1][1]"),
    ] {
        let body = json!({"model": "m", "input": input});
        let answer = daemon.post("/v1/embeddings", &body);
        assert_eq!(
            blamed(&answer),
            (param.to_owned(), "invalid_value".to_owned())
        );
        assert!(answer.body.contains("49152"), "{}", answer.body);
    }
    for input in [json!([-1]), json!([[1], [-5]]), json!([4294967296_u64])] {
        let body = json!({"model": "m", "input": input});
        assert_eq!(
            blamed(&daemon.post("/v1/embeddings", &body)).1,
            "invalid_value"
        );
    }
    assert_eq!(
        daemon.get("/v1/ready").json()["models"][0]["phase"],
        "unloaded"
    );
    let body = json!({"model": "m", "input": [49151]});
    assert_eq!(daemon.post("/v1/embeddings", &body).status, 200);
}

#[test]
fn no_array_is_handed_over_that_the_library_would_read_past() {
    let daemon = Setup::new().demo_model("m").start();
    let mut client = Client::connect(Transport::WebSocket, daemon.address, Path::new(""));
    let handle = client.init("m", json!({"max_context_len": 512}));
    let run = |client: &mut Client, input: Value| {
        let infer = json!({"mode": "RKLLM_INFER_GET_LAST_HIDDEN_LAYER"});
        let params = json!({"handle": handle, "rkllm_input": input, "rkllm_infer_params": infer});
        client.call("rkllm.run", params)
    };
    let embed = |values: usize, n: usize| json!({"embed_input": {"embed": vec![0.01; values], "n_tokens": n}});
    for (input, param) in [
        (embed(575, 1), "embed_input.embed"),
        (embed(577, 1), "embed_input.embed"),
        (embed(500, 500), "embed_input.embed"),
        (embed(1152, 1), "embed_input.embed"),
        (
            json!({"token_input": {"input_ids": [1, 49152]}}),
            "token_input.input_ids[1]",
        ),
        (
            json!({"token_input": {"input_ids": [-1]}}),
            "token_input.input_ids[0]",
        ),
    ] {
        let failure = run(&mut client, input).expect_err(param);
        assert_eq!(
            (failure.name(), &failure.data["param"]),
            ("invalid_params", &json!(param))
        );
    }
    for input in [
        embed(1152, 2),
        json!({"token_input": {"input_ids": [1.0, 49151]}}),
    ] {
        run(&mut client, input).expect("it fits");
    }
}

#[test]
fn what_is_longer_than_its_context_is_refused_before_it_waits() {
    let daemon = Setup::new().scenario("m", "tokens = [\"a\"]\n").start();
    let mut client = Client::connect(Transport::WebSocket, daemon.address, Path::new(""));
    // Without a word of the client the library's default counts.
    for (param, limit) in [(json!({"max_context_len": 64}), 64), (json!({}), 512)] {
        let handle = client.init("m", param);
        let run = |client: &mut Client, input: Value, mode: &str| {
            let infer = json!({"mode": mode});
            let params =
                json!({"handle": handle, "rkllm_input": input, "rkllm_infer_params": infer});
            client.call("rkllm.run", params)
        };
        let tokens = |count: usize| json!({"token_input": {"input_ids": vec![1; count]}});
        let rows = |count: usize| json!({"embed_input": {"embed": vec![0.5; 8 * count], "n_tokens": count}});
        let (answer, states) = ("RKLLM_INFER_GENERATE", "RKLLM_INFER_GET_LAST_HIDDEN_LAYER");
        for (input, mode) in [
            (tokens(limit), answer),
            (tokens(limit + 1), states),
            (rows(limit + 1), states),
            (json!([tokens(1), tokens(limit)]), answer),
            (json!({"prompt_input": "a".repeat(limit * 128 + 1)}), answer),
        ] {
            let failure = run(&mut client, input, mode).expect_err("too long");
            assert_eq!(
                (failure.name(), &failure.data["param"]),
                ("invalid_params", &json!("rkllm_input")),
                "{}",
                failure.message
            );
            let said = format!("This model's maximum context length is {limit} tokens. However, ");
            assert!(failure.message.starts_with(&said), "{}", failure.message);
        }
        run(&mut client, tokens(16), answer).expect("it fits");
        client
            .call("rkllm.destroy", json!([handle]))
            .expect("its place");
    }
}

#[test]
fn sizes_that_no_file_tells_are_learned_from_results() {
    // The fake library's rows have 8 numbers, its vocabulary 16 tokens.
    let daemon = Setup::new().scenario("m", "tokens = [\"a\"]\n").start();
    let mut client = Client::connect(Transport::WebSocket, daemon.address, Path::new(""));
    let handle = client.init("m", json!({}));
    let run = |client: &mut Client, input: Value, mode: &str| {
        let infer = json!({"mode": mode});
        let params = json!({"handle": handle, "rkllm_input": input, "rkllm_infer_params": infer});
        client.call("rkllm.run", params)
    };
    let embed = json!({"embed_input": {"embed": vec![0.5; 10], "n_tokens": 2}});
    let tokens = json!({"token_input": {"input_ids": [1, 16]}});
    for input in [&embed, &tokens] {
        run(&mut client, input.clone(), "RKLLM_INFER_GENERATE").expect("nothing is known");
    }
    let text = json!({"prompt_input": "text"});
    for (mode, input, param) in [
        (
            "RKLLM_INFER_GET_LAST_HIDDEN_LAYER",
            embed,
            "embed_input.embed",
        ),
        ("RKLLM_INFER_GET_LOGITS", tokens, "token_input.input_ids[1]"),
    ] {
        run(&mut client, text.clone(), mode).expect(mode);
        let failure = run(&mut client, input, "RKLLM_INFER_GENERATE").expect_err(param);
        assert_eq!(
            (failure.name(), &failure.data["param"]),
            ("invalid_params", &json!(param))
        );
    }
}

#[test]
fn a_prompt_that_is_too_long_for_the_context_is_refused_before_a_worker_is_touched() {
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"},
    });
    // Loaded in steps of 32.
    let manifest = "template = \"chatml\"\ncontext-length = 70\n";
    let daemon = Setup::new()
        .scenario("m", "tokens = [\"x\"]\n")
        .model_file("m", "tokenizer.json", &tokenizer.to_string())
        .model_file("m", "model.toml", manifest)
        .start();
    let (long, endless) = ("word ".repeat(100), "x".repeat(64 * 128 + 1));
    let texts = [&long, &endless];
    let ids = json!({"model": "m", "input": [[0, 0], vec![0; 65]]});
    let refused = texts
        .into_iter()
        .flat_map(|text| {
            let messages = json!({"model": "m", "messages": [{"role": "user", "content": text}]});
            let stream = json!({"model": "m", "prompt": text, "stream": true});
            let embed = json!({"model": "m", "input": ["short", text]});
            [
                ("/v1/chat/completions", messages, "messages"),
                ("/v1/completions", stream, "prompt"),
                ("/v1/embeddings", embed, "input[1]"),
            ]
        })
        .chain([("/v1/embeddings", ids, "input[1]")]);
    for (path, body, param) in refused {
        let answer = daemon.post(path, &body);
        let (blamed, code) = blamed(&answer);
        assert_eq!(
            (&*blamed, &*code),
            (param, "context_length_exceeded"),
            "{path}"
        );
        let words = "This model's maximum context length is 64 tokens. However, ";
        assert!(answer.body.contains(words), "{path}: {}", answer.body);
    }
    let ready = daemon.get("/v1/ready").json();
    assert_eq!(ready["models"][0]["phase"], "unloaded");
    assert_eq!(ready["models"][0]["pid"], Value::Null);
}
