//! `GET /models/sse`: what becomes of models, as it happens. It begins with how each of them is, so that
//! nothing is missed between a list and this.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use utoipa::ToSchema;

use crate::generation::ModelId;
use crate::http::HttpState;
use crate::http::dialects::permission::may_load;
use crate::http::request::access::Caller;
use crate::http::request::context::RequestContext;
use crate::http::response::model_view::LoadStatus;
use crate::http::response::sse;
use crate::http::transport::connection::Upgrades;
use crate::hub::{News, PullNews};
use crate::models::LATEST;
use crate::supervisor::StatusBoard;

/// An event of the stream.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelEvent {
    /// Id of the model.
    #[schema(value_type = String)]
    model: ModelId,
    /// `model_status`, or `model_remove` where it is installed no more; of what is pulled, by the name that it was asked by,
    /// `download_progress`, `download_finished` or `download_failed`.
    #[schema(example = "model_status")]
    event: &'static str,
    /// Null where it was removed, or has come.
    #[schema(required)]
    data: Option<ModelEventData>,
}

/// What an event tells.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ModelEventData {
    Status(ModelEventStatus),
    Failure(DownloadFailure),
    /// The file that comes, and how far it has come.
    Progress(BTreeMap<String, DownloadedBytes>),
}

/// How much of a file has come.
#[derive(Serialize, ToSchema)]
pub(crate) struct DownloadedBytes {
    /// Bytes that have come.
    done: u64,
    /// Its bytes.
    total: u64,
}

/// Why a model did not come.
#[derive(Serialize, ToSchema)]
pub(crate) struct DownloadFailure {
    /// In words.
    error: String,
}

/// How the model is now.
#[derive(Clone, Copy, PartialEq, Serialize, ToSchema)]
pub(crate) struct ModelEventStatus {
    /// `unloaded`, `loading` or `loaded`.
    #[schema(example = "loaded")]
    status: &'static str,
    /// There where it could not be loaded, or cannot be.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<bool>,
}

/// Who follows.
struct Follower {
    state: Arc<HttpState>,
    caller: Caller,
    board: StatusBoard,
    /// What was told.
    told: BTreeMap<ModelId, ModelEventStatus>,
    /// Of those who may install models.
    pulls: Option<broadcast::Receiver<PullNews>>,
    waiting: VecDeque<Bytes>,
    has_begun: bool,
    closing: watch::Receiver<bool>,
}

impl Follower {
    /// An event for each model that is not as it was told.
    fn observe(&mut self) {
        let statuses = self.board.snapshot();
        let catalog = self.state.engine.catalog();
        let mut gone = std::mem::take(&mut self.told);
        let models = catalog.models().iter();
        for model in models.filter(|model| self.caller.may_use(model)) {
            let LoadStatus { value, failed } = LoadStatus::of(statuses.get(&model.id));
            let status = ModelEventStatus {
                status: value,
                failed,
            };
            let before = gone.remove(&model.id);
            self.told.insert(Arc::clone(&model.id), status);
            if before != Some(status) {
                let data = ModelEventData::Status(status);
                tell(&mut self.waiting, &model.id, "model_status", Some(data));
            }
        }
        for model in gone.keys() {
            tell(&mut self.waiting, model, "model_remove", None);
        }
    }

    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some((Ok(event), self));
            }
            if self.has_begun {
                let keep_alive = self.state.http.keep_alive;
                let is_silent = tokio::select! {
                    changed = self.board.changed() => match changed {
                        true => false,
                        false => return None,
                    },
                    // The daemon ends; a client that comes back finds the next one.
                    news = next_news(&mut self.pulls) => {
                        if may_hear_of(&self.caller, &news) {
                            tell_pull(&mut self.waiting, news);
                        }
                        continue;
                    }
                    _ = self.closing.wait_for(|closing| *closing) => return None,
                    () = tokio::time::sleep(keep_alive) => true,
                };
                // What is installed changes without any worker.
                if is_silent {
                    self.waiting.push_back(Bytes::from_static(b": \n\n"));
                }
            }
            self.has_begun = true;
            self.observe();
        }
    }
}

fn tell(
    waiting: &mut VecDeque<Bytes>,
    model: &ModelId,
    event: &'static str,
    data: Option<ModelEventData>,
) {
    let event = ModelEvent {
        model: Arc::clone(model),
        event,
        data,
    };
    let text = serde_json::to_string(&event).ok();
    waiting.extend(text.map(|text| Bytes::from(format!("data: {text}\n\n"))));
}

/// The next one; never where there are none.
async fn next_news(pulls: &mut Option<broadcast::Receiver<PullNews>>) -> PullNews {
    loop {
        let Some(news) = pulls else {
            return std::future::pending().await;
        };
        match news.recv().await {
            Ok(news) => return news,
            // What was missed is how far something had come, or is seen in the list.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => *pulls = None,
        }
    }
}

/// A key of some models hears of what is pulled by their names.
fn may_hear_of(caller: &Caller, news: &PullNews) -> bool {
    let model = news.model.strip_suffix(LATEST).unwrap_or(&news.model);
    caller.key().is_none_or(|key| key.may_use([model]))
}

fn tell_pull(waiting: &mut VecDeque<Bytes>, PullNews { model, news }: PullNews) {
    let (event, data) = match news {
        News::Progress(file) => {
            let bytes = DownloadedBytes {
                done: file.completed,
                total: file.total,
            };
            let data = ModelEventData::Progress([(file.file, bytes)].into());
            ("download_progress", Some(data))
        }
        News::Finished => ("download_finished", None),
        News::Failed(error) => {
            let data = ModelEventData::Failure(DownloadFailure { error });
            ("download_failed", Some(data))
        }
    };
    tell(waiting, &model, event, data);
}

/// Follow what becomes of models
///
/// An event for each model that the key may use, and then one whenever one of them begins to load, is
/// loaded, unloaded or removed. Who may install models also hears of what is pulled that the key may use. It ends with the daemon.
#[utoipa::path(get, path = "/models/sse", tag = "llama-server",
    responses((status = 200, description = "`data:` lines, each a ModelEvent",
        content_type = "text/event-stream", body = ModelEvent)))]
pub(crate) async fn follow(
    State(state): State<Arc<HttpState>>,
    Extension(context): Extension<Arc<RequestContext>>,
    Extension(upgrades): Extension<Upgrades>,
    request: Request,
) -> Response {
    let may_install = may_load(&state, &context, &request).is_ok();
    let pulls = state.engine.pulls().filter(|_| may_install);
    let follower = Follower {
        board: state.engine.status(),
        state,
        caller: context.caller.clone(),
        told: BTreeMap::new(),
        pulls: pulls.map(|pulls| pulls.news()),
        waiting: VecDeque::new(),
        has_begun: false,
        closing: upgrades.closing(),
    };
    sse::response(Body::from_stream(stream::unfold(follower, Follower::next)))
}
