//! Log probabilities of the real model over HTTP: each token of the content once, with its bytes, and
//! whatever becomes of workers and stop strings.

use crate::daemon_support::{Setup, chat, completion, kill};
use crate::log_probabilities::{
    CHATS, MODEL, TEXTS, bytes_of, characters, hold, lists, of_rockets, start, streamed,
};
use serde_json::{Value, json};

/// Rows of the same tokens that were evaluated in other pieces differ by less.
const CLOSE: f64 = 1e-2;

#[test]
fn the_bytes_of_the_tokens_are_the_content() {
    let daemon = start();
    let more = json!({"temperature": 0, "repeat_penalty": 1.0, "max_tokens": 17, "logprobs": true,
        "top_logprobs": 4});
    for body in [
        of_rockets(more.clone()),
        chat(
            MODEL,
            "Write the Japanese word 日本語 five times.",
            more.clone(),
        ),
        chat(MODEL, "Count from one to five.", more.clone()),
    ] {
        let whole = daemon.post(CHATS, &body);
        assert_eq!(whole.status, 200, "{}", whole.body);
        let whole = whole.json();
        let choice = &whole["choices"][0];
        let tokens = choice["logprobs"]["content"].as_array().expect("tokens");
        tokens.iter().for_each(|token| hold(token, 4));
        let content = choice["message"]["content"].as_str().expect("a content");
        assert!(tokens.len() > 4, "{whole}");
        // A character that the budget cut is no text.
        assert_eq!(characters(tokens).0, content);
        let (_, text, of_stream) = streamed(&daemon, &body);
        assert_eq!((text.as_str(), &of_stream), (content, tokens));
        let mut greedy = tokens
            .iter()
            .filter(|token| token["top_logprobs"][0]["bytes"] == token["bytes"]);
        assert_eq!(
            greedy.by_ref().count(),
            tokens.len(),
            "each is the likeliest"
        );
    }
    let rockets = daemon.post(CHATS, &of_rockets(more)).content();
    assert!(rockets.contains('🚀'), "{rockets}");
    let plain = chat(MODEL, "Count.", json!({"max_tokens": 3}));
    let plain = daemon.post(CHATS, &plain).json();
    assert_eq!(plain["choices"][0]["logprobs"], Value::Null);
    for (wrong, param) in [
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            "top_logprobs",
        ),
    ] {
        let refused = daemon.post(CHATS, &chat(MODEL, "x", wrong));
        assert_eq!(refused.status, 400);
        assert_eq!(refused.json()["error"]["param"], param);
    }
}

#[test]
fn none_is_told_beyond_a_stop_string() {
    let daemon = start();
    let ask = |more: Value| {
        let mut body = chat(MODEL, "Count from one to ten in words.", more);
        for (name, value) in [
            ("temperature", json!(0)),
            ("max_tokens", json!(40)),
            ("logprobs", json!(true)),
        ] {
            body[name] = value;
        }
        body
    };
    let free = daemon.post(CHATS, &ask(json!({}))).content();
    // In the middle of words, and of tokens.
    for (begin, length) in [
        (free.len() / 3, 3),
        (free.len() / 2, 1),
        (free.len() / 2, 5),
    ] {
        let begin = free.floor_char_boundary(begin);
        let stop = &free[begin..free.ceil_char_boundary(begin + length)];
        let body = ask(json!({"stop": [stop]}));
        let cut = daemon.post(CHATS, &body).json();
        let choice = &cut["choices"][0];
        let tokens = choice["logprobs"]["content"].as_array().expect("tokens");
        let content = choice["message"]["content"].as_str().expect("a content");
        assert_eq!(content, &free[..free.find(stop).expect("it is there")]);
        assert_eq!(String::from_utf8(bytes_of(tokens)).expect("whole"), content);
        let (_, text, of_stream) = streamed(&daemon, &body);
        assert_eq!((text.as_str(), &of_stream), (content, tokens));
    }
}

#[test]
fn tokens_are_told_once_although_workers_die() {
    let daemon = start();
    let more = json!({"temperature": 0, "repeat_penalty": 1.0, "max_tokens": 40, "logprobs": true, "top_logprobs": 1});
    let body = of_rockets(more);
    let (_, whole, wanted) = streamed(&daemon, &body);
    for dies_at in [2, 9] {
        let mut asked = body.clone();
        asked["stream"] = json!(true);
        let mut stream = daemon.stream(CHATS, &asked);
        let (mut text, mut tokens, mut pieces) = (String::new(), Vec::new(), 0);
        let mut last = Value::Null;
        while let Some(data) = stream.next_data().filter(|data| data != "[DONE]") {
            let chunk: Value = serde_json::from_str(&data).expect("a chunk");
            let choice = &chunk["choices"][0];
            if let Some(piece) = choice["delta"]["content"]
                .as_str()
                .filter(|p| !p.is_empty())
            {
                text.push_str(piece);
                pieces += 1;
                if pieces == dies_at {
                    kill(daemon.worker_pid());
                }
            }
            let of_piece = choice["logprobs"]["content"].as_array();
            tokens.extend(of_piece.into_iter().flatten().cloned());
            last = chunk;
        }
        assert_eq!(last["timings"]["resumptions"], 1, "{last}");
        assert_eq!(text, whole);
        assert_eq!(tokens.len(), wanted.len());
        for (got, wanted) in tokens.iter().zip(&wanted) {
            assert_eq!(got["bytes"], wanted["bytes"]);
            let value = |of: &Value| of["logprob"].as_f64().expect("a number");
            // What was said before is evaluated again, many tokens at once.
            let difference = (value(got) - value(wanted)).abs();
            assert!(difference < 5.0 * CLOSE, "{got} {wanted}");
        }
    }
}

#[test]
fn an_echoed_prompt_has_what_its_tokens_had_as_an_answer() {
    let daemon = start();
    let prompt = "It was a bright cold day in April, and the clocks were striking thirteen.";
    let more = json!({"temperature": 0, "max_tokens": 24, "logprobs": 3});
    let answer = daemon.post(TEXTS, &completion(MODEL, prompt, more)).json();
    let choice = &answer["choices"][0];
    let said = choice["text"].as_str().expect("a text");
    let (tokens, logprobs, offsets) = lists(choice);
    assert_eq!(tokens.concat(), said);
    assert_eq!(offsets[0], 0);
    let most = choice["logprobs"]["top_logprobs"][0]
        .as_object()
        .expect("a map")
        .len();
    assert_eq!(most, 3, "a greedy token is among the likeliest");

    let both = format!("{prompt}{said}");
    let more = json!({"max_tokens": 0, "echo": true, "logprobs": 3});
    let echo = completion(MODEL, &both, more.clone());
    let echoed = daemon.post(TEXTS, &echo).json();
    let echoed = &echoed["choices"][0];
    assert_eq!(echoed["text"], both);
    assert_eq!(echoed["finish_reason"], "length");
    let (all, of_all, places) = lists(echoed);
    assert_eq!(all.concat(), both);
    assert_eq!((of_all[0], places[0]), (None, 0));
    assert!(of_all[1..].iter().all(Option::is_some));
    let begins: Vec<usize> = all
        .iter()
        .scan(0, |at, token| {
            *at += token.chars().count();
            Some(*at - token.chars().count())
        })
        .collect();
    assert_eq!(places, begins);
    let behind = &all[all.len() - tokens.len()..];
    assert_eq!(behind, tokens, "the text is cut into the same tokens");
    for (got, wanted) in of_all[all.len() - tokens.len()..].iter().zip(&logprobs) {
        let difference = (got.expect("one") - wanted.expect("one")).abs();
        assert!(difference < CLOSE, "{got:?} {wanted:?}");
    }

    // In a stream, and with an answer behind it.
    let mut body = completion(
        MODEL,
        prompt,
        json!({"temperature": 0, "max_tokens": 24, "echo": true, "logprobs": 0}),
    );
    let whole = daemon.post(TEXTS, &body).json();
    let whole = &whole["choices"][0];
    assert_eq!(whole["text"], both);
    body["stream"] = json!(true);
    let events = daemon.stream(TEXTS, &body).collect();
    let chunks = events
        .iter()
        .filter_map(|(_, data)| serde_json::from_str::<Value>(data).ok());
    let (mut text, mut told) = (String::new(), (Vec::new(), Vec::new(), Vec::new()));
    for chunk in chunks {
        let choice = &chunk["choices"][0];
        text.push_str(choice["text"].as_str().expect("a text"));
        if !choice["logprobs"].is_null() {
            let (tokens, logprobs, offsets) = lists(choice);
            told.0.extend(tokens);
            told.1.extend(logprobs);
            told.2.extend(offsets);
        }
    }
    assert_eq!(text, both);
    assert_eq!(told, lists(whole));
    let plain = completion(
        MODEL,
        prompt,
        json!({"temperature": 0, "max_tokens": 24, "echo": true}),
    );
    let plain = daemon.post(TEXTS, &plain).json();
    assert_eq!(plain["choices"][0]["text"], both);
    assert_eq!(plain["choices"][0]["logprobs"], Value::Null);
}

#[test]
fn a_runtime_that_cannot_tell_refuses() {
    let daemon = Setup::new().scenario("fake", "tokens = [\"a\"]\n").start();
    for (path, body, param) in [
        (
            CHATS,
            chat("fake", "x", json!({"logprobs": true})),
            "logprobs",
        ),
        (
            TEXTS,
            completion("fake", "x", json!({"logprobs": 1})),
            "logprobs",
        ),
    ] {
        let refused = daemon.post(path, &body);
        let error = &refused.json()["error"];
        assert_eq!(refused.status, 400, "{error}");
        assert_eq!(
            (&error["code"], &error["param"]),
            (&json!("cannot_tell_logprobs"), &json!(param))
        );
    }
}

#[test]
fn ollamas_clients_are_told_of_each_token() {
    let daemon = start();
    let body = |path_has_messages: bool, stream: bool| {
        let mut body = json!({"model": MODEL, "stream": stream, "logprobs": true, "top_logprobs": 3,
            "options": {"temperature": 0, "num_predict": 9}});
        let (name, value) = match path_has_messages {
            true => (
                "messages",
                json!([{"role": "user", "content": "Name three colours."}]),
            ),
            false => ("prompt", json!("Name three colours.")),
        };
        body[name] = value;
        body
    };
    for (path, is_chat) in [("/api/chat", true), ("/api/generate", false)] {
        let text_of = |answer: &Value| match is_chat {
            true => answer["message"]["content"].clone(),
            false => answer["response"].clone(),
        };
        let whole = daemon.post(path, &body(is_chat, false)).json();
        let tokens = whole["logprobs"].as_array().expect("a list").clone();
        let text = text_of(&whole);
        assert_eq!(
            bytes_of(&tokens),
            text.as_str().expect("a text").as_bytes(),
            "{whole}"
        );
        tokens.iter().for_each(|token| hold(token, 3));
        let lines = daemon.post(path, &body(is_chat, true)).body;
        let lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line is JSON"))
            .collect();
        let streamed = lines
            .iter()
            .flat_map(|line| line["logprobs"].as_array().cloned());
        let streamed: Vec<Value> = streamed.flatten().collect();
        assert_eq!(streamed, tokens, "{path}");
        for line in &lines {
            let text = text_of(line);
            let has_text = text.as_str().is_some_and(|text| !text.is_empty());
            assert_eq!(line.get("logprobs").is_some(), has_text, "{line}");
        }
    }
}
