//! Responses in the background: one is made by a task of its own, read or not, and ends with its answer, by cancel, by
//! the `background` deadline, with its key, or with the daemon. The task reads the stream that a client would read, and tells
//! its events in [`BackgroundResponse`]. Its request goes on in a context without a connection, so that a client that leaves
//! takes nothing with it.

use std::pin::pin;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use super::answer::{Answered, ResponseResource};
use super::create::ResponseAnswer;
use super::event_writer::{IN_PROGRESS_EVENT, ResponseWriter};
use super::follow::{follow, room_to_follow};
use super::kept::{Named, id_of, json, unknown};
use super::output::{IN_PROGRESS, QUEUED};
use crate::generation::{Deadline, GenerationError};
use crate::http::HttpState;
use crate::http::dialects::background_responses::{BackgroundResponse, Beginning};
use crate::http::dialects::chat_dialect::{self, Asked, Identity};
use crate::http::dialects::{ended, failed};
use crate::http::request::access::{self, Rule};
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::id;
use crate::http::response::error_body::ErrorBody;
use crate::http::response::event_writer::EventWriter;
use crate::http::response::notices::add_notices;
use crate::memory::OverBudget;
use crate::reader::on_behalf_of;

/// What is told of one response.
struct Telling {
    response: Arc<BackgroundResponse>,
    answered: Arc<Answered>,
    identity: Identity,
}

/// Begins to make a response, and answers how it is: queued, or the stream of its events.
pub(super) fn begin(
    state: &Arc<HttpState>,
    context: &Arc<RequestContext>,
    rule: Rule,
    mut asked: Asked<ResponseAnswer>,
) -> Result<Response, RequestError> {
    let answered = Arc::clone(&asked.dialect.answered);
    let identity = Identity {
        id: context.id.clone(),
        created: answered.created,
        model: Arc::clone(asked.model.name()),
        fingerprint: None,
        choice: 0,
    };
    let now = resource(&answered.begun(&identity, QUEUED));
    let beginning = Beginning {
        id: id::for_response(&context.id),
        events: events_of(&ResponseWriter::queued(&identity, &answered)).collect(),
        now: now.clone(),
        items: answered.items.clone(),
    };
    let account = context.account();
    let room = room_to_follow(&account)?;
    let response = (state.background_responses).begin(&context.client, &account, beginning)?;
    asked.dialect.in_background = Some(Arc::clone(&response));
    // What is told in the end is told as it comes.
    let is_streamed = std::mem::replace(&mut asked.options.stream, true);
    // What only its prompt or its run tells comes too late for a header.
    let not_applied = asked.options.ignored.iter().map(|name| (*name).to_owned());
    let not_applied: Vec<String> = not_applied.chain(asked.options.unread.clone()).collect();
    let telling = Telling {
        response: Arc::clone(&response),
        answered,
        identity,
    };
    let made = make(
        Arc::clone(state),
        context.in_background(),
        rule,
        asked,
        telling,
    );
    tokio::spawn(on_behalf_of(context.client.clone(), made));
    let mut answer = match is_streamed {
        true => follow(state, context, room, (response, 0)),
        false => json(now),
    };
    add_notices(&mut answer, &not_applied, &[]);
    Ok(answer)
}

/// Makes a response to its end, and lets go of its events some time later.
async fn make(
    state: Arc<HttpState>,
    context: Arc<RequestContext>,
    rule: Rule,
    asked: Asked<ResponseAnswer>,
    telling: Telling,
) {
    let client = context.client.clone();
    let response = Arc::clone(&telling.response);
    {
        // Its memory is given back before the wait below.
        let mut answer = Box::pin(answer(&state, &context, asked, &telling));
        let cut = pin!(cut_short(&state, &context, rule, &response));
        tokio::select! {
            biased;
            () = &mut answer => {}
            why = cut => {
                context.abort.set(why);
                answer.await;
            }
        }
    }
    // The request is over, and what it has is given back; its events are charged by themselves.
    drop((context, telling));
    response.settle();
    if response.is_deleted() {
        state.kept_responses.forget(client.name(), &response.id);
        (state.background_responses).let_go(client.name(), &response.id);
        return;
    }
    let (id, mut told) = (response.id.clone(), response.follow());
    drop(response);
    tokio::select! {
        () = tokio::time::sleep(state.background_responses.events_kept_for()) => {}
        // It has made place for another, so that no more such tasks wait than responses are there.
        () = async { while told.changed().await.is_ok() {} } => {}
    }
    state.background_responses.let_go(client.name(), &id);
}

/// Waits for what ends a response before its answer does.
async fn cut_short(
    state: &HttpState,
    context: &RequestContext,
    rule: Rule,
    response: &BackgroundResponse,
) -> RequestError {
    let limit = state.background_deadline;
    tokio::select! {
        biased;
        why = response.end_wished() => why,
        () = access::shut_out(&state.keys, rule, &context.caller) => RequestError::InvalidKey,
        () = tokio::time::sleep(limit) => {
            let deadline = Deadline::Background;
            state.engine.metrics().deadline_passed(deadline);
            RequestError::Generation {
                error: GenerationError::DeadlineExceeded { deadline, limit },
                prompt_param: "",
            }
        }
    }
}

/// Answers the request, and tells every event of its stream.
async fn answer(
    state: &Arc<HttpState>,
    context: &Arc<RequestContext>,
    asked: Asked<ResponseAnswer>,
    telling: &Telling,
) {
    let answer = tokio::select! {
        biased;
        // Its stream, once there is one, looks itself.
        () = context.abort.wanted() => Err(context.abort.why()),
        answer = async {
            telling.response.turn_comes().await;
            chat_dialect::answer_asked(state, context, asked).await
        } => answer,
    };
    let mut body = match answer {
        Ok(answer) => answer.into_body(),
        Err(error) => {
            telling.fails(&failed(context, error));
            return;
        }
    };
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data()
            && let Err(over) = telling.tell(&data)
        {
            context.abort.set(over.into());
        }
    }
    if !telling.response.is_over() {
        let error = GenerationError::Internal("a response has no end".to_owned());
        let error = RequestError::Generation {
            error,
            prompt_param: "",
        };
        telling.fails(&failed(context, error));
    }
}

impl Telling {
    fn tell(&self, frame: &[u8]) -> Result<(), OverBudget> {
        // The end is written once it is kept, and stands in a frame with what comes before it, or alone.
        if let Some(at_end) = self.answered.at_end.get() {
            self.response.end(events_of(frame), Some(at_end.clone()));
            return Ok(());
        }
        let begins = |event: &Bytes| {
            let name = event.strip_prefix(b"event: ").unwrap_or_default();
            name.starts_with(IN_PROGRESS_EVENT.as_bytes())
        };
        let events: Vec<Bytes> = events_of(frame).collect();
        let now = (events.iter().any(begins))
            .then(|| resource(&self.answered.begun(&self.identity, IN_PROGRESS)));
        self.response.tell(events, now)
    }

    /// The end of a response whose stream has none, or that has not come to a stream.
    fn fails(&self, error: &RequestError) {
        let mut buffer = BytesMut::new();
        let mut writer = ResponseWriter::new(&self.identity, Arc::clone(&self.answered));
        // It may have told something all the same.
        writer.goes_on_from(self.response.numbers().1);
        writer.failed(error, &mut buffer);
        let at_end = self.answered.at_end.get().cloned();
        self.response.end(events_of(&buffer), at_end);
    }
}

impl Drop for Telling {
    /// Should its task fail, neither is its place taken for ever nor does a client wait for its end.
    fn drop(&mut self) {
        self.response.end([], None);
    }
}

/// The events of a frame, but for the mark of the end and what only keeps a connection open. An event is never in two
/// frames, and has no empty line in it.
pub(super) fn events_of(frame: &[u8]) -> impl Iterator<Item = Bytes> {
    let text = std::str::from_utf8(frame).unwrap_or_default();
    text.split_inclusive("\n\n")
        .filter(|event| event.starts_with("event: "))
        // A slice would hold all of the memory that the frame was written in.
        .map(|event| Bytes::copy_from_slice(event.as_bytes()))
}

fn resource(resource: &ResponseResource) -> Bytes {
    let json = serde_json::to_vec(resource);
    json.expect("these types have JSON forms").into()
}

/// Cancel a response in the background
///
/// It ends with what there is of its answer. Of one that has ended nothing changes.
#[utoipa::path(post, path = "/v1/responses/{id}/cancel", tag = "openai",
    params(("id" = String, Path, description = "As the response has it")),
    responses(
        (status = 200, description = "The response as it is now", body = ResponseResource),
        (status = 400, description = "It is not made in the background", body = ErrorBody),
        (status = 404, description = "None of this id is made or kept of this key's", body = ErrorBody)))]
pub(crate) async fn cancel(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    uri: Uri,
    id: Named,
) -> Result<Response, RequestError> {
    let cancelled = async {
        let id = id_of(id, &uri)?;
        let client = context.client.name();
        if let Some(response) = state.background_responses.find(client, &id) {
            response.wish_end(RequestError::Cancelled);
            response.ended().await;
            return Ok(json(response.now()));
        }
        let kept = state.kept_responses.find(client, &id);
        let kept = kept.ok_or_else(|| unknown(&id))?;
        match kept.is_background {
            true => Ok(json(kept.json.clone())),
            false => Err(RequestError::out_of_range(
                "id",
                "must be of a response in the background, which alone can be cancelled",
            )),
        }
    };
    ended(&context, cancelled.await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart_from_what_stands_between_them() {
        let frame =
            b"event: a\ndata: {\"delta\":\"\\n\\n\"}\n\nevent: b\ndata: {}\n\ndata: [DONE]\n\n";
        let events: Vec<Bytes> = events_of(frame).collect();
        assert_eq!(
            events,
            [
                &b"event: a\ndata: {\"delta\":\"\\n\\n\"}\n\n"[..],
                b"event: b\ndata: {}\n\n"
            ]
        );
        assert_eq!(events_of(b": keep-alive\n").count(), 0);
    }
}
