//! What is told of a model in Ollama's words. What is not known is an empty text where clients need one,
//! and absent elsewhere.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::generate::gap_template;
use super::names::listed;
use super::parameters::thinks;
use crate::generation::SamplingRequest;
use crate::models::{InstalledModel, ModelKind, TemplateState, VariantValues};
use crate::supervisor::{ModelStatus, RuntimeFacts};

/// What kind of model it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Details {
    /// What a request has made it of; else empty.
    parent_model: String,
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
            parent_model: match (&model.variant, &model.adapted) {
                (Some(variant), _) => listed(&variant.from),
                (None, Some(_)) => listed(&model.id),
                (None, None) => String::new(),
            },
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

/// 64 digits that tell a model from any other, and change when its file does: the SHA-256 of where the file
/// lies, of its size and of its time. Its content is not read, which may be many gigabytes.
pub(super) fn digest(model: &InstalledModel) -> String {
    let mut hash = Sha256::new_with_prefix(model.path.as_os_str().as_bytes());
    // No path holds one, so nothing else gives the same bytes.
    hash.update([0]);
    hash.update(model.facts.size_bytes.to_le_bytes());
    hash.update(model.facts.created.to_le_bytes());
    if let Some(adapted) = &model.adapted {
        hash.update(adapted.facts.stamp());
    }
    if let Some(variant) = &model.variant {
        hash.update(serde_json::to_vec(&**variant).unwrap_or_default());
    }
    let mut digits = String::with_capacity(64);
    for byte in hash.finalize() {
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

/// How it would be made by a file of Ollama's.
pub(super) fn modelfile(model: &InstalledModel) -> String {
    let Some(variant) = &model.variant else {
        return format!("FROM {}\n", listed(model.name()));
    };
    let quoted = |text: &str| format!("\"\"\"{}\"\"\"", text.replace("\"\"\"", "\"\""));
    let mut file = format!("FROM {}\n", listed(&variant.from));
    if let Some(system) = &variant.system {
        file += &format!("SYSTEM {}\n", quoted(system));
    }
    if let Some(template) = &variant.template {
        file += &format!("TEMPLATE {}\n", quoted(template));
    }
    let own = variant.values.as_given(SamplingRequest::default());
    for (name, value) in given(own, Some(&variant.values), &variant.values.stop) {
        file += &format!("PARAMETER {name} {value}\n");
    }
    if let Some(most) = variant.values.max_new_tokens {
        // As many as the context leaves.
        let most = i32::try_from(most).unwrap_or(-1);
        file += &format!("PARAMETER num_predict {most}\n");
    }
    for license in &variant.license {
        file += &format!("LICENSE {}\n", quoted(license));
    }
    for message in &variant.messages {
        let (role, text) = (message.role.name(), quoted(&message.content));
        file += &format!("MESSAGE {role} {text}\n");
    }
    file
}

/// The template that a request has made the model with; else how what is before a gap and behind it becomes a prompt, in
/// the words of Ollama's templates, by which some clients know that a model fills gaps. The model's own template is of
/// another kind, and not shown.
pub(super) fn template(model: &InstalledModel) -> Option<String> {
    if let Some(template) = own_template(model) {
        return Some(template.to_owned());
    }
    let [before, between, behind] = model.facts.gap_markers.as_ref()?;
    Some(format!(
        "{before}{{{{ .Prompt }}}}{between}{{{{ .Suffix }}}}{behind}"
    ))
}

/// The one that a request has made it with.
fn own_template(model: &InstalledModel) -> Option<&str> {
    model.variant.as_ref()?.template.as_deref()
}

/// What the model can do.
pub(super) fn capabilities(model: &InstalledModel) -> Vec<&'static str> {
    let can_chat = matches!(model.template, TemplateState::Usable { .. });
    let capabilities = [
        ("completion", true),
        ("tools", can_chat && model.takes_functions()),
        (
            "insert",
            model.facts.gap_markers.is_some() || gap_template(model, None).is_some(),
        ),
        ("thinking", can_chat && thinks(model)),
    ];
    let known = capabilities.into_iter().filter(|(_, is_known)| *is_known);
    known.map(|(name, _)| name).collect()
}

/// `model_info`: keys of GGUF files, in whose names the model's kind stands for an architecture that is not
/// known.
pub(super) fn info(model: &InstalledModel, status: Option<&ModelStatus>) -> Map<String, Value> {
    let architecture = model.facts.architecture.as_deref();
    let architecture = architecture.unwrap_or_else(|| kind(model));
    let mut info = Map::new();
    info.insert("general.architecture".to_owned(), architecture.into());
    // Some clients show a model by it.
    let name: &str = model.name();
    info.insert("general.basename".to_owned(), name.into());
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
    let variant = model.variant.as_ref().map(|variant| &variant.values);
    let most = model
        .usual_budget()
        .map(|it| ("num_predict", it.to_string()));
    let context = ("num_ctx", context_length(model, status).to_string());
    let given = given(model.usual_sampling(), variant, model.usual_stops());
    let all = std::iter::once(context).chain(most).chain(given);
    let lines: Vec<String> = all
        .map(|(name, value)| format!("{name:<30} {value}"))
        .collect();
    lines.join("\n")
}

/// The values that are there, by their names among `options`.
fn given<'s>(
    sampling: SamplingRequest,
    values: Option<&VariantValues>,
    stops: impl IntoIterator<Item = &'s String>,
) -> Vec<(&'static str, String)> {
    // As short as they were written.
    let number = |value: Option<f32>| value.map(|value| value.to_string());
    let seed = values.and_then(|it| it.seed);
    let single = [
        ("temperature", number(sampling.temperature)),
        ("top_k", sampling.top_k.map(|it| it.to_string())),
        ("top_p", number(sampling.top_p)),
        ("repeat_penalty", number(sampling.repeat_penalty)),
        ("presence_penalty", number(sampling.presence_penalty)),
        ("frequency_penalty", number(sampling.frequency_penalty)),
        ("seed", seed.map(|it| it.to_string())),
        ("min_p", number(values.and_then(|it| it.min_p))),
    ];
    let single = single.into_iter();
    let single = single.filter_map(|(name, value)| Some((name, value?)));
    let stops = stops.into_iter();
    let stops = stops.map(|stop| ("stop", Value::from(stop.as_str()).to_string()));
    single.chain(stops).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelFacts;

    #[test]
    fn a_digest_is_of_one_file_as_it_is() {
        let model = |path: &str, size_bytes, created| {
            digest(&InstalledModel {
                path: path.into(),
                facts: ModelFacts {
                    size_bytes,
                    created,
                    ..ModelFacts::default()
                },
                ..InstalledModel::default()
            })
        };
        let one = model("/models/a.gguf", 5, 7);
        assert_eq!(one, model("/models/a.gguf", 5, 7));
        assert!(one.len() == 64 && one.bytes().all(|digit| digit.is_ascii_hexdigit()));
        for other in [
            model("/models/b.gguf", 5, 7),
            model("/models/a.gguf", 6, 7),
            model("/models/a.gguf", 5, 8),
        ] {
            assert_ne!(one, other);
        }
    }
}
