//! Embeddings as OpenAI answers them: numbers, or their bytes.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::dialects::embedding::{Checked, Encoding};

/// The embeddings, in the order of the inputs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<Embedding>,
    /// The model's id, also where the request named an alias.
    #[schema(value_type = String)]
    model: Arc<str>,
    usage: EmbeddingUsage,
}

/// The embedding of one input.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Embedding {
    /// Always `embedding`.
    #[schema(example = "embedding")]
    object: &'static str,
    /// Of the input, from 0.
    index: usize,
    embedding: Vector,
}

/// Numbers, or their bytes in base64.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

/// Tokens the model evaluated, as its runtime counts them; null where it did not tell.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbeddingUsage {
    /// Of all inputs together.
    #[schema(required)]
    prompt_tokens: Option<u32>,
    /// The same.
    #[schema(required)]
    total_tokens: Option<u32>,
}

pub(super) fn list(
    checked: &Checked,
    vectors: Vec<Vec<f32>>,
    prompt_tokens: Option<u32>,
) -> EmbeddingList {
    let data = vectors
        .into_iter()
        .enumerate()
        .map(|(index, vector)| Embedding {
            object: "embedding",
            index,
            embedding: match checked.encoding {
                Encoding::Float => Vector::Float(vector),
                Encoding::Base64 => Vector::Base64(base64_of(&vector)),
            },
        });
    EmbeddingList {
        object: "list",
        data: data.collect(),
        model: Arc::clone(checked.model.name()),
        usage: EmbeddingUsage {
            prompt_tokens,
            total_tokens: prompt_tokens,
        },
    }
}

/// Little-endian, 4 bytes a number, as OpenAI's clients read it.
fn base64_of(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    STANDARD.encode(bytes)
}
