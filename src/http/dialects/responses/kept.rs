//! Responses that are kept: shown, listed item by item, and deleted. Another client's is as one that never was.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::answer::ResponseResource;
use crate::http::HttpState;
use crate::http::dialects::ended;
use crate::http::dialects::kept_items::Item;
use crate::http::dialects::kept_responses::KeptResponse;
use crate::http::request::context::RequestContext;
use crate::http::request::error::{RequestError, quote};
use crate::http::response::error_body::ErrorBody;

/// Items of a page, and the most of them.
const USUAL: usize = 20;
const MOST: i64 = 100;

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

type Pairs = Vec<(String, String)>;
type Named = Result<Path<String>, PathRejection>;

/// The client's response that a path names.
fn found(
    state: &HttpState,
    context: &RequestContext,
    id: Named,
    uri: &Uri,
) -> Result<Arc<KeptResponse>, RequestError> {
    // What is no UTF-8 is the id of no response.
    let unknown = |id: &str| RequestError::UnknownResponse {
        id: quote(id),
        param: None,
    };
    let Path(id) = id.map_err(|_| unknown(written(uri.path())))?;
    let response = state.kept_responses.find(context.client.name(), &id);
    response.ok_or_else(|| unknown(&id))
}

/// The id as a path has it.
fn written(path: &str) -> &str {
    let behind = path.trim_start_matches("/v1/responses/");
    behind.split('/').next().unwrap_or_default()
}

/// Show a response that is kept
///
/// As its client got it.
#[utoipa::path(get, path = "/v1/responses/{id}", tag = "openai",
    params(("id" = String, Path, description = "As the response has it")),
    responses(
        (status = 200, description = "The response", body = ResponseResource),
        (status = 404, description = "None of this id is kept of this key's", body = ErrorBody)))]
pub(crate) async fn retrieve(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    uri: Uri,
    id: Named,
) -> Result<Response, RequestError> {
    let response = found(&state, &context, id, &uri);
    let response = ended(&context, response)?;
    let headers = [(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )];
    Ok((headers, response.json.clone()).into_response())
}

/// Delete a response that is kept
///
/// Responses that have gone on from it stay whole.
#[utoipa::path(delete, path = "/v1/responses/{id}", tag = "openai",
    params(("id" = String, Path, description = "As the response has it")),
    responses(
        (status = 200, description = "It is gone", body = DeletedResponse),
        (status = 404, description = "None of this id is kept of this key's", body = ErrorBody)))]
pub(crate) async fn delete(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    uri: Uri,
    id: Named,
) -> Result<Json<DeletedResponse>, RequestError> {
    let response = found(&state, &context, id, &uri);
    let response = ended(&context, response)?;
    let id = response.id.clone();
    state.kept_responses.forget(context.client.name(), &id);
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
    let listed = found(&state, &context, id, &uri).and_then(|response| {
        // Every query is pairs.
        let Query(pairs) = query.unwrap_or_default();
        Page::read(pairs)?.of(response.items.get(..response.asked).unwrap_or_default())
    });
    ended(&context, listed).map(Json)
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
