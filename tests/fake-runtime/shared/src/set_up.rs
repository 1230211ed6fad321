//! What calls between runs have told a model: adapters, prompt cache, tools, cross-attention. All of
//! it is part of the report, so that a test sees what really arrived.

use serde::Serialize;

#[derive(Default, Serialize, Clone)]
pub struct SetUp {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<Lora>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Tools>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_attn: Option<CrossAttn>,
    /// The text of the prompt that the loaded file was saved from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_cache: Option<String>,
}

#[derive(Serialize, Clone)]
pub struct Lora {
    pub name: String,
    /// The file's name without its folder.
    pub file: String,
    pub scale: f32,
}

#[derive(Serialize, Clone)]
pub struct Tools {
    pub system: String,
    pub tools: String,
    pub tool_response: String,
}

/// The first value of each array.
#[derive(Serialize, Clone)]
pub struct CrossAttn {
    pub num_tokens: i32,
    pub k: f32,
    pub v: f32,
    pub mask: f32,
    pub pos: i32,
}
