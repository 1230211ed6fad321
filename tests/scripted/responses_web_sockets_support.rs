//! What tests of responses on WebSockets have in common.

use crate::http_support::web_socket::*;
use crate::http_support::*;
use rkllmd::conversation::ReplyPiece;
use rkllmd::generation::ReplyEvent;
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub const PATH: &str = "/v1/responses";

pub async fn socket(server: &Server) -> WebSocket {
    WebSocket::new(opened(server, PATH, "").await)
}

/// A message that asks for a response, with more fields.
pub fn create(fields: Value) -> Value {
    let mut message = json!({"type": "response.create", "model": "tiny", "input": "hi"});
    for (name, value) in fields.as_object().expect("fields") {
        message[name] = value.clone();
    }
    message
}

pub async fn event(socket: &mut WebSocket) -> Value {
    match socket.told().await {
        Some(Told::Text(text)) => serde_json::from_str(&text).expect("JSON"),
        other => panic!("no event: {other:?}"),
    }
}

/// The events up to the end of a response.
pub async fn events(socket: &mut WebSocket) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let event = event(socket).await;
        let is_end = matches!(
            event["type"].as_str(),
            Some("response.completed" | "response.incomplete" | "response.failed")
        );
        events.push(event);
        if is_end {
            return events;
        }
    }
}

/// As a stream has them, so that the same is demanded of them.
pub fn as_stream(events: &[Value]) -> String {
    let events = events.iter().map(|event| {
        let name = event["type"].as_str().expect("a type");
        format!("event: {name}\ndata: {event}\n\n")
    });
    events.collect::<String>() + "data: [DONE]\n\n"
}

pub async fn answered(socket: &mut WebSocket, message: &Value) -> Value {
    socket.say(&message.to_string()).await;
    let events = events(socket).await;
    heard_response_in(&as_stream(&events)).response
}

/// Status, code and field of a refusal.
pub async fn refused(socket: &mut WebSocket) -> (u64, String, Value) {
    let event = event(socket).await;
    assert_eq!(event["type"], "error", "{event}");
    for name in ["code", "message", "param"] {
        assert_eq!(event[name], event["error"][name], "{event}");
    }
    let code = event["code"].as_str().expect("a code").to_owned();
    (
        event["status"].as_u64().expect("a status"),
        code,
        event["param"].clone(),
    )
}

pub fn answer() -> Vec<ReplyEvent> {
    let call = ReplyPiece::ToolCall {
        index: 0,
        id: None,
        name: "f".to_owned(),
    };
    let arguments = ReplyPiece::ToolArguments {
        index: 0,
        delta: "{\"a\": 1}".to_owned(),
    };
    vec![
        started(&[]),
        ReplyEvent::Piece(ReplyPiece::Reasoning("hm\n\n".to_owned())),
        text("so \"é\"\n\n"),
        text("event: x\ndata: y\n\n"),
        ReplyEvent::Pieces(vec![call, arguments, ReplyPiece::ToolCallEnd { index: 0 }]),
        finished(),
    ]
}

pub async fn generation(
    generations: &mut mpsc::UnboundedReceiver<mpsc::Sender<ReplyEvent>>,
) -> mpsc::Sender<ReplyEvent> {
    let sender = within("a generation", generations.recv()).await;
    sender.expect("the server lives")
}
