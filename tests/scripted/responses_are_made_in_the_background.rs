//! Responses in the background: they are made although no client waits, can be looked at, and have one end: their answer, a cancel,
//! their deadline or a failure.

use std::time::Duration;

use crate::http_support::*;
use crate::responses_background_support::*;
use rkllmd::generation::GenerationError;
use rkllmd::settings::Settings;
use serde_json::{Value, json};

#[tokio::test]
async fn it_is_queued_then_made_then_kept() {
    let (server, mut generations) = endless(Settings::default()).await;
    let response = begin(&server).await;
    let sender = generation(&mut generations).await;
    assert_eq!(look(&server, &response).await["status"], "queued");
    let items = format!("{}/input_items", path(&response));
    assert_eq!(server.get(&items).await.json()["data"][0]["role"], "user");
    let early = json!({"model": "tiny", "input": "x", "previous_response_id": response["id"]});
    let refused = server.post(PATH, early.to_string()).await;
    let (_, param, told) = refused.error();
    assert_eq!(
        (refused.status, param.as_deref(), &*told),
        (400, Some("previous_response_id"), "invalid_value")
    );
    send(&sender, [started(&[])]).await;
    until(&server, &response, "in_progress").await;
    send(&sender, [text("so "), text("be it"), finished()]).await;
    let made = until(&server, &response, "completed").await;
    assert_eq!(made["output"][0]["content"][0]["text"], "so be it");
    assert_eq!(made["created_at"], response["created_at"]);
    let heard = heard_response_in(&followed(&server, &response, "stream=true").await);
    assert_eq!(heard.response, made);
    // Nothing changes behind the end.
    let cancelled = cancel(&server, &path(&response)).await;
    assert_eq!((cancelled.status, cancelled.json()), (200, made));
    let listed = server.get(&items).await.json();
    assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));
    server.shut_down().await;
}

#[tokio::test]
async fn a_cancelled_one_ends_with_what_there_is() {
    let (server, mut generations) = endless(Settings::default()).await;
    // While it waits, and while it is made.
    for so_far in ["", "so far"] {
        let response = begin(&server).await;
        let sender = generation(&mut generations).await;
        if !so_far.is_empty() {
            send(&sender, [started(&[]), text(so_far)]).await;
            within("a delta", async {
                let from = format!("{}?stream=true", path(&response));
                let mut reader = server.client().await;
                reader
                    .send(format!("GET {from} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
                    .await;
                reader.head().await;
                let mut heard = String::new();
                while !heard.contains(so_far) {
                    heard += std::str::from_utf8(&reader.chunk().await).expect("text");
                }
            })
            .await;
        }
        let cancelled = cancel(&server, &path(&response)).await;
        assert_eq!(cancelled.status, 200, "{}", cancelled.text());
        within("the end of the generation", sender.closed()).await;
        let cancelled = cancelled.json();
        is_whole_resource(&cancelled);
        assert_eq!(
            (&cancelled["status"], &cancelled["error"]),
            (&"cancelled".into(), &Value::Null)
        );
        assert_eq!(
            cancelled["output"][0]["content"][0]["text"].as_str(),
            (!so_far.is_empty()).then_some(so_far)
        );
        let stream = followed(&server, &response, "stream=true").await;
        assert_eq!(heard_response_in(&stream).response, cancelled);
        assert_eq!(look(&server, &response).await, cancelled);
        let then = json!({"model": "tiny", "input": "x", "previous_response_id": response["id"]});
        let refused = server.post(PATH, then.to_string()).await;
        assert_eq!(
            (refused.status, &*refused.error().2),
            (400, "invalid_value")
        );
    }
    server.shut_down().await;
}

#[tokio::test]
async fn only_one_in_the_background_can_be_cancelled_or_followed() {
    let server = Server::replaying(Settings::default(), || {
        vec![started(&[]), text("x"), finished()]
    })
    .await;
    let plain = json!({"model": "tiny", "input": "hi"});
    let plain = server.post(PATH, plain.to_string()).await.json();
    assert_eq!(cancel(&server, &path(&plain)).await.status, 400);
    let unknown = cancel(&server, "/v1/responses/resp_0").await;
    assert_eq!(
        (unknown.status, &*unknown.error().2),
        (404, "previous_response_not_found")
    );
    let response = begin(&server).await;
    until(&server, &response, "completed").await;
    for (of, query, param) in [
        (&plain, "stream=true", "stream"),
        (&plain, "stream=yes", "stream"),
        (&response, "stream=true&stream=true", "stream"),
        (&response, "stream=true&starting_after=-1", "starting_after"),
        (&response, "stream=true&starting_after=x", "starting_after"),
        (&response, "stream=true&starting_after=99", "starting_after"),
    ] {
        let answer = server.get(&format!("{}?{query}", path(of))).await;
        assert_eq!(
            (answer.status, answer.error().1.as_deref()),
            (400, Some(param)),
            "{query}"
        );
    }
    let at = format!(
        "{}?stream=true&starting_after=99999999999999999999",
        path(&response)
    );
    assert_eq!(server.get(&at).await.status, 400);
    assert_eq!(look(&server, &plain).await, plain);
    server.shut_down().await;
}

#[tokio::test]
async fn a_key_has_so_many_at_a_time() {
    let (server, mut generations) = endless(Settings::default()).await;
    let mut senders = Vec::new();
    let mut begun = Vec::new();
    for _ in 0..2 {
        begun.push(begin(&server).await);
        senders.push(generation(&mut generations).await);
    }
    let refused = server.post(PATH, body().to_string()).await;
    let (class, param, told) = refused.error();
    assert_eq!(
        (refused.status, &*class, param, &*told),
        (429, "rate_limit_error", None, "too_many_in_background")
    );
    assert!(refused.header("retry-after").is_some());
    assert_eq!(cancel(&server, &path(&begun[0])).await.status, 200);
    let third = begin(&server).await;
    generation(&mut generations).await;
    for response in [&begun[1], &third] {
        cancel(&server, &path(response)).await;
    }
    server.shut_down().await;
}

#[tokio::test]
async fn what_the_settings_do_not_allow_is_refused_by_its_name() {
    let mut settings = Settings::default();
    settings.responses.max_background_per_key = 0;
    let server = Server::replaying(settings, Vec::new).await;
    let refused = server.post(PATH, body().to_string()).await;
    let (_, param, told) = refused.error();
    assert_eq!(
        (refused.status, param.as_deref(), &*told),
        (400, Some("background"), "unsupported_parameter")
    );
    server.shut_down().await;
}

#[tokio::test]
async fn it_ends_at_its_deadline() {
    let mut settings = Settings::default();
    settings.deadlines.background = Duration::from_millis(50);
    let (server, mut generations) = endless(settings).await;
    let response = begin(&server).await;
    let sender = generation(&mut generations).await;
    within("the end of the generation", sender.closed()).await;
    let failed = until(&server, &response, "failed").await;
    assert_eq!(code(&failed), "deadline_exceeded", "{failed}");
    let message = failed["error"]["message"].as_str().expect("a text");
    assert!(message.contains("`background`"), "{message}");
    let stream = followed(&server, &response, "stream=true").await;
    let heard = heard_response_in(&stream);
    assert_eq!(heard.response, failed);
    let metrics = server.get("/metrics").await;
    let counted = "rkllmd_deadlines_passed_total{deadline=\"background\"} 1";
    assert!(metrics.text().contains(counted), "{}", metrics.text());
    server.shut_down().await;
}

#[tokio::test]
async fn one_that_fails_says_why_wherever_it_does() {
    let server = Server::start(Settings::default(), |_| Err(GenerationError::ShuttingDown)).await;
    let response = begin(&server).await;
    let failed = until(&server, &response, "failed").await;
    assert_eq!(code(&failed), "shutting_down");
    let stream = followed(&server, &response, "stream=true").await;
    let heard = heard_response_in(&stream);
    assert_eq!(heard.response, failed);
    assert_eq!(heard.error.expect("an error")["code"], "shutting_down");
    server.shut_down().await;
}

#[tokio::test]
async fn an_administrator_ends_it_as_any_other_request() {
    let (server, mut generations) = endless(Settings::default()).await;
    let response = begin(&server).await;
    let sender = generation(&mut generations).await;
    let listed = server.get("/v1/admin/requests").await.json();
    let listed = listed["requests"].as_array().expect("a list").clone();
    let [request] = &listed[..] else {
        panic!("{listed:?}");
    };
    assert_eq!(request["path"], PATH);
    let id = request["id"].as_str().expect("an id");
    let head = format!("DELETE /v1/admin/requests/{id} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(server.ask(head).await.status, 200);
    within("the end of the generation", sender.closed()).await;
    let failed = until(&server, &response, "failed").await;
    assert_eq!(code(&failed), "aborted_by_administrator");
    server.shut_down().await;
}

#[tokio::test]
async fn one_that_is_deleted_ends_and_is_not_kept() {
    let (server, mut generations) = endless(Settings::default()).await;
    let response = begin(&server).await;
    let sender = generation(&mut generations).await;
    let head = format!(
        "DELETE {} HTTP/1.1\r\nhost: localhost\r\n\r\n",
        path(&response)
    );
    assert_eq!(server.ask(head).await.json()["deleted"], true);
    within("the end of the generation", sender.closed()).await;
    within("it being gone for good", async {
        while server.get(&path(&response)).await.status != 404 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Its place is free.
    for _ in 0..2 {
        begin(&server).await;
        generation(&mut generations).await;
    }
    server.shut_down().await;
}

#[tokio::test]
async fn one_that_is_deleted_lets_none_past_what_was_begun_before_it() {
    let mut settings = Settings::default();
    settings.responses.max_background_per_key = 4;
    let (mut server, mut generations) = endless(settings).await;
    let mut begun = Vec::new();
    for input in [NEVER_RENDERED, "second", "third", "fourth"] {
        let mut asked = body();
        asked["input"] = input.into();
        let answer = server.post(PATH, asked.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        begun.push(answer.json());
    }
    for deleted in &begun[1..3] {
        let head = format!(
            "DELETE {} HTTP/1.1\r\nhost: localhost\r\n\r\n",
            path(deleted)
        );
        assert_eq!(server.ask(head).await.json()["deleted"], true);
    }
    // They leave their places, one of which this takes behind all others.
    let fifth = begin(&server).await;
    for waiting in [&begun[0], &begun[3], &fifth] {
        assert_eq!(look(&server, waiting).await["status"], "queued");
    }
    assert!(server.requests.try_recv().is_err(), "one is in line");
    assert_eq!(cancel(&server, &path(&begun[0])).await.status, 200);
    for said in ["fourth", "hi"] {
        generation(&mut generations).await;
        let request = within("a request", server.requests.recv()).await;
        let prompt = request.expect("the server lives").prompt;
        assert!(prompt.contains(said), "{prompt}");
    }
    server.shut_down().await;
}

#[tokio::test]
async fn what_it_takes_is_its_clients_whether_or_not_it_is_read() {
    let mut settings = Settings::default();
    settings.memory.requests_limit_bytes = Some(4 << 20);
    settings.responses.background_events_limit_bytes = 65_536;
    let (server, mut generations) = endless(settings).await;
    let response = begin(&server).await;
    let sender = generation(&mut generations).await;
    send(&sender, [started(&[])]).await;
    let much = || text(&"much ".repeat(1000));
    // No client reads it, and it ends all the same.
    within("its end", async {
        while sender.send(much()).await.is_ok() {}
    })
    .await;
    // Until what it had is given back there may be no memory to tell it.
    let failed = within("its end being told", async {
        loop {
            let answer = server.get(&path(&response)).await;
            if answer.status == 200 && answer.json()["status"] == "failed" {
                break answer.json();
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let code = code(&failed);
    assert!(
        ["request_too_large", "memory_share_used", "memory_used"].contains(&code),
        "{code}"
    );
    let next = within("memory for another", async {
        loop {
            let answer = server.post(PATH, body().to_string()).await;
            if answer.status == 200 {
                break answer.json();
            }
            assert!(answer.error().2.starts_with("memory_"), "{}", answer.text());
        }
    })
    .await;
    generation(&mut generations).await;
    assert_eq!(cancel(&server, &path(&next)).await.status, 200);
    server.shut_down().await;
}
