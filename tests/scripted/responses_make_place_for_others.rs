//! Kept responses are bounded in number, age and size: what has made place for others is told as gone.

use std::time::Duration;

use crate::http_support::*;
use crate::responses_are_kept_for_their_keys::{PATH, id, prompt, server};
use rkllmd::generation::{GenerationError, ReplyEvent};
use rkllmd::settings::Settings;
use serde_json::json;

#[tokio::test]
async fn what_has_made_place_for_others_is_told_as_gone() {
    let mut settings = Settings::default();
    settings.responses.max_kept_per_key = 2;
    let mut server = server(settings).await;
    let mut ids = Vec::new();
    for turn in 0..3 {
        let body = json!({"model": "tiny", "input": format!("{turn}")});
        let (response, _) = prompt(&mut server, &body).await;
        ids.push(id(&response).to_owned());
    }
    let unkept = json!({"model": "tiny", "input": "x", "store": false});
    let (unkept, _) = prompt(&mut server, &unkept).await;
    assert_eq!(unkept["store"], false);
    for gone in [ids[0].as_str(), id(&unkept), "resp_0", "%ff"] {
        for path in [
            format!("{PATH}/{gone}"),
            format!("{PATH}/{gone}/input_items"),
        ] {
            let answer = server.get(&path).await;
            let (class, param, code) = answer.error();
            assert_eq!(
                (answer.status, &*class, param, &*code),
                (
                    404,
                    "invalid_request_error",
                    None,
                    "previous_response_not_found"
                )
            );
        }
        let body = json!({"model": "tiny", "input": "x", "previous_response_id": gone});
        let answer = server.post(PATH, body.to_string()).await;
        let (_, param, code) = answer.error();
        assert_eq!(
            (answer.status, &*code),
            (400, "previous_response_not_found")
        );
        assert_eq!(param.as_deref(), Some("previous_response_id"));
    }
    // What has gone on from one that is deleted stays whole.
    let body = json!({"model": "tiny", "input": "next", "previous_response_id": ids[2]});
    let (next, before) = prompt(&mut server, &body).await;
    let delete = |id: &str| format!("DELETE {PATH}/{id} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let deleted = server.ask(delete(&ids[2])).await;
    assert_eq!(
        deleted.json(),
        json!({"id": ids[2], "object": "response", "deleted": true})
    );
    assert_eq!(server.ask(delete(&ids[2])).await.status, 404);
    let body = json!({"model": "tiny", "input": "last", "previous_response_id": id(&next)});
    let (_, after) = prompt(&mut server, &body).await;
    assert!(before.contains("next") && after.contains("next") && after.contains("last"));
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_old_is_gone() {
    let mut settings = Settings::default();
    settings.responses.kept_for = Duration::from_nanos(1);
    let mut server = server(settings).await;
    let body = json!({"model": "tiny", "input": "a"});
    let (response, _) = prompt(&mut server, &body).await;
    assert_eq!(
        server
            .get(&format!("{PATH}/{}", id(&response)))
            .await
            .status,
        404
    );
    server.shut_down().await;
}

#[tokio::test]
async fn what_is_too_large_to_be_kept_says_so() {
    let mut settings = Settings::default();
    settings.responses.kept_limit_bytes = 16_384;
    let mut server = server(settings).await;
    let large = "x".repeat(16_384);
    for (input, is_kept) in [("x", true), (large.as_str(), false)] {
        let mut body = json!({"model": "tiny", "input": input});
        let (whole, _) = prompt(&mut server, &body).await;
        body["stream"] = true.into();
        let heard = heard_response(&server.post(PATH, body.to_string()).await);
        while server.requests.try_recv().is_ok() {}
        for response in [whole, heard.response] {
            is_whole_resource(&response);
            assert_eq!(response["store"], is_kept);
            let path = format!("{PATH}/{}", id(&response));
            let status = if is_kept { 200 } else { 404 };
            assert_eq!(server.get(&path).await.status, status);
        }
    }
    server.shut_down().await;
}

#[tokio::test]
async fn what_has_failed_is_not_kept_and_says_so() {
    let server = Server::start(Settings::default(), |_| {
        let failed = ReplyEvent::Failed(GenerationError::RunFailed {
            request: "r".to_owned(),
        });
        Ok(replay(vec![started(&[]), text("so "), failed]))
    })
    .await;
    let body = json!({"model": "tiny", "input": "a", "stream": true});
    let failed = heard_response(&server.post(PATH, body.to_string()).await).response;
    assert_eq!(
        (&failed["status"], &failed["store"]),
        (&"failed".into(), &false.into())
    );
    let path = format!("{PATH}/{}", id(&failed));
    assert_eq!(server.get(&path).await.status, 404);
    server.shut_down().await;
}
