//! An HTTP server over a scripted engine, and a client that sees every byte.

#![allow(dead_code, reason = "each test program uses a part of this")]

mod chunks;
mod client;
mod kinds;
mod lines;
mod message_events;
mod response_events;
mod scripted_engine;
mod sweep;
pub mod web_socket;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rkllmd::admission::{EmbeddingError, EmbeddingRequest, Generation, QueueFigures};
use rkllmd::auth::CurrentKeys;
use rkllmd::conversation::ReplyPiece;
use rkllmd::generation::{
    Completion, FinishReason, GenerationError, GenerationRequest, ReplyEvent, RunStart, Timings,
    Usage,
};
use rkllmd::http::{HttpState, Listener};
use rkllmd::library_calls::PooledRows;
use rkllmd::models::{Catalog, InstalledModel, ModelFacts, SharedPrefixes, TemplateState};
use rkllmd::prompt::{ChatTemplate, SpecialTokens, TemplateFamily};
use rkllmd::reply::{FoundFormat, ModelReply, ReplyFamily};
use rkllmd::settings::Settings;
use rkllmd::supervisor::{ModelStatus, Phase, StatusSnapshot};
use rkllmd::telemetry::Metrics;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};

pub use chunks::chunks;
pub use client::{Answer, Client, error_object};
pub use lines::said;
pub use message_events::{heard, heard_in};
pub use response_events::{heard_response, heard_response_in, is_whole_resource};
pub use scripted_engine::{NEVER_ENCODED, NEVER_RENDERED, ScriptedEngine};
pub use sweep::{odd_values, places, with};

/// Far longer than anything here takes; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// A template that takes one message, and shows functions and a variable.
const PICKY: &str = "{% if messages[0].content | length > 1000 or messages | length > 1 %}{{ raise_exception('one message, please') }}{% endif %}\
    {% for message in messages %}{{ message.content }}{% endfor %}\
    {% if tools %}{{ tools | tojson }}{{ shown }}{% endif %}";

/// Shows all of a message, and says whether and how much to think.
const THINKER: &str = "{% for message in messages %}\
    {% if message.role != 'user' %}[{{ message.role }}]{% endif %}{{ message.content }}\
    {% if message.reasoning_content %}[thought {{ message.reasoning_content }}]{% endif %}\
    {% if message.tool_calls %}[calls {{ message.tool_calls | tojson }}]{% endif %}\
    {% if message.tool_call_id %}[result of {{ message.tool_call_id }}]{% endif %}{% endfor %}|\
    {% if enable_thinking is not defined %}unset{% elif enable_thinking %}on{% else %}off{% endif %} \
    {{ reasoning_effort | default('unset') }}";

/// A server with one ready model, `test/model-1.0` (alias `tiny`), and three that were never loaded:
/// `raw` has no chat template, that of `picky` takes one message, a short one, and `thinker` replies as
/// Hermes models do.
pub struct Server {
    pub address: SocketAddr,
    pub requests: mpsc::UnboundedReceiver<GenerationRequest>,
    pub embedded: mpsc::UnboundedReceiver<EmbeddingRequest>,
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
        plan: None,
        slots: None,
        decode_tokens_per_second: None,
        kept: Default::default(),
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
        let (embedded_sender, embedded) = mpsc::unbounded_channel();
        let (status, statuses) =
            watch::channel(snapshot([("test/model-1.0", status_of(Phase::Ready))]));
        let template = ChatTemplate::of_family(TemplateFamily::Chatml).expect("built in");
        let usable = || TemplateState::Usable {
            failed_probe: None,
            shared: SharedPrefixes::default(),
        };
        let model = InstalledModel {
            id: "test/model-1.0".into(),
            facts: ModelFacts {
                aliases: vec!["tiny".to_owned()],
                created: 1_700_000_000,
                size_bytes: 4096,
                ..ModelFacts::default()
            },
            template: usable(),
            ..InstalledModel::default()
        };
        let raw = InstalledModel {
            id: "raw".into(),
            ..InstalledModel::default()
        };
        let hermes = || {
            Some(Arc::new(ModelReply::new(FoundFormat {
                format: ReplyFamily::Hermes.format(),
                ..FoundFormat::default()
            })))
        };
        let picky = InstalledModel {
            id: "picky".into(),
            template: usable(),
            reply: hermes(),
            ..InstalledModel::default()
        };
        let thinker = InstalledModel {
            id: "thinker".into(),
            template: usable(),
            reply: hermes(),
            ..InstalledModel::default()
        };
        let compiled = |source| {
            let template = ChatTemplate::compile(source, SpecialTokens::default(), Arc::default());
            template.expect("a template")
        };
        let templates = HashMap::from([
            ("test/model-1.0", template),
            ("picky", compiled(PICKY)),
            ("thinker", compiled(THINKER)),
        ]);
        let engine = Arc::new(ScriptedEngine {
            script: Box::new(script),
            submitted,
            templates,
            catalog: Mutex::new(Arc::new(Catalog::of_models([model, raw, picky, thinker]))),
            status: statuses,
            queue: Mutex::new(QueueFigures {
                waiting: 0,
                capacity: 4,
            }),
            metrics: Metrics::new(),
            grammars: Mutex::default(),
            rows: Mutex::new(Box::new(|_| Ok(PooledRows::default()))),
            embedded: embedded_sender,
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
            embedded,
            status,
            engine,
            shutdown: Some(shutdown),
            serving,
        }
    }

    /// Every request gets these events.
    pub async fn replaying(settings: Settings, events: fn() -> Vec<ReplyEvent>) -> Self {
        Self::start(settings, move |_| Ok(replay(events()))).await
    }

    /// What requests for hidden states are answered with.
    pub fn set_rows(
        &self,
        rows: impl Fn(&EmbeddingRequest) -> Result<PooledRows, EmbeddingError> + Send + Sync + 'static,
    ) {
        *self.engine.rows.lock().unwrap() = Box::new(rows);
    }

    /// Where its changes are told.
    pub fn metrics(&self) -> &Metrics {
        &self.engine.metrics
    }

    /// From now on `tiny` alone is installed, as this has it.
    pub fn set_tiny(&self, change: impl FnOnce(&mut InstalledModel)) {
        let mut catalog = self.engine.catalog.lock().unwrap();
        let tiny = catalog
            .models()
            .iter()
            .find(|it| &*it.id == "test/model-1.0");
        let mut tiny = InstalledModel::clone(tiny.expect("it is installed"));
        change(&mut tiny);
        *catalog = Arc::new(Catalog::of_models([tiny]));
    }

    pub fn set_queue(&self, waiting: usize, capacity: usize) {
        *self.engine.queue.lock().unwrap() = QueueFigures { waiting, capacity };
    }

    pub async fn client(&self) -> Client {
        Client::new(TcpStream::connect(self.address).await.expect("listening"))
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

pub fn replay(events: Vec<ReplyEvent>) -> Generation {
    let (sender, receiver) = mpsc::channel(events.len().max(1));
    for event in events {
        sender.try_send(event).expect("room for all");
    }
    Generation::new(receiver)
}

/// A server whose generations last until they are dropped; their senders come out of the channel.
pub async fn endless(
    settings: Settings,
) -> (Server, mpsc::UnboundedReceiver<mpsc::Sender<ReplyEvent>>) {
    let (senders, generations) = mpsc::unbounded_channel();
    let server = Server::start(settings, move |_| {
        let (sender, receiver) = mpsc::channel(8);
        let _ = senders.send(sender);
        Ok(Generation::new(receiver))
    })
    .await;
    (server, generations)
}

pub fn started(not_applied: &[&'static str]) -> ReplyEvent {
    ReplyEvent::Started(RunStart {
        not_applied: not_applied.to_vec(),
        ..RunStart::default()
    })
}

pub fn text(text: &str) -> ReplyEvent {
    ReplyEvent::Piece(ReplyPiece::Text(text.to_owned()))
}

pub fn piece(piece: ReplyPiece) -> ReplyEvent {
    ReplyEvent::Piece(piece)
}

/// A call that goes on: its end is another piece.
pub fn call(index: u32, id: Option<&str>, name: &str, deltas: &[&str]) -> Vec<ReplyPiece> {
    let mut pieces = vec![ReplyPiece::ToolCall {
        index,
        id: id.map(str::to_owned),
        name: name.to_owned(),
    }];
    pieces.extend(deltas.iter().map(|delta| ReplyPiece::ToolArguments {
        index,
        delta: (*delta).to_owned(),
    }));
    pieces
}

pub fn finished() -> ReplyEvent {
    ReplyEvent::Finished(Box::new(Completion {
        reason: FinishReason::Stop,
        stop_text: None,
        usage: Some(Usage {
            prompt_tokens: 9,
            completion_tokens: 2,
            cached_prompt_tokens: Some(4),
            reasoning_tokens: None,
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
pub fn finished_unmeasured(reason: FinishReason) -> ReplyEvent {
    ReplyEvent::Finished(Box::new(Completion {
        reason,
        stop_text: None,
        usage: None,
        timings: Timings::default(),
    }))
}
