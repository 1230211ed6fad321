//! The responses of one socket, one after the other. Each is a request of its own: it is listed, counted, charged and
//! aborted as one that came over HTTP.

use std::pin::pin;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::events::Sent;
use super::message::{self, STREAM};
use crate::http::HttpState;
use crate::http::dialects::chat_dialect;
use crate::http::dialects::failed;
use crate::http::dialects::responses::background::events_of;
use crate::http::dialects::responses::error::body;
use crate::http::dialects::responses::last_response::{LastResponse, Stream};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::id::X_REQUEST_ID;
use crate::http::request::parsed::parsed_text;
use crate::http::response::error_body::add_headers;
use crate::http::status::PublicError;
use crate::http::transport::messages::ChargedText;
use crate::memory::Charge;
use crate::reader::on_behalf_of;

/// A message, and the stream that it names.
pub(super) type OfStream = (Stream, ChargedText);

/// What the headers of an answer that are notices begin with.
const NOTICES: &str = "x-rkllmd-";

pub(super) struct Turns {
    state: Arc<HttpState>,
    /// Of the handshake.
    opened: Arc<RequestContext>,
    /// That of the messages that name no stream.
    last: LastResponse,
    events: mpsc::Sender<Sent>,
}

impl Turns {
    pub fn new(
        state: &Arc<HttpState>,
        opened: &Arc<RequestContext>,
        events: mpsc::Sender<Sent>,
    ) -> Self {
        Self {
            state: Arc::clone(state),
            opened: Arc::clone(opened),
            last: LastResponse::new(opened.account()),
            events,
        }
    }

    pub fn state(&self) -> &HttpState {
        &self.state
    }

    /// Makes the response that a message asks for. Dropping the future cancels it.
    pub async fn take(&self, (stream, message): OfStream) {
        let context = self.began(message.charge);
        let made = self.make(&context, message.text, stream);
        on_behalf_of(context.client.clone(), made).await;
    }

    /// Refuses a message that is not read.
    pub async fn refuse(&self, (stream, message): OfStream, error: RequestError) {
        let ChargedText { text, charge } = message;
        drop(text);
        let context = self.began(charge);
        context.keep(0);
        self.fail(&context, error, &stream).await;
    }

    /// Tells an error that is no message's.
    pub async fn tell(&self, error: &RequestError) {
        let json = refusal(error, HeaderMap::new(), &None);
        self.send(json, None).await;
    }

    fn began(&self, charge: Charge) -> Arc<RequestContext> {
        let context = self.opened.another(charge);
        context.is_generation(self.state.engine.metrics());
        context
    }

    async fn make(&self, context: &Arc<RequestContext>, text: Bytes, stream: Stream) {
        let last = Arc::new(self.last.of(stream.clone()));
        let answer = async {
            let parse = move |state: &HttpState, context: &RequestContext, text: &[u8]| {
                message::asked(state, context, text, &last)
            };
            let asked = parsed_text(&self.state, context, text, parse).await?;
            chat_dialect::answer_asked(&self.state, context, asked).await
        };
        let answer = tokio::select! {
            biased;
            // Its stream, once there is one, looks itself.
            () = context.abort.wanted() => Err(context.abort.why()),
            answer = answer => answer,
        };
        let (head, mut body) = match answer {
            Ok(answer) => answer.into_parts(),
            Err(error) => return self.fail(context, error, &stream).await,
        };
        context.answered(head.status);
        let mut notices = notices(&head.headers);
        let stream = stream.map(|name| key(STREAM, &Value::from(&*name)));
        // Read before what it follows is written.
        let mut next = None;
        loop {
            let frame = match next.take() {
                Some(frame) => frame,
                None => body.frame().await,
            };
            let Some(Ok(frame)) = frame else {
                return;
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            for event in events_of(&data) {
                let notices = notices.take().map(|notices| key("headers", &notices));
                let keys = notices.iter().chain(&stream);
                let json = with_keys(json_of(&event), keys);
                let mut sent = pin!(self.send(json, Some(Arc::clone(context))));
                tokio::select! {
                    biased;
                    () = &mut sent => {}
                    () = context.abort.wanted(), if next.is_none() => {
                        // Its stream looks, and gives its run up, however long its client takes to read of it.
                        next = Some(body.frame().await);
                        sent.await;
                    }
                }
            }
        }
    }

    async fn fail(&self, context: &Arc<RequestContext>, error: RequestError, stream: &Stream) {
        let error = failed(context, error);
        context.answered(PublicError::of(&error).status);
        let mut headers = HeaderMap::new();
        if let Ok(id) = HeaderValue::from_str(&context.id.0) {
            headers.insert(X_REQUEST_ID, id);
        }
        let json = refusal(&error, headers, stream);
        self.send(json, Some(Arc::clone(context))).await;
    }

    async fn send(&self, json: Bytes, context: Option<Arc<RequestContext>>) {
        // Without a writer the connection is at its end.
        let _ = self
            .events
            .send(Sent {
                json,
                _context: context,
            })
            .await;
    }
}

/// The event of what is refused: flat as OpenAI's streams have it, and as its sockets have it.
fn refusal(error: &RequestError, mut headers: HeaderMap, stream: &Stream) -> Bytes {
    let public = PublicError::of(error);
    add_headers(&mut headers, &public);
    let body = body(error);
    let mut event = json!({
        "type": "error",
        "status": public.status.as_u16(),
        "code": body.error.code,
        "message": body.error.message,
        "param": body.error.param,
        "error": body.error,
        "headers": object_of(&headers, ""),
    });
    if let Some(name) = stream {
        event[STREAM] = Value::from(&**name);
    }
    event.to_string().into()
}

/// What an answer's header tells beside its events.
fn notices(headers: &HeaderMap) -> Option<Value> {
    let notices = object_of(headers, NOTICES);
    (!notices.is_empty()).then(|| notices.into())
}

fn object_of(headers: &HeaderMap, prefix: &str) -> Map<String, Value> {
    let of_prefix = headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with(prefix));
    of_prefix
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.into())))
        .collect()
}

/// The JSON of a stream's event.
fn json_of(event: &Bytes) -> Bytes {
    const DATA: &str = "\ndata: ";
    let text = std::str::from_utf8(event).unwrap_or_default();
    let data = text.split_once(DATA).map_or("", |(_, data)| data);
    event.slice_ref(data.trim_end().as_bytes())
}

fn key(name: &str, value: &Value) -> String {
    format!("\"{name}\":{value},")
}

/// An event with more keys, its first ones.
fn with_keys<'k>(event: Bytes, keys: impl Iterator<Item = &'k String>) -> Bytes {
    let mut keys = keys.peekable();
    if keys.peek().is_none() {
        return event;
    }
    let rest = event.strip_prefix(b"{").unwrap_or_default();
    let mut whole = vec![b'{'];
    keys.for_each(|key| whole.extend_from_slice(key.as_bytes()));
    whole.extend_from_slice(rest);
    whole.into()
}
