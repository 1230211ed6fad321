//! The list of models as clients of Anthropic's API read it, who ask for it at OpenAI's path.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::generation::ModelId;
use crate::models::InstalledModel;

/// All models in one page.
#[derive(Debug, Serialize)]
pub(super) struct List {
    data: Vec<Model>,
    has_more: bool,
    first_id: Option<ModelId>,
    last_id: Option<ModelId>,
}

/// One model.
#[derive(Debug, Serialize)]
pub(super) struct Model {
    r#type: &'static str,
    id: ModelId,
    display_name: ModelId,
    /// The model file's time.
    created_at: String,
    /// Always `active`.
    lifecycle: &'static str,
    /// Tokens of the context that it is loaded with.
    max_input_tokens: u32,
}

impl List {
    pub fn of<'a>(models: impl Iterator<Item = &'a Arc<InstalledModel>>) -> Self {
        let data: Vec<Model> = models.map(|model| Model::of(model)).collect();
        let id = |model: &Model| Arc::clone(&model.id);
        Self {
            has_more: false,
            first_id: data.first().map(id),
            last_id: data.last().map(id),
            data,
        }
    }
}

impl Model {
    pub fn of(model: &InstalledModel) -> Self {
        // What lies beyond all calendars is the epoch.
        let seconds = i64::try_from(model.facts.created).unwrap_or_default();
        let created = Timestamp::from_second(seconds).unwrap_or_default();
        Self {
            r#type: "model",
            id: Arc::clone(model.name()),
            display_name: Arc::clone(model.name()),
            created_at: created.to_string(),
            lifecycle: "active",
            max_input_tokens: model.facts.context_tokens(),
        }
    }
}
