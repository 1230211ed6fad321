//! Responses that are kept, or made in the background: shown, listed item by item, and deleted. Another client's is as one
//! that never was.

use std::io;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::answer::ResponseResource;
use super::events::ResponseEvent;
use super::follow::{follow, gone, room_to_follow};
use crate::generation::GenerationError;
use crate::http::HttpState;
use crate::http::dialects::background_responses::BackgroundResponse;
use crate::http::dialects::ended;
use crate::http::dialects::kept_items::Item;
use crate::http::request::context::RequestContext;
use crate::http::request::error::{RequestError, quote};
use crate::http::response::error_body::ErrorBody;

/// Items of a page, and the most of them.
const USUAL: usize = 20;
const MOST: i64 = 100;

const STARTING_AFTER: &str = "starting_after";

/// What became of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeletedResponse {
    /// The response's.
    id: String,
    /// Always `response`.
    #[schema(example = "response")]
    object: &'static str,
    /// Always true.
    deleted: bool,
}

/// A page of the items that a response was made of.
#[derive(Serialize, ToSchema)]
pub(crate) struct ItemList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// The items, in the order that was asked for.
    #[schema(value_type = Vec<Object>)]
    data: Vec<Value>,
    /// Null of an empty page.
    #[schema(required)]
    first_id: Option<String>,
    /// Null of an empty page.
    #[schema(required)]
    last_id: Option<String>,
    /// Whether there are more behind it.
    has_more: bool,
}

/// Which items are listed.
#[derive(Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// How many at the most. Default 20.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<i64>,
    /// `desc`: from the newest on; `asc`: from the oldest on. Default `desc`.
    order: Option<String>,
    /// Only those behind the item of this id.
    after: Option<String>,
}

/// How a response is shown.
#[derive(Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Look {
    /// Whether its events are shown, of one in the background. Default false.
    stream: Option<bool>,
    /// Of its events only those behind the one of this number.
    #[param(value_type = Option<u32>, minimum = 0, maximum = 1_000_000_000)]
    starting_after: Option<i64>,
}

type Pairs = Vec<(String, String)>;
pub(super) type Named = Result<Path<String>, PathRejection>;

/// What is no UTF-8 is the id of no response.
pub(super) fn id_of(id: Named, uri: &Uri) -> Result<String, RequestError> {
    let id = id.map(|Path(id)| id);
    id.map_err(|_| unknown(written(uri.path())))
}

pub(super) fn unknown(id: &str) -> RequestError {
    RequestError::UnknownResponse {
        id: quote(id),
        param: None,
    }
}

pub(super) fn json(body: Bytes) -> Response {
    let headers = [(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )];
    (headers, body).into_response()
}

fn not_deleted(error: &io::Error) -> RequestError {
    let error = format!("the response could not be removed from disk: {error}");
    RequestError::Generation {
        error: GenerationError::Internal(error),
        prompt_param: "",
    }
}

/// The id as a path has it.
fn written(path: &str) -> &str {
    let behind = path.trim_start_matches("/v1/responses/");
    behind.split('/').next().unwrap_or_default()
}

/// Show a response
///
/// One that is kept, as its client got it; one that is made in the background, as it is now, or, with `stream`, its
/// events from the first or from behind `starting_after`, those to come as well.
#[utoipa::path(get, path = "/v1/responses/{id}", tag = "openai",
    params(("id" = String, Path, description = "As the response has it"), Look),
    responses(
        (status = 200, description = "The response", content(
            (ResponseResource = "application/json"),
            (ResponseEvent = "text/event-stream"))),
        (status = 400, description = "It has no such events, or has them no more", body = ErrorBody),
        (status = 404, description = "None of this id is made or kept of this key's", body = ErrorBody)))]
pub(crate) async fn retrieve(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    uri: Uri,
    id: Named,
    query: Result<Query<Pairs>, QueryRejection>,
) -> Result<Response, RequestError> {
    let shown = id_of(id, &uri).and_then(|id| {
        // Every query is pairs.
        let Query(pairs) = query.unwrap_or_default();
        let look = Look::read(pairs)?;
        let client = context.client.name();
        let in_background = state.background_responses.find(client, &id);
        let kept = state.kept_responses.find(client, &id);
        match (look.stream, in_background, kept) {
            (_, None, None) => Err(unknown(&id)),
            (Some(true), Some(response), _) => {
                let next = look.next(&response)?;
                let room = room_to_follow(&context.account())?;
                Ok(follow(&state, &context, room, (response, next)))
            }
            (Some(true), None, Some(_)) => Err(RequestError::out_of_range(
                "stream",
                "is for a response in the background, until some time after its end",
            )),
            (_, _, Some(kept)) => Ok(json(kept.json.clone())),
            (_, Some(response), None) => Ok(json(response.now())),
        }
    });
    ended(&context, shown)
}

/// Delete a response
///
/// One that is made in the background ends. Responses that have gone on from it stay whole.
#[utoipa::path(delete, path = "/v1/responses/{id}", tag = "openai",
    params(("id" = String, Path, description = "As the response has it")),
    responses(
        (status = 200, description = "It is gone", body = DeletedResponse),
        (status = 404, description = "None of this id is made or kept of this key's", body = ErrorBody),
        (status = 500, description = "It could not be removed from disk, and is kept", body = ErrorBody)))]
pub(crate) async fn delete(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    uri: Uri,
    id: Named,
) -> Result<Json<DeletedResponse>, RequestError> {
    let client = context.client.name();
    let (background, kept) = (&state.background_responses, &state.kept_responses);
    let deleted = async {
        let id = id_of(id, &uri)?;
        if background.find(client, &id).is_none() && kept.find(client, &id).is_none() {
            return Err(unknown(&id));
        }
        if let Some(ending) = background.delete(client, &id) {
            // It is kept with its end, if at all.
            ending.ended().await;
        }
        let gone = kept.delete(client, &id).await;
        gone.map_err(|error| not_deleted(&error)).map(|()| id)
    };
    let id = ended(&context, deleted.await)?;
    Ok(Json(DeletedResponse {
        id,
        object: "response",
        deleted: true,
    }))
}

/// List the items that a response was made of
///
/// All of its conversation, but for instructions.
#[utoipa::path(get, path = "/v1/responses/{id}/input_items", tag = "openai",
    params(("id" = String, Path, description = "As the response has it"), Page),
    responses(
        (status = 200, description = "A page of them", body = ItemList),
        (status = 400, description = "No such page", body = ErrorBody),
        (status = 404, description = "None of this id is kept of this key's", body = ErrorBody)))]
pub(crate) async fn input_items(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    uri: Uri,
    id: Named,
    query: Result<Query<Pairs>, QueryRejection>,
) -> Result<Json<ItemList>, RequestError> {
    let listed = id_of(id, &uri).and_then(|id| {
        // Every query is pairs.
        let Query(pairs) = query.unwrap_or_default();
        let page = Page::read(pairs)?;
        let client = context.client.name();
        // Before the kept ones: it is kept before it is in the background no more.
        let response = state.background_responses.find(client, &id);
        if let Some(kept) = state.kept_responses.find(client, &id) {
            return page.of(kept.items.get(..kept.asked).unwrap_or_default());
        }
        let items = response.and_then(|response| response.items());
        page.of(&items.ok_or_else(|| unknown(&id))?)
    });
    ended(&context, listed).map(Json)
}

impl Look {
    fn read(pairs: Pairs) -> Result<Self, RequestError> {
        let mut look = Self::default();
        for (name, value) in pairs {
            let is_twice = match name.as_str() {
                "stream" => {
                    let stream = value.parse::<bool>().map_err(|_| {
                        RequestError::out_of_range("stream", "must be `true` or `false`")
                    })?;
                    look.stream.replace(stream).is_some()
                }
                STARTING_AFTER => {
                    let number = value.parse::<i64>().ok().filter(|number| *number >= 0);
                    let number = number.ok_or_else(no_such_event)?;
                    look.starting_after.replace(number).is_some()
                }
                _ => false,
            };
            if is_twice {
                return Err(RequestError::out_of_range(name, "must not be there twice"));
            }
        }
        Ok(look)
    }

    /// The number of the first event that is shown.
    fn next(&self, response: &BackgroundResponse) -> Result<u64, RequestError> {
        let next = self
            .starting_after
            .map_or(0, |after| after.unsigned_abs() + 1);
        let (first, end) = response.numbers();
        if next < first {
            return Err(gone(first));
        }
        match next <= end {
            true => Ok(next),
            false => Err(no_such_event()),
        }
    }
}

fn no_such_event() -> RequestError {
    RequestError::out_of_range(
        STARTING_AFTER,
        "must be the number of an event that there has been",
    )
}

impl Page {
    fn read(pairs: Pairs) -> Result<Self, RequestError> {
        let mut page = Self::default();
        for (name, value) in pairs {
            let is_twice = match name.as_str() {
                "limit" => {
                    let limit = value.parse::<i64>().map_err(|_| no_such_limit())?;
                    page.limit.replace(limit).is_some()
                }
                "order" => page.order.replace(value).is_some(),
                "after" => page.after.replace(value).is_some(),
                _ => false,
            };
            if is_twice {
                return Err(RequestError::out_of_range(name, "must not be there twice"));
            }
        }
        Ok(page)
    }

    fn of(&self, items: &[Arc<Item>]) -> Result<ItemList, RequestError> {
        let limit = match self.limit {
            None => USUAL,
            Some(limit @ 1..=MOST) => usize::try_from(limit).unwrap_or(USUAL),
            Some(_) => return Err(no_such_limit()),
        };
        let mut items: Vec<&Arc<Item>> = items.iter().collect();
        match self.order.as_deref() {
            None | Some("desc") => items.reverse(),
            Some("asc") => {}
            Some(_) => {
                return Err(RequestError::out_of_range(
                    "order",
                    "must be `asc` or `desc`",
                ));
            }
        }
        if let Some(after) = &self.after {
            // Ids are the client's own, and several items may have one: pages have an end all the same.
            let place = items.iter().rposition(|item| item.id == *after);
            let place = place.ok_or_else(|| {
                RequestError::out_of_range("after", "must be the id of an item of this response")
            })?;
            items.drain(..=place);
        }
        let has_more = items.len() > limit;
        items.truncate(limit);
        let id = |item: Option<&&Arc<Item>>| item.map(|item| item.id.clone());
        Ok(ItemList {
            object: "list",
            first_id: id(items.first()),
            last_id: id(items.last()),
            data: items.iter().map(|item| item.listed()).collect(),
            has_more,
        })
    }
}

fn no_such_limit() -> RequestError {
    RequestError::out_of_range("limit", format!("must be from 1 to {MOST}"))
}
