//! `POST /v1/responses/compact`: a conversation in less room. What cannot be kept exactly is not kept: its newest turns stay
//! as they are, as far as the room reaches, and older ones go. They come as one item under the daemon's seal, which a client
//! sends back in their place.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::answer::ResponseUsage;
use super::create_parameters::CreateParameters;
use super::parameters::{Context, Read};
use super::reasoning::{COMPACTION, sealed};
use crate::aside::aside;
use crate::conversation::Role;
use crate::generation::Usage;
use crate::http::HttpState;
use crate::http::dialects::chat_dialect::unix_seconds;
use crate::http::dialects::ended;
use crate::http::dialects::kept_items::{Item, Said, conversed};
use crate::http::request::body::fields;
use crate::http::request::context::RequestContext;
use crate::http::request::error::RequestError;
use crate::http::request::id;
use crate::http::request::parsed::parsed;
use crate::http::request::together::Together;
use crate::http::response::error_body::AnswerRefusals;
use crate::http::response::notices::{add_notices, tell_dropped};

/// A conversation in less room.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CompactedResponse {
    /// With the digits of its request's id. There is no response of this id.
    id: String,
    /// Always `response.compaction`.
    #[schema(example = "response.compaction")]
    object: &'static str,
    /// Seconds since the epoch.
    created_at: u64,
    /// One item, to be sent in the place of those that it was made of.
    output: Vec<CompactionItem>,
    /// No model has worked for it, so all of its counts are 0.
    usage: ResponseUsage,
}

/// The newest turns of a conversation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CompactionItem {
    /// Its own.
    id: String,
    /// Always `compaction`.
    #[schema(example = "compaction")]
    r#type: &'static str,
    /// The turns under the daemon's seal: to be told from other texts, and not hidden.
    encrypted_content: String,
}

/// Make a conversation of items shorter
///
/// Takes the body of a response's request, of which only the conversation counts. The newest turns, and what the system
/// says before all of them, are kept as they are, up to `responses.compacted-limit-bytes`; the header
/// `x-rkllmd-dropped-messages` tells how many messages are not. No model is loaded.
#[utoipa::path(post, path = "/v1/responses/compact", tag = "openai",
    request_body(content = super::parameters::ContextParameters),
    responses(
        (status = 200, description = "The item that stands for the conversation", body = CompactedResponse),
        AnswerRefusals))]
pub(crate) async fn compact(
    State(state): State<Arc<HttpState>>,
    request: Request,
) -> Result<Response, RequestError> {
    let context = RequestContext::of(request.extensions());
    let compacted = async {
        let made = parsed(&state, &context, request, asked).await?;
        let limit_bytes = state.compacted_limit_bytes;
        let bytes: usize = made.items.iter().map(|item| item.bytes()).sum();
        // However small the body is, this may be a long conversation.
        let (sealed, dropped) = aside(bytes, || {
            let items = newest(&made.items, limit_bytes)?;
            let messages = |items: &[Arc<Item>]| conversed(items.iter()).messages.len();
            let dropped = messages(&made.items).saturating_sub(messages(&items));
            let listed: Vec<Value> = items.iter().map(|item| item.listed()).collect();
            let listed = Value::from(listed).to_string();
            let sealed = sealed(COMPACTION, &listed, &state.sealing);
            Ok::<_, RequestError>((sealed, dropped))
        })?;
        let mut response = Json(CompactedResponse {
            id: id::for_response(&context.id),
            object: "response.compaction",
            created_at: unix_seconds(),
            output: vec![CompactionItem {
                id: id::for_item("cmp"),
                r#type: "compaction",
                encrypted_content: sealed,
            }],
            usage: ResponseUsage::of(Usage {
                prompt_tokens: 0,
                completion_tokens: 0,
                cached_prompt_tokens: Some(0),
                reasoning_tokens: Some(0),
            }),
        })
        .into_response();
        add_notices(&mut response, &made.unread, &[]);
        tell_dropped(&mut response, dropped);
        Ok(response)
    };
    ended(&context, compacted.await)
}

fn asked(
    state: &HttpState,
    context: &RequestContext,
    body: &[u8],
) -> Result<Context, RequestError> {
    let Together(Together(shared, _), unread): Read<CreateParameters> = fields(body)?;
    let model = shared.model(state, context)?;
    shared.read(state, context, &model, &unread)
}

/// Who says it, in a message of their own.
fn role(item: &Item) -> Option<Role> {
    match &item.said {
        Said::Message { role, .. } => Some(*role),
        Said::Reasoning { .. } | Said::Call(_) | Said::Result { .. } => None,
    }
}

/// What the system says before all turns, and of these the newest that have room. A turn is kept whole or not at all: no
/// result without its call, and no answer without its question.
fn newest(items: &[Arc<Item>], limit_bytes: usize) -> Result<Vec<Arc<Item>>, RequestError> {
    let is_systems = |item: &&Arc<Item>| matches!(role(item), Some(Role::System | Role::Developer));
    let head = items.iter().take_while(is_systems).count();
    let (head, turns) = items.split_at(head);
    let bytes = |items: &[Arc<Item>]| items.iter().map(|item| item.bytes()).sum::<usize>();
    let mut left = limit_bytes.checked_sub(bytes(head));
    let mut from = turns.len();
    for (at, item) in turns.iter().enumerate().rev() {
        let begins = at == 0 || role(item).is_some_and(|role| role != Role::Assistant);
        if !begins {
            continue;
        }
        let room = left.and_then(|left| left.checked_sub(bytes(&turns[at..from])));
        if room.is_none() {
            break;
        }
        (left, from) = (room, at);
    }
    if left.is_none() || (from == turns.len() && !turns.is_empty()) {
        return Err(RequestError::out_of_range(
            "input",
            format!(
                "must have a last turn that takes, with what the system says before all, no more than \
                 {limit_bytes} bytes (`compacted-limit-bytes` in the [responses] settings)"
            ),
        ));
    }
    Ok(head.iter().chain(&turns[from..]).map(Arc::clone).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation::ToolCall;

    fn item(said: Said) -> Arc<Item> {
        let id = "x".to_owned();
        Arc::new(Item { id, said })
    }

    fn says(role: Role, text: &str) -> Arc<Item> {
        let parts = vec![text.to_owned()];
        item(Said::Message { role, parts })
    }

    fn calls() -> Arc<Item> {
        item(Said::Call(ToolCall {
            id: "c".to_owned(),
            name: "f".to_owned(),
            arguments: "{}".to_owned(),
        }))
    }

    fn result() -> Arc<Item> {
        let (call_id, parts) = ("c".to_owned(), vec!["r".to_owned()]);
        item(Said::Result { call_id, parts })
    }

    #[test]
    fn turns_are_kept_whole_and_the_oldest_go_first() {
        let items = [
            says(Role::System, "s"),
            says(Role::User, "one"),
            calls(),
            result(),
            says(Role::Assistant, "so"),
            says(Role::User, "two"),
            says(Role::Assistant, "yes"),
            says(Role::User, "three"),
        ];
        let bytes = |from: usize| {
            let kept = items.iter().take(1).chain(&items[from..]);
            kept.map(|item| item.bytes()).sum::<usize>()
        };
        let kept = |limit: usize| newest(&items, limit).map(|kept| kept.len());
        assert_eq!(kept(bytes(1)), Ok(8));
        // Whatever of a turn has no room takes the rest of it along.
        for limit in [bytes(1) - 1, bytes(2), bytes(3), bytes(4), bytes(5)] {
            let kept = newest(&items, limit).expect("room for some");
            assert_eq!(kept, [&items[..1], &items[5..]].concat(), "{limit}");
        }
        assert_eq!(kept(bytes(5) - 1), Ok(2));
        assert_eq!(kept(bytes(7)), Ok(2));
        for limit in [bytes(7) - 1, 1, 0] {
            assert!(kept(limit).is_err(), "{limit}");
        }
    }

    #[test]
    fn what_begins_in_the_middle_of_a_turn_is_kept_as_it_is() {
        let items = [result(), says(Role::Assistant, "so")];
        let all: usize = items.iter().map(|item| item.bytes()).sum();
        assert_eq!(newest(&items, all), Ok(items.to_vec()));
        assert!(newest(&items, all - 1).is_err());
        let only = [says(Role::System, "s")];
        assert_eq!(newest(&only, 1000), Ok(only.to_vec()));
    }
}
