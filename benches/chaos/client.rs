//! One request of a client that knows what it must get: every chunk is compared with the answer as it
//! comes.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon_support::{Answer as HttpAnswer, EventStream, begin, chat, completion, send};
use crate::outcome::{Ended, Fault, Pause, Served};
use crate::plan::Moment;
use crate::scenario::{Answer, POISON, STOP};
use crate::source_address::{ReceiveBuffer, connect_from};

/// Pauses between tokens that are kept: longer than any token takes by itself.
const NOTED_PAUSE_MS: f64 = 8.0;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    Chat,
    Completion,
}

/// How much of the answer is asked for.
#[derive(Clone, Copy)]
pub enum Extent {
    Whole,
    /// As many tokens.
    Budget(usize),
    /// Up to the stop text.
    Stop,
}

/// When a client goes away.
#[derive(Clone, Copy)]
pub enum Leaving {
    Never,
    AfterChunks(usize),
    /// Before it has read anything.
    AfterTime(Duration),
}

/// What is asked.
pub enum Wanted<'a> {
    Answer(&'a Answer, Extent),
    Poison,
}

pub struct Ask<'a> {
    pub address: SocketAddr,
    /// Of 127.0.0.0/24.
    pub host: u8,
    pub model: &'static str,
    pub wanted: Wanted<'a>,
    pub endpoint: Endpoint,
    pub streamed: bool,
    pub leaving: Leaving,
    /// Between two chunks, for a reader that is slow but reads.
    pub pause: Duration,
}

impl Served {
    pub fn unseen(streamed: bool, ended: Ended) -> Self {
        Self {
            id: None,
            streamed,
            text_seen: None,
            pauses: Vec::new(),
            resumptions: 0,
            ended,
        }
    }
}

impl Ask<'_> {
    pub fn run(&self) -> Served {
        match self.try_run() {
            Ok(served) => served,
            Err(error) => Served::unseen(self.streamed, broken(&error)),
        }
    }

    fn try_run(&self) -> io::Result<Served> {
        let mut stream = connect_from(self.host, self.address, ReceiveBuffer::Ordinary)?;
        let (path, body) = self.request();
        if let Leaving::AfterTime(time) = self.leaving {
            send(&mut stream, "POST", path, Some(&body))?;
            // The client's own decision, not a wait for something.
            thread::sleep(time);
            return Ok(Served::unseen(self.streamed, Ended::Disconnected));
        }
        let begun = begin(stream, "POST", path, Some(&body))?;
        if begun.status != 200 {
            let answer = begun.into_answer()?;
            let id = answer.header("x-request-id").map(str::to_owned);
            return Ok(Served {
                id,
                ..Served::unseen(self.streamed, self.refused(&answer))
            });
        }
        if self.streamed {
            // One that fails before its first token has no chunk that tells it.
            let mut ids = begun.headers.iter();
            let id = ids.find(|(name, _)| name == "x-request-id");
            let id = id.map(|(_, id)| id.clone());
            Ok(self.read_stream(id, begun.into_events()))
        } else {
            Ok(self.read_whole(&begun.into_answer()?))
        }
    }

    fn request(&self) -> (&'static str, Value) {
        let (prompt, extra) = match self.wanted {
            Wanted::Poison => (POISON, json!({})),
            Wanted::Answer(answer, Extent::Whole) => {
                (answer.prompt.as_str(), json!({"max_tokens": 2000}))
            }
            Wanted::Answer(answer, Extent::Budget(tokens)) => {
                (answer.prompt.as_str(), json!({"max_tokens": tokens}))
            }
            Wanted::Answer(answer, Extent::Stop) => (
                answer.prompt.as_str(),
                json!({"max_tokens": 2000, "stop": [STOP]}),
            ),
        };
        let (path, mut body) = match self.endpoint {
            Endpoint::Chat => ("/v1/chat/completions", chat(self.model, prompt, extra)),
            Endpoint::Completion => ("/v1/completions", completion(self.model, prompt, extra)),
        };
        if self.streamed {
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
        }
        (path, body)
    }

    /// The text that must come; none for poison.
    fn expected(&self) -> &str {
        match self.wanted {
            Wanted::Poison => "",
            Wanted::Answer(answer, Extent::Whole) => &answer.text,
            Wanted::Answer(answer, Extent::Budget(tokens)) => {
                answer.cut(tokens).unwrap_or(&answer.text)
            }
            Wanted::Answer(answer, Extent::Stop) => {
                &answer.text[..answer.stop_at.unwrap_or(answer.text.len())]
            }
        }
    }

    /// Tokens that must be counted, where the answer decides it.
    fn expected_tokens(&self) -> Option<usize> {
        match self.wanted {
            Wanted::Answer(answer, Extent::Whole) => answer.token_count(),
            Wanted::Answer(_, Extent::Budget(tokens)) => Some(tokens),
            _ => None,
        }
    }

    fn refused(&self, answer: &HttpAnswer) -> Ended {
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let code = body["error"]["code"].as_str().unwrap_or_default();
        if answer.status == 429 {
            let told = answer.header("retry-after").map(str::parse::<u64>);
            return match told {
                Some(Ok(seconds)) if seconds > 0 && code == "queue_full" => Ended::OverCapacity,
                _ => Ended::Finding(Fault::NoRetryAfter, format!("{answer:?}")),
            };
        }
        self.failed(code, &answer.body)
    }

    fn failed(&self, code: &str, body: &str) -> Ended {
        match self.wanted {
            Wanted::Poison if code == "poison_request" => Ended::Poison,
            // An injury may hit the daemon's own prompt, which then speaks for the model's fault. As few
            // of these are allowed as of answers that fail.
            Wanted::Poison if code == "model_failed" => Ended::of_error(code, body),
            Wanted::Poison => Ended::Finding(Fault::PoisonServed, body.to_owned()),
            Wanted::Answer(..) => Ended::of_error(code, body),
        }
    }

    fn complete(&self, text: &str, end: &Value) -> Ended {
        let wrong = |what: String| Ended::Finding(Fault::Wrong, what);
        if matches!(self.wanted, Wanted::Poison) {
            return Ended::Finding(Fault::PoisonServed, text.to_owned());
        }
        if text != self.expected() {
            return wrong(difference(text, self.expected()));
        }
        let counted = end["usage"]["completion_tokens"].as_u64();
        if let (Some(counted), Some(expected)) = (counted, self.expected_tokens())
            && counted != expected as u64
        {
            return wrong(format!("{counted} tokens counted, not {expected}"));
        }
        let reason = end["finish_reason"].as_str().unwrap_or_default();
        let wanted = match self.wanted {
            Wanted::Answer(_, Extent::Budget(_)) => "length",
            _ => "stop",
        };
        if reason != wanted {
            return wrong(format!("finish_reason {reason:?}, not {wanted:?}"));
        }
        Ended::Complete
    }

    fn read_whole(&self, answer: &HttpAnswer) -> Served {
        let Ok(mut body) = serde_json::from_str::<Value>(&answer.body) else {
            let what = answer.body.clone();
            return Served::unseen(false, Ended::Finding(Fault::Broken, what));
        };
        body["finish_reason"] = body["choices"][0]["finish_reason"].clone();
        let choice = &body["choices"][0];
        let text = choice["message"]["content"].as_str();
        let text = text.or(choice["text"].as_str()).unwrap_or_default();
        Served {
            id: body["id"].as_str().map(str::to_owned),
            resumptions: body["timings"]["resumptions"].as_u64().unwrap_or(0),
            ..Served::unseen(false, self.complete(text, &body))
        }
    }

    fn read_stream(&self, id: Option<String>, events: EventStream) -> Served {
        let mut reading = Reading {
            ask: self,
            events,
            text: String::new(),
            chunks: 0,
            // What the last chunks tell, put together.
            end: json!({}),
            served: Served {
                id,
                ..Served::unseen(true, Ended::Disconnected)
            },
        };
        reading.served.ended = match reading.read_rest() {
            Ok(ended) => ended,
            Err(error) => broken(&error),
        };
        reading.served.resumptions = reading.end["resumptions"].as_u64().unwrap_or(0);
        reading.served
    }
}

/// A stream that is being read.
struct Reading<'a> {
    ask: &'a Ask<'a>,
    events: EventStream,
    text: String,
    chunks: usize,
    end: Value,
    served: Served,
}

impl Reading<'_> {
    fn read_rest(&mut self) -> io::Result<Ended> {
        while let Some(data) = self.events.try_next_data()? {
            if data == "[DONE]" {
                return Ok(self.ask.complete(&self.text, &self.end));
            }
            let Ok(chunk) = serde_json::from_str::<Value>(&data) else {
                return Ok(Ended::Finding(Fault::Broken, data));
            };
            if let Some(code) = chunk["error"]["code"].as_str() {
                return Ok(self.ask.failed(code, &data));
            }
            if let Some(ended) = self.take(&chunk) {
                return Ok(ended);
            }
        }
        Ok(Ended::Finding(
            Fault::Broken,
            format!("no end after {} chunks", self.chunks),
        ))
    }

    fn take(&mut self, chunk: &Value) -> Option<Ended> {
        if self.served.id.is_none() {
            self.served.id = chunk["id"].as_str().map(str::to_owned);
        }
        let choice = &chunk["choices"][0];
        for (key, value) in [
            ("finish_reason", &choice["finish_reason"]),
            ("usage", &chunk["usage"]),
            ("resumptions", &chunk["timings"]["resumptions"]),
        ] {
            if !value.is_null() {
                self.end[key] = value.clone();
            }
        }
        let text = choice["delta"]["content"].as_str();
        let text = text.or(choice["text"].as_str()).unwrap_or_default();
        if text.is_empty() {
            return None;
        }
        self.note_time();
        self.text.push_str(text);
        self.chunks += 1;
        if !self.ask.expected().starts_with(&self.text) {
            let what = difference(&self.text, self.ask.expected());
            return Some(Ended::Finding(Fault::Wrong, what));
        }
        match self.ask.leaving {
            Leaving::AfterChunks(chunks) if self.chunks >= chunks => Some(Ended::Disconnected),
            _ => {
                if !self.ask.pause.is_zero() {
                    // The client's own pace, not a wait for something.
                    thread::sleep(self.ask.pause);
                }
                None
            }
        }
    }

    fn note_time(&mut self) {
        let now = Moment::now();
        let Some((first, last)) = self.served.text_seen else {
            self.served.text_seen = Some((now, now));
            return;
        };
        if now.ms_since(last) >= NOTED_PAUSE_MS {
            self.served.pauses.push(Pause {
                from: last,
                to: now,
            });
        }
        self.served.text_seen = Some((first, now));
    }
}

pub fn broken(error: &io::Error) -> Ended {
    let fault = match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Fault::Hung,
        _ => Fault::Broken,
    };
    Ended::Finding(fault, error.to_string())
}

/// Where two texts part.
pub fn difference(got: &str, wanted: &str) -> String {
    let same = got
        .char_indices()
        .zip(wanted.chars())
        .find(|((_, left), right)| left != right)
        .map_or(got.len().min(wanted.len()), |((at, _), _)| at);
    let tail = |text: &str| text[same..].chars().take(40).collect::<String>();
    format!(
        "after {same} bytes {:?} instead of {:?}",
        tail(got),
        tail(wanted)
    )
}
