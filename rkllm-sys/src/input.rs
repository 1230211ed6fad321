//! Inputs of a run in memory of our own, laid out for each family. An input holds only pointers
//! into its owner, which therefore outlives the call; an array of inputs has the stride of the
//! library's own family, never that of a newer one.

use crate::abi::{v1_2_1, v1_3_0, v1_3_1};
use crate::error::CallError;
use std::ffi::{CString, c_char};
use std::ptr;

mod given;

pub use given::{Images, Multimodal, RunInput, RunItem, Sounds, Tags, Videos};

pub(crate) struct OwnedInput {
    role: CString,
    enable_thinking: bool,
    payload: Payload,
}

enum Payload {
    Prompt(CString),
    Tokens(Vec<i32>),
    Embeddings {
        values: Vec<f32>,
        n_tokens: usize,
    },
    Multimodal(Box<OwnedMultimodal>),
    /// As no tokens.
    Nothing,
}

struct OwnedMultimodal {
    prompt: CString,
    image: Option<OwnedImages>,
    video: Option<OwnedVideos>,
    audio: Option<OwnedSounds>,
}

/// `None` is NULL.
struct OwnedTags([Option<CString>; 3]);

struct OwnedImages {
    embed: Vec<f32>,
    counts: [usize; 2],
    tags: OwnedTags,
    size: [usize; 2],
}

struct OwnedVideos {
    embed: Vec<f32>,
    counts: [usize; 3],
    tags: OwnedTags,
    size: [usize; 2],
}

struct OwnedSounds {
    embed: Vec<f32>,
    counts: [usize; 2],
    tags: OwnedTags,
}

fn c_string(what: &'static str, text: &str) -> Result<CString, CallError> {
    CString::new(text).map_err(|error| CallError::InteriorNul {
        what,
        position: error.nul_position(),
    })
}

/// Larger than a row of any model a board can hold, and more rows than its context has. The library
/// reads as many numbers for a token as its model wants, whatever it was given: where that is more,
/// it finds zeros behind them and not what else lies in memory.
const WIDEST_ROW: usize = 16 * 1024;
const MOST_ROWS: usize = 16 * 1024;

/// A copy with room for the widest rows. Rows must be whole: of `tokens` rows each has the same number
/// of values, at least one.
fn rows(what: &'static str, values: &[f32], counts: &[usize]) -> Result<Vec<f32>, CallError> {
    let tokens = counts
        .iter()
        .try_fold(1_usize, |product, count| product.checked_mul(*count));
    match tokens {
        Some(tokens @ 1..) if !values.is_empty() && values.len().is_multiple_of(tokens) => {
            let readable = tokens.min(MOST_ROWS) * WIDEST_ROW;
            // From the system zeroed; pages that are not touched take no memory.
            let mut rows = vec![0.0; values.len().max(readable)];
            rows[..values.len()].copy_from_slice(values);
            Ok(rows)
        }
        _ => Err(CallError::OutOfRange {
            what,
            value: format!("{} values for {counts:?} tokens", values.len()),
            allowed: "each token needs a row, and all rows the same number of values",
        }),
    }
}

impl OwnedTags {
    fn copy_of(tags: &Tags<'_>) -> Result<Self, CallError> {
        let copy = |text: Option<&str>| text.map(|text| c_string("a tag", text)).transpose();
        Ok(OwnedTags([
            copy(tags.start)?,
            copy(tags.end)?,
            copy(tags.content)?,
        ]))
    }

    fn ptr(&self, index: usize) -> *const c_char {
        self.0[index].as_ref().map_or(ptr::null(), |t| t.as_ptr())
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

impl OwnedMultimodal {
    fn copy_of(input: &Multimodal<'_>) -> Result<Self, CallError> {
        let image = input.image.map(|part| {
            let counts = [part.n_image, part.n_image_tokens];
            Ok(OwnedImages {
                embed: rows("the image embeddings", part.embed, &counts)?,
                counts,
                tags: OwnedTags::copy_of(&part.tags)?,
                size: [part.width, part.height],
            })
        });
        let video = input.video.map(|part| {
            let counts = [part.n_video, part.n_frame_per_video, part.n_frame_tokens];
            Ok(OwnedVideos {
                embed: rows("the video embeddings", part.embed, &counts)?,
                counts,
                tags: OwnedTags::copy_of(&part.tags)?,
                size: [part.width, part.height],
            })
        });
        let audio = input.audio.map(|part| {
            let counts = [part.n_audio, part.n_audio_tokens];
            Ok(OwnedSounds {
                embed: rows("the audio embeddings", part.embed, &counts)?,
                counts,
                tags: OwnedTags::copy_of(&part.tags)?,
            })
        });
        Ok(OwnedMultimodal {
            prompt: c_string("the prompt", input.prompt)?,
            image: image.transpose()?,
            video: video.transpose()?,
            audio: audio.transpose()?,
        })
    }
}

impl OwnedInput {
    pub(crate) fn copy_of(item: &RunItem<'_>) -> Result<Self, CallError> {
        let payload = match item.input {
            RunInput::Prompt(prompt) => Payload::Prompt(c_string("the prompt", prompt)?),
            RunInput::Tokens([]) => {
                return Err(CallError::OutOfRange {
                    what: "the number of input tokens",
                    value: "0".to_owned(),
                    allowed: "a run needs at least one",
                });
            }
            RunInput::Tokens(tokens) => Payload::Tokens(tokens.to_vec()),
            RunInput::Embeddings { values, n_tokens } => Payload::Embeddings {
                values: rows("the embeddings", values, &[n_tokens])?,
                n_tokens,
            },
            RunInput::Multimodal(input) => {
                Payload::Multimodal(Box::new(OwnedMultimodal::copy_of(&input)?))
            }
            RunInput::Nothing => Payload::Nothing,
        };
        Ok(OwnedInput {
            role: c_string("the role", item.role)?,
            enable_thinking: item.enable_thinking,
            payload,
        })
    }

    pub(crate) fn v1_2_1(&mut self, version: &str) -> Result<v1_2_1::RKLLMInput, CallError> {
        let absent = |what| CallError::NotInLibrary {
            what,
            version: version.to_owned(),
        };
        // SAFETY: the struct holds integers, raw pointers and a union of such: zero is valid.
        let mut raw: v1_2_1::RKLLMInput = unsafe { std::mem::zeroed() };
        raw.role = self.role.as_ptr();
        raw.enable_thinking = u8::from(self.enable_thinking);
        match &mut self.payload {
            Payload::Prompt(prompt) => {
                raw.input_type = v1_2_1::RKLLM_INPUT_PROMPT;
                raw.payload.prompt_input = prompt.as_ptr();
            }
            Payload::Tokens(tokens) => {
                raw.input_type = v1_2_1::RKLLM_INPUT_TOKEN;
                raw.payload.token_input = token_input(tokens);
            }
            Payload::Nothing => {
                raw.input_type = v1_2_1::RKLLM_INPUT_TOKEN;
                raw.payload.token_input = NO_TOKENS;
            }
            Payload::Embeddings { values, n_tokens } => {
                raw.input_type = v1_2_1::RKLLM_INPUT_EMBED;
                raw.payload.embed_input = embed_input(values, *n_tokens);
            }
            Payload::Multimodal(input) => {
                if input.video.is_some() {
                    return Err(absent("video input"));
                }
                if input.audio.is_some() {
                    return Err(absent("audio input"));
                }
                raw.input_type = v1_2_1::RKLLM_INPUT_MULTIMODAL;
                let mut given = v1_2_1::RKLLMMultiModalInput {
                    prompt: input.prompt.as_ptr().cast_mut(),
                    image_embed: ptr::null_mut(),
                    n_image_tokens: 0,
                    n_image: 0,
                    image_width: 0,
                    image_height: 0,
                };
                if let Some(image) = &mut input.image {
                    if !image.tags.is_empty() {
                        return Err(absent("an image tag in the input (it belongs to init)"));
                    }
                    given.image_embed = image.embed.as_mut_ptr();
                    [given.n_image, given.n_image_tokens] = image.counts;
                    [given.image_width, given.image_height] = image.size;
                }
                raw.payload.multimodal_input = given;
            }
        }
        Ok(raw)
    }

    pub(crate) fn v1_3_1(&mut self) -> v1_3_1::RKLLMInput {
        // SAFETY: the struct holds integers, raw pointers and a union of such: zero is valid.
        let mut raw: v1_3_1::RKLLMInput = unsafe { std::mem::zeroed() };
        raw.role = self.role.as_ptr();
        raw.enable_thinking = u8::from(self.enable_thinking);
        match &mut self.payload {
            Payload::Prompt(prompt) => {
                raw.input_type = v1_3_1::RKLLM_INPUT_PROMPT;
                raw.payload.prompt_input = prompt.as_ptr();
            }
            Payload::Tokens(tokens) => {
                raw.input_type = v1_3_1::RKLLM_INPUT_TOKEN;
                raw.payload.token_input = token_input(tokens);
            }
            Payload::Nothing => {
                raw.input_type = v1_3_1::RKLLM_INPUT_TOKEN;
                raw.payload.token_input = NO_TOKENS;
            }
            Payload::Embeddings { values, n_tokens } => {
                raw.input_type = v1_3_1::RKLLM_INPUT_EMBED;
                raw.payload.embed_input = embed_input(values, *n_tokens);
            }
            Payload::Multimodal(input) => {
                raw.input_type = v1_3_1::RKLLM_INPUT_MULTIMODAL;
                raw.payload.multimodal_input = multimodal_v1_3(input);
            }
        }
        raw
    }

    /// The input of 1.3.0 is the beginning of that of 1.3.1.
    pub(crate) fn v1_3_0(&mut self, version: &str) -> Result<v1_3_0::RKLLMInput, CallError> {
        if let Payload::Multimodal(input) = &self.payload
            && input.audio.is_some()
        {
            return Err(CallError::NotInLibrary {
                what: "audio input",
                version: version.to_owned(),
            });
        }
        const {
            assert!(size_of::<v1_3_0::RKLLMInput>() <= size_of::<v1_3_1::RKLLMInput>());
        }
        let raw = self.v1_3_1();
        // SAFETY: `raw` is longer, aligned alike (both by their pointers), and its beginning is a
        // value of the older struct; the layouts are tested against the measured facts.
        Ok(unsafe { (&raw const raw).cast::<v1_3_0::RKLLMInput>().read() })
    }
}

const NO_TOKENS: v1_3_1::RKLLMTokenInput = v1_3_1::RKLLMTokenInput {
    input_ids: ptr::null_mut(),
    n_tokens: 0,
};

fn token_input(tokens: &mut Vec<i32>) -> v1_3_1::RKLLMTokenInput {
    v1_3_1::RKLLMTokenInput {
        input_ids: tokens.as_mut_ptr(),
        n_tokens: tokens.len(),
    }
}

fn embed_input(values: &mut Vec<f32>, n_tokens: usize) -> v1_3_1::RKLLMEmbedInput {
    v1_3_1::RKLLMEmbedInput {
        embed: values.as_mut_ptr(),
        n_tokens,
    }
}

fn multimodal_v1_3(input: &mut OwnedMultimodal) -> v1_3_1::RKLLMMultiModalInput {
    // SAFETY: the struct holds integers and raw pointers: zero is valid.
    let mut given: v1_3_1::RKLLMMultiModalInput = unsafe { std::mem::zeroed() };
    given.prompt = input.prompt.as_ptr().cast_mut();
    if let Some(part) = &mut input.image {
        let [n_image, n_image_tokens] = part.counts;
        let [image_width, image_height] = part.size;
        given.image = v1_3_1::RKLLMImageInput {
            image_embed: part.embed.as_mut_ptr(),
            n_image_tokens,
            n_image,
            image_start: part.tags.ptr(0),
            image_end: part.tags.ptr(1),
            image_content: part.tags.ptr(2),
            image_width,
            image_height,
        };
    }
    if let Some(part) = &mut input.video {
        let [n_video, n_frame_per_video, n_frame_tokens] = part.counts;
        let [frame_width, frame_height] = part.size;
        given.video = v1_3_1::RKLLMVideoInput {
            video_embed: part.embed.as_mut_ptr(),
            n_frame_tokens,
            n_frame_per_video,
            n_video,
            video_start: part.tags.ptr(0),
            video_end: part.tags.ptr(1),
            video_content: part.tags.ptr(2),
            frame_width,
            frame_height,
        };
    }
    if let Some(part) = &mut input.audio {
        let [n_audio, n_audio_tokens] = part.counts;
        given.audio = v1_3_1::RKLLMAudioInput {
            audio_embed: part.embed.as_mut_ptr(),
            n_audio_tokens,
            n_audio,
            audio_start: part.tags.ptr(0),
            audio_end: part.tags.ptr(1),
            audio_content: part.tags.ptr(2),
        };
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_rows_that_are_too_narrow_lie_zeros_of_ours() {
        let rows = rows("the embeddings", &[1.5; 3 * 7], &[3]).unwrap();
        let (given, behind) = rows.split_at(3 * 7);
        assert!(given.iter().all(|value| *value == 1.5));
        assert!(rows.len() >= 3 * WIDEST_ROW && behind.iter().all(|value| *value == 0.0));
    }

    #[test]
    fn a_count_of_tokens_takes_no_memory_of_its_own() {
        let many = vec![0.5; 4 << 20];
        let rows = rows("the embeddings", &many, &[4 << 20]).unwrap();
        assert_eq!(rows.len(), MOST_ROWS * WIDEST_ROW);
        for counts in [&[0][..], &[usize::MAX, 2], &[5]] {
            assert!(super::rows("the embeddings", &[0.5; 4], counts).is_err());
        }
    }
}
