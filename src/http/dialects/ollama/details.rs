//! What is told of a model in Ollama's words. What is not known is an empty text where clients need one,
//! and absent elsewhere.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::parameters::thinks;
use crate::models::{InstalledModel, ModelKind, TemplateState};
use crate::supervisor::{ModelStatus, RuntimeFacts};

/// What kind of model it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Details {
    /// Always empty: no model is made of another.
    parent_model: &'static str,
    /// The model file's kind: `rkllm` (NPU) or `gguf` (CPU).
    #[schema(example = "rkllm")]
    format: &'static str,
    /// Empty where the file does not tell.
    #[schema(example = "qwen3")]
    family: String,
    /// The same.
    families: Vec<String>,
    /// Always empty: no file tells it yet.
    parameter_size: &'static str,
    /// Such as `W8A8`; empty until the model was loaded, and where its runtime does not tell.
    quantization_level: String,
    /// Tokens of the context it is loaded with, else would be.
    #[schema(example = 4096)]
    context_length: u32,
    /// Numbers of an embedding, where the files tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding_length: Option<u32>,
}

/// What the model's runtime said when it was loaded.
fn facts(status: Option<&ModelStatus>) -> Option<&RuntimeFacts> {
    status.and_then(|status| status.facts.as_deref())
}

/// Tokens of the context it is loaded with, else would be.
pub(super) fn context_length(model: &InstalledModel, status: Option<&ModelStatus>) -> u32 {
    let loaded = facts(status).and_then(|facts| facts.context_length);
    loaded.unwrap_or_else(|| model.facts.context_tokens())
}

fn kind(model: &InstalledModel) -> &'static str {
    match model.facts.kind {
        ModelKind::Rkllm => "rkllm",
        ModelKind::Gguf => "gguf",
    }
}

impl Details {
    pub fn of(model: &InstalledModel, status: Option<&ModelStatus>) -> Self {
        let family = model.facts.architecture.clone();
        Self {
            parent_model: "",
            format: kind(model),
            families: family.iter().cloned().collect(),
            family: family.unwrap_or_default(),
            parameter_size: "",
            quantization_level: facts(status)
                .and_then(|facts| facts.model_dtype.clone())
                .unwrap_or_default(),
            context_length: context_length(model, status),
            embedding_length: model.facts.shape.embedding_columns,
        }
    }
}

/// What the model can do.
pub(super) fn capabilities(model: &InstalledModel) -> Vec<&'static str> {
    let can_chat = matches!(model.template, TemplateState::Usable { .. });
    let capabilities = [
        ("completion", true),
        ("tools", can_chat && calls(model)),
        ("thinking", can_chat && thinks(model)),
    ];
    let known = capabilities.into_iter().filter(|(_, is_known)| *is_known);
    known.map(|(name, _)| name).collect()
}

/// Whether it is known how the model writes calls.
pub(super) fn calls(model: &InstalledModel) -> bool {
    let format = model.reply.as_ref().map(|reply| &reply.found.format);
    format.is_some_and(|it| it.calls.is_some() || it.also_calls.is_some() || it.harmony)
}

/// `model_info`: keys of GGUF files, in whose names the model's kind stands for an architecture that is not
/// known.
pub(super) fn info(model: &InstalledModel, status: Option<&ModelStatus>) -> Map<String, Value> {
    let architecture = model.facts.architecture.as_deref();
    let architecture = architecture.unwrap_or_else(|| kind(model));
    let mut info = Map::new();
    info.insert("general.architecture".to_owned(), architecture.into());
    let lengths = [
        ("context_length", Some(context_length(model, status))),
        ("embedding_length", model.facts.shape.embedding_columns),
        ("vocab_size", model.facts.shape.vocabulary_tokens),
    ];
    for (name, length) in lengths {
        if let Some(length) = length {
            info.insert(format!("{architecture}.{name}"), length.into());
        }
    }
    info
}

/// Lines with the model's own defaults, each a name and a value.
pub(super) fn parameters(model: &InstalledModel, status: Option<&ModelStatus>) -> String {
    let sampling = &model.facts.sampling;
    let mut lines = Vec::new();
    let mut line = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("{name:<30} {value}")));
    };
    // As short as they were written.
    let number = |value: Option<f32>| value.map(|value| value.to_string());
    line("num_ctx", Some(context_length(model, status).to_string()));
    line(
        "num_predict",
        model.facts.max_new_tokens.map(|it| it.to_string()),
    );
    line("temperature", number(sampling.temperature));
    line("top_k", sampling.top_k.map(|it| it.to_string()));
    line("top_p", number(sampling.top_p));
    line("repeat_penalty", number(sampling.repeat_penalty));
    line("presence_penalty", number(sampling.presence_penalty));
    line("frequency_penalty", number(sampling.frequency_penalty));
    for stop in &model.facts.extra_stop {
        line("stop", Some(Value::from(stop.as_str()).to_string()));
    }
    lines.join("\n")
}
