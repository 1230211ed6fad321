//! An HTTP server over a scripted engine, and a client that sees every byte.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rkllmd::admission::{Generation, QueueFigures};
use rkllmd::auth::CurrentKeys;
use rkllmd::generation::{
    Completion, FinishReason, GenerationError, GenerationRequest, RunStart, TextDelta, Timings,
    TokenEvent, Usage,
};
use rkllmd::http::{Engine, HttpState, Listener};
use rkllmd::models::{
    Catalog, ChatTemplate, ControlTokens, InstalledModel, SpecialTokens, TemplateFamily,
};
use rkllmd::settings::Settings;
use rkllmd::supervisor::{ModelStatus, Phase, StatusBoard, StatusSnapshot};
use rkllmd::telemetry::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};

/// Far longer than anything here takes; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

type Script = Box<dyn Fn(&GenerationRequest) -> Result<Generation, GenerationError> + Send + Sync>;

/// Answers each submitted request with a script, and hands the request to the test.
pub struct ScriptedEngine {
    script: Script,
    submitted: mpsc::UnboundedSender<GenerationRequest>,
    catalog: Arc<Catalog>,
    status: watch::Receiver<StatusSnapshot>,
    queue: Mutex<QueueFigures>,
    metrics: Metrics,
}

impl Engine for ScriptedEngine {
    fn submit(&self, request: GenerationRequest) -> Result<Generation, GenerationError> {
        let generation = (self.script)(&request);
        // The test may have ended already.
        let _ = self.submitted.send(request);
        generation
    }

    fn queue(&self, _model: &str) -> QueueFigures {
        *self.queue.lock().unwrap()
    }

    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog)
    }

    fn status(&self) -> StatusBoard {
        StatusBoard::new(self.status.clone())
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

/// A template that takes one message.
const PICKY: &str = "{% if messages | length > 1 %}{{ raise_exception('one message, please') }}{% endif %}\
    {% for message in messages %}{{ message.content }}{% endfor %}";

/// A server with one ready model, `test/model-1.0` (alias `tiny`), and two that were never loaded:
/// `raw` has no chat template, that of `picky` takes one message.
pub struct Server {
    pub address: SocketAddr,
    pub requests: mpsc::UnboundedReceiver<GenerationRequest>,
    pub status: watch::Sender<StatusSnapshot>,
    engine: Arc<ScriptedEngine>,
    shutdown: Option<oneshot::Sender<()>>,
    serving: tokio::task::JoinHandle<()>,
}

pub fn status_of(phase: Phase) -> ModelStatus {
    ModelStatus {
        phase,
        since: Instant::now(),
        pid: None,
        facts: None,
        memory: None,
        decode_tokens_per_second: None,
        blocked: None,
    }
}

pub fn snapshot(models: impl IntoIterator<Item = (&'static str, ModelStatus)>) -> StatusSnapshot {
    let models = models.into_iter();
    Arc::new(
        models
            .map(|(id, status)| (id.into(), status))
            .collect::<BTreeMap<_, _>>(),
    )
}

impl Server {
    /// Serves with a script that gets a request's sender of events.
    pub async fn start(
        settings: Settings,
        script: impl Fn(&GenerationRequest) -> Result<Generation, GenerationError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self::start_with_keys(settings, CurrentKeys::default(), script).await
    }

    pub async fn start_with_keys(
        settings: Settings,
        keys: CurrentKeys,
        script: impl Fn(&GenerationRequest) -> Result<Generation, GenerationError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let (submitted, requests) = mpsc::unbounded_channel();
        let (status, statuses) =
            watch::channel(snapshot([("test/model-1.0", status_of(Phase::Ready))]));
        let template = ChatTemplate::of_family(TemplateFamily::Chatml).expect("built in");
        let tokens: ControlTokens = ["<|im_start|>", "<|im_end|>"].into_iter().collect();
        let model = InstalledModel {
            id: "test/model-1.0".into(),
            aliases: vec!["tiny".to_owned()],
            created: 1_700_000_000,
            size_bytes: 4096,
            template: Some(Arc::new(template)),
            control_tokens: Arc::new(tokens),
            ..InstalledModel::default()
        };
        let raw = InstalledModel {
            id: "raw".into(),
            ..InstalledModel::default()
        };
        let picky = InstalledModel {
            id: "picky".into(),
            template: Some(Arc::new(
                ChatTemplate::compile(PICKY, SpecialTokens::default(), Arc::default())
                    .expect("a template"),
            )),
            ..InstalledModel::default()
        };
        let engine = Arc::new(ScriptedEngine {
            script: Box::new(script),
            submitted,
            catalog: Arc::new(Catalog::of_models([model, raw, picky])),
            status: statuses,
            queue: Mutex::new(QueueFigures {
                waiting: 0,
                capacity: 4,
            }),
            metrics: Metrics::new(),
        });
        let state = Arc::new(HttpState::new(engine.clone(), keys, &settings));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (shutdown, asked) = oneshot::channel::<()>();
        let listener = Listener::tcp(listener).expect("bound");
        let serving = tokio::spawn(rkllmd::http::serve(listener, state, async {
            let _ = asked.await;
        }));
        Self {
            address,
            requests,
            status,
            engine,
            shutdown: Some(shutdown),
            serving,
        }
    }

    /// Every request gets these events.
    pub async fn replaying(settings: Settings, events: fn() -> Vec<TokenEvent>) -> Self {
        Self::start(settings, move |_| Ok(replay(events()))).await
    }

    pub fn set_queue(&self, waiting: usize, capacity: usize) {
        *self.engine.queue.lock().unwrap() = QueueFigures { waiting, capacity };
    }

    pub async fn client(&self) -> Client {
        Client {
            stream: TcpStream::connect(self.address).await.expect("listening"),
            unread: Vec::new(),
        }
    }

    pub fn ask_to_shut_down(&mut self) {
        self.shutdown.take();
    }

    pub async fn shut_down(mut self) {
        self.shutdown.take();
        within("the end of serving", &mut self.serving)
            .await
            .expect("no panic");
    }

    /// One request on a connection of its own.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.client().await;
        client.send(request).await;
        client.answer().await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
            .await
    }

    pub async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.ask(post(path, body)).await
    }
}

pub fn post(path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

pub const CHAT: &str = "/v1/chat/completions";
pub const TEXT: &str = "/v1/completions";

/// A chat request with further fields, such as `,"stream":true`.
pub fn chat(fields: &str) -> Vec<u8> {
    let body =
        format!(r#"{{"model":"tiny","messages":[{{"role":"user","content":"hi"}}]{fields}}}"#);
    post(CHAT, body)
}

pub fn text_request(fields: &str) -> Vec<u8> {
    post(
        TEXT,
        format!(r#"{{"model":"raw","prompt":"once"{fields}}}"#),
    )
}

pub fn replay(events: Vec<TokenEvent>) -> Generation {
    let (sender, receiver) = mpsc::channel(events.len().max(1));
    for event in events {
        sender.try_send(event).expect("room for all");
    }
    Generation::new(receiver)
}

pub fn started(not_applied: &[&'static str]) -> TokenEvent {
    TokenEvent::Started(RunStart {
        not_applied: not_applied.to_vec(),
    })
}

pub fn text(text: &str) -> TokenEvent {
    TokenEvent::Text(TextDelta {
        text: text.to_owned(),
    })
}

pub fn finished() -> TokenEvent {
    TokenEvent::Finished(Box::new(Completion {
        reason: FinishReason::Stop,
        usage: Some(Usage {
            prompt_tokens: 9,
            completion_tokens: 2,
            cached_prompt_tokens: Some(4),
        }),
        timings: Timings {
            prompt_n: Some(5),
            prompt_ms: Some(10.0),
            predicted_n: Some(2),
            predicted_ms: Some(4.0),
            predicted_per_second: Some(250.0),
            runtime_memory_mb: Some(128.5),
            queue_ms: Some(0.5),
            queue_position: Some(3),
            resumptions: 1,
        },
    }))
}

/// The end of a generation of which nothing is known but its reason.
pub fn finished_unmeasured(reason: FinishReason) -> TokenEvent {
    TokenEvent::Finished(Box::new(Completion {
        reason,
        usage: None,
        timings: Timings::default(),
    }))
}

/// A client connection that keeps what it has not yet looked at.
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("sending", self.stream.write_all(bytes.as_ref()))
            .await
            .expect("an open connection");
    }

    /// One more read; false at the end of the stream.
    pub async fn read_some(&mut self) -> bool {
        let read = within("an answer", self.stream.read_buf(&mut self.unread)).await;
        // A reset is an end as well.
        read.unwrap_or(0) > 0
    }

    async fn read_until(&mut self, mark: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = find(&self.unread, mark) {
                let rest = self.unread.split_off(at + mark.len());
                return std::mem::replace(&mut self.unread, rest);
            }
            assert!(
                self.read_some().await,
                "the connection ended after {:?}",
                String::from_utf8_lossy(&self.unread)
            );
        }
    }

    async fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(self.read_some().await, "the connection ended in a body");
        }
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }

    /// Reads up to the end of the header.
    pub async fn head(&mut self) -> Answer {
        let head = self.read_until(b"\r\n\r\n").await;
        let head = String::from_utf8(head).expect("a header is text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().expect("a status line");
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(": ").expect("a header field");
                (name.to_ascii_lowercase(), value.to_owned())
            })
            .collect();
        Answer {
            status: status[9..12].parse().expect("a status"),
            headers,
            body: Vec::new(),
        }
    }

    /// The next piece of a chunked body; empty at its end.
    pub async fn chunk(&mut self) -> Vec<u8> {
        let size = self.read_until(b"\r\n").await;
        let size = std::str::from_utf8(&size).expect("a size").trim();
        let size = usize::from_str_radix(size, 16).expect("a hexadecimal size");
        let mut chunk = self.read_exactly(size + 2).await;
        chunk.truncate(size);
        chunk
    }

    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    /// A whole answer, its chunks put together.
    pub async fn answer_to(&mut self, method: &str) -> Answer {
        let mut answer = self.head().await;
        if method == "HEAD" || answer.status == 204 {
            return answer;
        }
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().expect("a length");
            answer.body = self.read_exactly(length).await;
        } else if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let chunk = self.chunk().await;
                if chunk.is_empty() {
                    break;
                }
                answer.body.extend_from_slice(&chunk);
            }
        }
        answer
    }

    /// Whether the server has closed without sending anything more.
    pub async fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && !self.read_some().await
    }

    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} is there twice");
        value
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// Checks that this is an error object with all four keys and returns (type, param, code).
    pub fn error(&self) -> (String, Option<String>, String) {
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert!(self.header("x-request-id").is_some_and(|id| !id.is_empty()));
        error_object(&self.json())
    }
}

pub fn error_object(body: &serde_json::Value) -> (String, Option<String>, String) {
    let body = body.as_object().expect("an object");
    let error = body["error"].as_object().expect("an error object");
    let mut keys: Vec<&str> = error.keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["code", "message", "param", "type"]);
    let message = error["message"].as_str().expect("a message");
    assert!(!message.is_empty());
    (
        error["type"].as_str().expect("a type").to_owned(),
        error["param"].as_str().map(str::to_owned),
        error["code"].as_str().expect("a code").to_owned(),
    )
}
