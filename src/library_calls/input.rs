use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::LibraryError;
use super::header_enum::header_enum;

/// `RKLLMInput`. Exactly one of the four payloads is given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Input {
    /// `user` where absent; `tool` for the results of tool calls.
    pub role: Option<String>,
    /// Works only with the model's own chat template.
    pub enable_thinking: bool,
    /// May be left out; if given it must name the payload that is there.
    pub input_type: Option<InputType>,
    pub prompt_input: Option<String>,
    pub token_input: Option<TokenInput>,
    pub embed_input: Option<EmbedInput>,
    pub multimodal_input: Option<MultimodalInput>,
}

header_enum! {
    /// `RKLLMInputType`.
    InputType {
        Prompt = 0 "RKLLM_INPUT_PROMPT",
        Token = 1 "RKLLM_INPUT_TOKEN",
        Embed = 2 "RKLLM_INPUT_EMBED",
        Multimodal = 3 "RKLLM_INPUT_MULTIMODAL",
    }
}

/// Token ids; no chat template applies to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenInput {
    pub input_ids: Vec<i32>,
}

/// Embeddings, row after row; no chat template applies to them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbedInput {
    /// `n_tokens` rows of the model's embedding size.
    pub embed: Vec<f32>,
    pub n_tokens: usize,
}

/// A prompt with a tag (`<image>`, `<video>`) for each of the embeddings given beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MultimodalInput {
    pub prompt: String,
    pub image: Option<ImageInput>,
    /// 1.3.0 and later.
    pub video: Option<VideoInput>,
    /// 1.3.1 and later.
    pub audio: Option<AudioInput>,
}

/// Embeddings of images: `[n_image][n_image_tokens][width of a row]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImageInput {
    pub image_embed: Vec<f32>,
    pub n_image_tokens: usize,
    pub n_image: usize,
    /// The tags: 1.3.0 and later; before, they are parameters of init.
    pub image_start: Option<String>,
    pub image_end: Option<String>,
    pub image_content: Option<String>,
    /// Input size of the image encoder, in pixels.
    pub image_width: usize,
    pub image_height: usize,
}

/// Embeddings of videos: `[n_video][n_frame_per_video][n_frame_tokens][width of a row]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VideoInput {
    pub video_embed: Vec<f32>,
    pub n_frame_tokens: usize,
    pub n_frame_per_video: usize,
    pub n_video: usize,
    pub video_start: Option<String>,
    pub video_end: Option<String>,
    pub video_content: Option<String>,
    pub frame_width: usize,
    pub frame_height: usize,
}

/// Embeddings of sounds: `[n_audio][n_audio_tokens][width of a row]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AudioInput {
    pub audio_embed: Vec<f32>,
    pub n_audio_tokens: usize,
    pub n_audio: usize,
    pub audio_start: Option<String>,
    pub audio_end: Option<String>,
    pub audio_content: Option<String>,
}

/// The one payload of an input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InputPayload<'a> {
    Prompt(&'a str),
    Token(&'a TokenInput),
    Embed(&'a EmbedInput),
    Multimodal(&'a MultimodalInput),
}

impl Input {
    /// A prompt of the role `user`.
    pub fn prompt(text: impl Into<String>) -> Self {
        Self {
            prompt_input: Some(text.into()),
            ..Self::default()
        }
    }

    /// Token ids.
    pub fn tokens(input_ids: Vec<i32>) -> Self {
        Self {
            token_input: Some(TokenInput { input_ids }),
            ..Self::default()
        }
    }

    /// The payload, if there is exactly one and it is the one `input_type` names.
    pub fn payload(&self) -> Result<InputPayload<'_>, LibraryError> {
        let bad = |reason: &str| LibraryError::BadValue {
            what: "input".to_owned(),
            reason: reason.to_owned(),
        };
        let given = [
            self.prompt_input.as_deref().map(InputPayload::Prompt),
            self.token_input.as_ref().map(InputPayload::Token),
            self.embed_input.as_ref().map(InputPayload::Embed),
            self.multimodal_input.as_ref().map(InputPayload::Multimodal),
        ];
        let mut given = given.into_iter().flatten();
        let (Some(payload), None) = (given.next(), given.next()) else {
            return Err(bad(
                "it needs exactly one of prompt_input, token_input, embed_input and multimodal_input",
            ));
        };
        if self.input_type.is_some_and(|named| named != payload.kind()) {
            return Err(bad("input_type names another payload than the one given"));
        }
        Ok(payload)
    }

    /// Bytes of text, tokens at four bytes each: what the time for prefill is reckoned from.
    pub fn weight_bytes(&self) -> usize {
        /// A token counts as so many bytes, no more than the deadlines assume for one.
        const TOKEN_BYTES: usize = 4;
        let text = self.prompt_input.as_ref().map_or(0, String::len);
        let tokens = self.token_input.as_ref().map_or(0, |t| t.input_ids.len());
        let rows = self.embed_input.as_ref().map_or(0, |e| e.n_tokens);
        let (prompt, items) = self.multimodal_input.as_ref().map_or((0, 0), |m| {
            let image = m
                .image
                .as_ref()
                .map(|i| product(&[i.n_image, i.n_image_tokens]));
            let video = m
                .video
                .as_ref()
                .map(|v| product(&[v.n_video, v.n_frame_per_video, v.n_frame_tokens]));
            let audio = m
                .audio
                .as_ref()
                .map(|a| product(&[a.n_audio, a.n_audio_tokens]));
            let items = [image, video, audio].into_iter().flatten();
            (m.prompt.len(), items.fold(0, usize::saturating_add))
        });
        let tokens = tokens.saturating_add(rows).saturating_add(items);
        tokens
            .saturating_mul(TOKEN_BYTES)
            .saturating_add(text)
            .saturating_add(prompt)
    }
}

/// `Input::weight_bytes` of all inputs of a run.
pub fn weight_bytes(inputs: &[Input]) -> usize {
    let weights = inputs.iter().map(Input::weight_bytes);
    weights.fold(0, usize::saturating_add)
}

/// Of counts that a client gave: whether they are true was not looked at yet.
fn product(counts: &[usize]) -> usize {
    counts.iter().copied().fold(1, usize::saturating_mul)
}

impl InputPayload<'_> {
    pub fn kind(&self) -> InputType {
        match self {
            Self::Prompt(_) => InputType::Prompt,
            Self::Token(_) => InputType::Token,
            Self::Embed(_) => InputType::Embed,
            Self::Multimodal(_) => InputType::Multimodal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_cannot_be_true_are_weighed_too() {
        let embed = Input {
            embed_input: Some(EmbedInput {
                embed: vec![0.0],
                n_tokens: usize::MAX,
            }),
            ..Input::default()
        };
        assert_eq!(embed.weight_bytes(), usize::MAX);
        let image = ImageInput {
            n_image: usize::MAX,
            n_image_tokens: usize::MAX,
            ..ImageInput::default()
        };
        let seen = Input {
            multimodal_input: Some(MultimodalInput {
                prompt: "see".to_owned(),
                image: Some(image),
                ..MultimodalInput::default()
            }),
            ..Input::default()
        };
        assert_eq!(seen.weight_bytes(), usize::MAX);
        assert_eq!(Input::tokens(vec![1, 2]).weight_bytes(), 8);
    }
}
