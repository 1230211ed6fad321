//! What the daemon makes of a request and for its answer is charged to its client as the request is, is no
//! many times its size, and is given back.

use std::thread;
use std::time::{Duration, Instant};

use crate::daemon_support::{Setup, eventually, resident_bytes};
use serde_json::json;

use super::requests_memory_support::{MIB, Peak, SLACK, begin, daemon, filled, post};

/// What a text is made into counts beside the answer that is made of it.
#[test]
fn tokens_and_their_texts_are_charged_with_the_answers_made_of_them() {
    let long = "x".repeat(1000);
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [{"id": 2, "content": long, "special": false, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false}],
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Isolated",
            "invert": false},
        "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": {"[unknown]": 0, "a": 1}, "unk_token": "[unknown]"}
    });
    let daemon = Setup::new()
        .scenario("m", "tokens = [\"a\"]\n")
        .model_file("m", "tokenizer.json", &tokenizer.to_string())
        // A client has half of it.
        .settings("memory.requests-limit-bytes = 12582912\ndeadlines.reader-call = \"2m\"")
        .start();
    let tokenize = |bytes: usize| {
        let body = json!({"model": "m", "content": "a".repeat(bytes), "with_pieces": true});
        daemon.post("/tokenize", &body)
    };
    assert_eq!(tokenize(150_000).status, 200);
    // 4.9 MB of answer, and 2.2 MB of tokens and pieces.
    let refused = tokenize(240_000);
    assert_eq!(
        (refused.status, &*refused.error_code()),
        (413, "request_too_large"),
        "{:.200}",
        refused.body
    );
    let detokenize = |tokens: usize| {
        let body = json!({"model": "m", "tokens": vec![2; tokens]});
        daemon.post("/detokenize", &body)
    };
    let answer = detokenize(2000);
    assert_eq!(answer.status, 200, "{:.200}", answer.body);
    assert_eq!(
        answer.json()["content"].as_str().map(str::len),
        Some(2_000_000)
    );
    // Its text fits, and the answer beside it does not.
    let refused = detokenize(4000);
    assert_eq!(
        (refused.status, &*refused.error_code()),
        (413, "request_too_large"),
        "{:.200}",
        refused.body
    );
}

#[test]
fn no_body_becomes_many_times_its_size() {
    const BYTES: usize = 8_380_000;
    const MOST_TIMES: u64 = 6;
    let daemon = daemon("memory.requests-limit-bytes = 268435456\ndeadlines.reader-call = \"2m\"");
    let chat = r#"{"model":"echo","messages":[{"role":"user","content":"x"}],"#;
    let kwargs = format!(r#"{chat}"chat_template_kwargs":{{"a":["#);
    let names: Vec<String> = (0..700_000).map(|n| format!("\"{n}\":0")).collect();
    let names = format!(r#"{chat}"chat_template_kwargs":{{{}}}}}"#, names.join(","));
    let run = r#"{"jsonrpc":"2.0","id":1,"method":"rkllm.run","params":["0",{"embed_input":{"n_tokens":1,"embed":["#;
    let init = r#"{"jsonrpc":"2.0","id":1,"method":"rkllm.init","params":["#;
    let parts = r#"{"model":"echo","messages":[{"role":"user","content":["#;
    let inner = format!(
        "{{\"role\":\"user\",\"content\":\"\",\"tool_calls\":[{}]}}",
        vec!["0"; 60_000].join(",")
    );
    let cases = [
        (
            "kwargs of lists",
            "/apply-template",
            filled(BYTES, &kwargs, "[]", "]}}"),
        ),
        (
            "kwargs of numbers",
            "/apply-template",
            filled(BYTES, &kwargs, "0", "]}}"),
        ),
        (
            "kwargs of texts",
            "/apply-template",
            filled(BYTES, &kwargs, "\"\"", "]}}"),
        ),
        (
            "kwargs of objects",
            "/apply-template",
            filled(BYTES, &kwargs, r#"{"":0}"#, "]}}"),
        ),
        ("kwargs of names", "/apply-template", names.into_bytes()),
        (
            "empty messages",
            "/apply-template",
            filled(
                BYTES,
                r#"{"model":"echo","messages":["#,
                r#"{"role":"user","content":""}"#,
                "]}",
            ),
        ),
        (
            "messages that are nothing",
            "/apply-template",
            filled(BYTES, r#"{"model":"echo","messages":["#, "{}", "]}"),
        ),
        (
            "messages of large lists",
            "/apply-template",
            filled(BYTES, r#"{"model":"echo","messages":["#, &inner, "]}"),
        ),
        (
            "parts",
            "/apply-template",
            filled(BYTES, parts, r#"{"type":"text","text":""}"#, "]}]}"),
        ),
        (
            "tools",
            "/apply-template",
            filled(BYTES, &format!(r#"{chat}"tools":["#), "[]", "]}"),
        ),
        (
            "a text",
            "/apply-template",
            filled(
                BYTES,
                r#"{"model":"echo","messages":[{"role":"user","content":""#,
                "<|im_end|>",
                "\"}]}",
            ),
        ),
        ("a batch of nothing", "/rpc", filled(BYTES, "[", "1", "]")),
        (
            "parameters of lists",
            "/rpc",
            filled(BYTES, init, "[]", "]}"),
        ),
        ("an embedding", "/rpc", filled(BYTES, run, "0", "]}}]}")),
        (
            "embeddings of tokens",
            "/v1/embeddings",
            filled(BYTES, r#"{"model":"echo","input":["#, "1", "]}"),
        ),
        (
            "embeddings of lists",
            "/v1/embeddings",
            filled(BYTES, r#"{"model":"echo","input":["#, "[1]", "]}"),
        ),
        (
            "stops",
            "/v1/completions",
            filled(
                BYTES,
                r#"{"model":"echo","prompt":"x","stop":["#,
                "\"\"",
                "]}",
            ),
        ),
        (
            "tokens",
            "/detokenize",
            filled(BYTES, r#"{"model":"echo","tokens":["#, "1", "]}"),
        ),
    ];
    assert_eq!(daemon.get("/health").status, 200);
    let mut faults = Vec::new();
    for (name, path, body) in cases {
        let before = resident_bytes(daemon.pid());
        let peak = Peak::watch(daemon.pid());
        let begun = Instant::now();
        let (status, _, said) = post(daemon.address, path, &body);
        let grown = peak.end().saturating_sub(before);
        let said: String = said.chars().take(150).collect();
        eprintln!(
            "{name}: {} bytes took {grown}, {status} after {:?}: {said}",
            body.len(),
            begun.elapsed()
        );
        if grown > MOST_TIMES * body.len() as u64 || status >= 500 {
            faults.push(format!("{name}: {status}, {grown} bytes: {said}"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// A member of an object takes many times its text, and the members of all functions count together.
#[test]
fn functions_take_no_more_than_what_is_charged_for_them() {
    let daemon = daemon("memory.requests-limit-bytes = 67108864");
    let members: Vec<String> = (0..65_000).map(|n| format!("\"{n:x}\":0")).collect();
    let members = members.join(",");
    let body = |tools: usize| {
        let tool = |place| {
            let schema = format!(r#"{{"type":"object","properties":{{{members}}}}}"#);
            format!(r#"{{"function":{{"name":"f{place}","parameters":{schema}}}}}"#)
        };
        let tools: Vec<String> = (0..tools).map(tool).collect();
        let tools = tools.join(",");
        format!(
            r#"{{"model":"echo","messages":[{{"role":"user","content":"x"}}],"tools":[{tools}]}}"#
        )
    };
    assert_eq!(daemon.get("/health").status, 200);
    let before = resident_bytes(daemon.pid());
    let peak = Peak::watch(daemon.pid());
    let (status, _, said) = post(daemon.address, "/apply-template", body(3).as_bytes());
    let peak = peak.end();
    assert!(peak < before + 32 * MIB + SLACK, "{before} became {peak}");
    assert_eq!(status, 413, "{said}");
    let daemon = self::daemon("memory.requests-limit-bytes = 268435456");
    let (status, _, said) = post(daemon.address, "/apply-template", body(2).as_bytes());
    assert_eq!(status, 400, "{said}");
    assert!(
        said.contains("\"tools[1].function.parameters\"") && said.contains("65536"),
        "{said}"
    );
}

#[test]
fn what_a_burst_took_goes_back() {
    let daemon = daemon("");
    let chat = filled(
        1 << 20,
        r#"{"model":"echo","messages":[{"role":"user","content":""#,
        "<|im_end|>",
        "\"}]}",
    );
    let tokens = filled(8_380_000, r#"{"model":"echo","tokens":["#, "1", "]}");
    let (status, _, said) = post(daemon.address, "/apply-template", b"{}");
    assert_eq!(status, 400, "{said}");
    let before = resident_bytes(daemon.pid());
    let peak = Peak::watch(daemon.pid());
    let address = daemon.address;
    let clients: Vec<_> = (0..12)
        .map(|number| {
            let (path, body) = match number % 2 {
                0 => ("/apply-template", chat.clone()),
                _ => ("/detokenize", tokens.clone()),
            };
            thread::spawn(move || post(address, path, &body).0)
        })
        .collect();
    for client in clients {
        let status = client.join().expect("a client");
        assert!([200, 400, 429, 503].contains(&status), "{status}");
    }
    let peak = peak.end();
    assert!(peak > before + 20 * MIB, "{before} became {peak}: no burst");
    let until = Instant::now() + Duration::from_secs(10);
    let mut after = resident_bytes(daemon.pid());
    while after > before + 20 * MIB && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
        after = resident_bytes(daemon.pid());
    }
    assert!(after <= before + 20 * MIB, "{before} became {after}");
}

#[test]
fn the_rows_of_embeddings_are_charged_while_more_are_made() {
    const COLUMNS: u64 = 32_768;
    const INPUTS: u64 = 128;
    let daemon = Setup::new()
        .scenario(
            "rows",
            &format!("embedding-size = {COLUMNS}\nprefill-delay-ms = 50\n"),
        )
        .settings("memory.requests-limit-bytes = 67108864")
        .start();
    let charged = || {
        let metrics = daemon.get("/metrics").body;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("rkllmd_requests_memory_bytes "));
        line.expect("the figure").parse::<u64>().expect("a number")
    };
    let request = |inputs: u64| {
        let inputs = vec!["x"; usize::try_from(inputs).expect("few")];
        json!({"model": "rows", "input": inputs, "encoding_format": "base64"}).to_string()
    };
    let rows = begin(
        daemon.address,
        "/v1/embeddings",
        request(INPUTS).len(),
        request(INPUTS).as_bytes(),
    );
    eventually("all rows being charged at the first", || {
        (charged() >= INPUTS * COLUMNS * 4).then_some(())
    });
    // What cannot be held is refused at its first row.
    let (status, _, body) = post(
        daemon.address,
        "/v1/embeddings",
        request(INPUTS * 4).as_bytes(),
    );
    assert_eq!(status, 413, "{body}");
    drop(rows);
    eventually("the charge going back", || (charged() < MIB).then_some(()));
}
