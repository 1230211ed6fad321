//! Clients of JSON-RPC: a connection with a handle each, of one client all together. A run gives its answer to the
//! byte, or ends with an error that says why; then the handle runs the next one.

use std::io;
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::client::{broken, difference};
use crate::daemon_support::PATIENCE;
use crate::outcome::{Ended, Fault, Served};
use crate::scenario::Answer;
use crate::source_address::{ReceiveBuffer, connect_from};

/// Errors of a call whose worker ended, hung or could not be loaded, or that waited for its turn too long.
const LOSSES: [&str; 5] = [
    "call_failed",
    "deadline_passed",
    "limit_reached",
    "model_unavailable",
    "worker_died",
];

/// A connection and its handle.
pub struct Handle {
    socket: WebSocket<TcpStream>,
    model: &'static str,
    /// Not before `rkllm.init` has succeeded.
    handle: Option<String>,
    last_id: u64,
}

impl Handle {
    /// A connection from 127.0.0.`host`.
    pub fn connect(address: SocketAddr, host: u8, model: &'static str) -> io::Result<Self> {
        let stream = connect_from(host, address, ReceiveBuffer::Ordinary)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (socket, _) = tungstenite::client(format!("ws://{address}/rpc/ws"), stream)
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self {
            socket,
            model,
            handle: None,
            last_id: 0,
        })
    }

    /// Runs the prompt of `answer`; with a notification for each token where it is `streamed`.
    pub fn run(&mut self, answer: &Answer, streamed: bool) -> Served {
        let ended = self
            .try_run(answer, streamed)
            .unwrap_or_else(|error| broken(&error));
        Served {
            ended,
            ..Served::unseen(streamed, Ended::RunComplete)
        }
    }

    fn try_run(&mut self, answer: &Answer, streamed: bool) -> io::Result<Ended> {
        let handle = match self.handle.clone() {
            Some(handle) => handle,
            None => {
                let param = json!({"max_new_tokens": 2000, "max_context_len": 4096});
                let opened =
                    self.call("rkllm.init", json!([self.model, param]), &mut String::new())?;
                if opened["error"].is_object() {
                    return Ok(lost(&opened));
                }
                let handle = opened["result"]["handle"].as_str().unwrap_or_default();
                self.handle.insert(handle.to_owned()).clone()
            }
        };
        let params = json!({
            "handle": handle,
            "rkllm_input": {"prompt_input": answer.prompt},
            "stream": streamed,
        });
        let mut told = String::new();
        let ended = self.call("rkllm.run", params, &mut told)?;
        let is_error = ended["error"].is_object();
        let text = match &ended["result"]["results"][0]["text"] {
            Value::String(text) => text,
            _ => "",
        };
        Ok(if !answer.text.starts_with(&told) {
            Ended::Finding(Fault::Wrong, difference(&told, &answer.text))
        } else if is_error {
            lost(&ended)
        } else if text != answer.text {
            Ended::Finding(Fault::Wrong, difference(text, &answer.text))
        } else if streamed && told != answer.text {
            Ended::Finding(Fault::Wrong, difference(&told, &answer.text))
        } else {
            Ended::RunComplete
        })
    }

    /// The answer to a call; the text of the notifications before it is added to `told`.
    fn call(&mut self, method: &str, params: Value, told: &mut String) -> io::Result<Value> {
        self.last_id += 1;
        let call =
            json!({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params});
        self.socket
            .send(Message::text(call.to_string()))
            .map_err(of_socket)?;
        loop {
            let Message::Text(text) = self.socket.read().map_err(of_socket)? else {
                continue;
            };
            let message: Value = serde_json::from_str(&text)?;
            if message["id"] == self.last_id {
                return Ok(message);
            }
            told.push_str(message["params"]["text"].as_str().unwrap_or_default());
        }
    }
}

fn of_socket(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

fn lost(answer: &Value) -> Ended {
    match answer["error"]["data"]["code"].as_str() {
        Some(code) if LOSSES.contains(&code) => Ended::RunLost(code.to_owned()),
        _ => Ended::Finding(Fault::Untyped, answer.to_string()),
    }
}
