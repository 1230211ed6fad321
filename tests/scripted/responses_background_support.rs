//! What tests of responses in the background have in common.

use crate::http_support::*;
use rkllmd::generation::ReplyEvent;
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub const PATH: &str = "/v1/responses";

pub fn body() -> Value {
    json!({"model": "tiny", "input": "hi", "background": true})
}

pub async fn begin(server: &Server) -> Value {
    let answer = server.post(PATH, body().to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let response = answer.json();
    is_whole_resource(&response);
    let state = (
        &response["status"],
        &response["background"],
        &response["output"],
    );
    assert_eq!(state, (&"queued".into(), &true.into(), &json!([])));
    response
}

pub fn path(response: &Value) -> String {
    format!("{PATH}/{}", response["id"].as_str().expect("an id"))
}

pub async fn look(server: &Server, response: &Value) -> Value {
    let answer = server.get(&path(response)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    is_whole_resource(&answer.json());
    answer.json()
}

pub async fn until(server: &Server, response: &Value, status: &str) -> Value {
    within(status, async {
        loop {
            let now = look(server, response).await;
            if now["status"] == status {
                break now;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

pub async fn cancel(server: &Server, path: &str) -> Answer {
    server
        .ask(format!(
            "POST {path}/cancel HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"
        ))
        .await
}

pub async fn generation(
    generations: &mut mpsc::UnboundedReceiver<mpsc::Sender<ReplyEvent>>,
) -> mpsc::Sender<ReplyEvent> {
    let sender = within("a generation", generations.recv()).await;
    sender.expect("the server lives")
}

pub async fn send(sender: &mpsc::Sender<ReplyEvent>, events: impl IntoIterator<Item = ReplyEvent>) {
    for event in events {
        within("a reader", sender.send(event))
            .await
            .expect("a reader");
    }
}

/// The text of a whole stream.
pub async fn followed(server: &Server, response: &Value, query: &str) -> String {
    let answer = server.get(&format!("{}?{query}", path(response))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text().to_owned()
}

pub fn code(response: &Value) -> &str {
    response["error"]["code"].as_str().unwrap_or_default()
}
