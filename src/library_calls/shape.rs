use serde::{Deserialize, Serialize};

use super::{CallFailure, CrossAttnParam, Input, InputPayload};

/// The sizes of a model that what is handed to it must fit; `None`: not known.
///
/// The library checks none of them: a token outside its vocabulary is an index into memory that is not
/// its own, and rows that are too short are read past their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelShape {
    /// Token ids are below this.
    pub vocabulary_tokens: Option<u32>,
    /// Numbers of one row of embeddings or hidden states.
    pub embedding_columns: Option<u32>,
    /// Bytes of a token's keys and values in all layers, at 16 bits a number.
    pub token_bytes: Option<u64>,
}

fn bad(what: String, reason: String) -> CallFailure {
    CallFailure::BadValue { what, reason }
}

impl ModelShape {
    /// Whether these can be tokens of the model. An error's `what` is the index.
    pub fn check_tokens(&self, ids: &[i32]) -> Result<(), (usize, String)> {
        let unfit = |id: &i32| match u32::try_from(*id) {
            Err(_) => true,
            Ok(id) => self.vocabulary_tokens.is_some_and(|tokens| id >= tokens),
        };
        let Some(index) = ids.iter().position(unfit) else {
            return Ok(());
        };
        let id = ids[index];
        Err((
            index,
            match self.vocabulary_tokens {
                Some(tokens) if id >= 0 => format!(
                    "{id} is no token of this model, whose vocabulary has {tokens} (0 to {})",
                    tokens.saturating_sub(1)
                ),
                _ => format!("{id} is no token id"),
            },
        ))
    }

    /// Whether everything in `input` is as large as its counts say and the model reads.
    ///
    /// # Errors
    ///
    /// `BadValue`, whose `what` is the path of the value in the input.
    pub fn check(&self, input: &Input) -> Result<(), CallFailure> {
        let payload = input
            .payload()
            .map_err(|error| bad("input".to_owned(), error.to_string()))?;
        match payload {
            InputPayload::Prompt(_) => Ok(()),
            InputPayload::Token(tokens) => self
                .check_tokens(&tokens.input_ids)
                .map_err(|(index, why)| bad(format!("token_input.input_ids[{index}]"), why)),
            InputPayload::Embed(embed) => {
                self.check_rows("embed_input.embed", &embed.embed, &[embed.n_tokens], 1)
            }
            InputPayload::Multimodal(input) => {
                // Some encoders give several layers' embeddings in a row.
                const MOST_LAYERS: usize = 16;
                let part = |name, values: &[f32], counts: &[usize]| {
                    self.check_rows(name, values, counts, MOST_LAYERS)
                };
                if let Some(image) = &input.image {
                    let counts = [image.n_image, image.n_image_tokens];
                    part(
                        "multimodal_input.image.image_embed",
                        &image.image_embed,
                        &counts,
                    )?;
                }
                if let Some(video) = &input.video {
                    let counts = [video.n_video, video.n_frame_per_video, video.n_frame_tokens];
                    part(
                        "multimodal_input.video.video_embed",
                        &video.video_embed,
                        &counts,
                    )?;
                }
                if let Some(audio) = &input.audio {
                    let counts = [audio.n_audio, audio.n_audio_tokens];
                    part(
                        "multimodal_input.audio.audio_embed",
                        &audio.audio_embed,
                        &counts,
                    )?;
                }
                Ok(())
            }
        }
    }

    /// Whether `values` are a row for each token, of one to `most` times the model's width.
    fn check_rows(
        &self,
        what: &str,
        values: &[f32],
        counts: &[usize],
        most: usize,
    ) -> Result<(), CallFailure> {
        let refuse = |reason| Err(bad(what.to_owned(), reason));
        let tokens = counts
            .iter()
            .try_fold(1_usize, |product, count| product.checked_mul(*count));
        let Some(tokens @ 1..) = tokens else {
            return refuse(format!(
                "it is for {counts:?} tokens, but needs at least one"
            ));
        };
        if values.is_empty() || !values.len().is_multiple_of(tokens) {
            return refuse(format!(
                "it has {} values for {tokens} tokens, but all rows need the same number",
                values.len()
            ));
        }
        let columns = values.len() / tokens;
        let Some(width) = self.embedding_columns.map(|width| width as usize) else {
            return Ok(());
        };
        let fits = width > 0 && columns.is_multiple_of(width) && columns / width <= most;
        match fits {
            true => Ok(()),
            false => refuse(format!(
                "its rows have {columns} values (of {} for {tokens} tokens), but those of this \
                 model have {width}",
                values.len()
            )),
        }
    }
}

impl CrossAttnParam {
    /// Whether its arrays fit each other; how many layers and heads there are only the library knows.
    ///
    /// # Errors
    ///
    /// `BadValue`, whose `what` is the path of the value.
    pub fn check(&self) -> Result<(), CallFailure> {
        let refuse = |what: &str, reason: String| Err(bad(what.to_owned(), reason));
        let Some(tokens @ 1..) = usize::try_from(self.num_tokens).ok() else {
            return refuse(
                "num_tokens",
                format!("it is {}, but must be at least 1", self.num_tokens),
            );
        };
        for (what, len) in [
            ("encoder_mask", self.encoder_mask.len()),
            ("encoder_pos", self.encoder_pos.len()),
        ] {
            if len != tokens {
                return refuse(
                    what,
                    format!("it has {len} values, but num_tokens is {tokens}"),
                );
            }
        }
        let (k, v) = (self.encoder_k_cache.len(), self.encoder_v_cache.len());
        if k == 0 || !k.is_multiple_of(tokens) {
            let reason = format!("it has {k} values, which is no whole number for {tokens} tokens");
            return refuse("encoder_k_cache", reason);
        }
        if v != k {
            let reason = format!("it has {v} values, but encoder_k_cache has {k}");
            return refuse("encoder_v_cache", reason);
        }
        if let Some(index) = self.encoder_pos.iter().position(|position| *position < 0) {
            return refuse(
                &format!("encoder_pos[{index}]"),
                "it is negative".to_owned(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library_calls::{AudioInput, EmbedInput, ImageInput, MultimodalInput, VideoInput};

    const SHAPE: ModelShape = ModelShape {
        vocabulary_tokens: Some(100),
        embedding_columns: Some(8),
        token_bytes: None,
    };
    const UNKNOWN: ModelShape = ModelShape {
        vocabulary_tokens: None,
        embedding_columns: None,
        token_bytes: None,
    };

    fn what(result: Result<(), CallFailure>) -> Option<String> {
        match result {
            Ok(()) => None,
            Err(CallFailure::BadValue { what, .. }) => Some(what),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn tokens_are_of_the_vocabulary() {
        let at = |shape: ModelShape, ids: &[i32]| what(shape.check(&Input::tokens(ids.to_vec())));
        let third = Some("token_input.input_ids[2]".to_owned());
        assert_eq!(at(SHAPE, &[0, 99]), None);
        assert_eq!(at(SHAPE, &[0, 99, 100]), third);
        assert_eq!(at(SHAPE, &[0, 99, i32::MAX]), third);
        for shape in [SHAPE, UNKNOWN] {
            assert_eq!(at(shape, &[0, 99, -1]), third);
        }
        assert_eq!(at(UNKNOWN, &[i32::MAX]), None);
    }

    fn embed(values: usize, n_tokens: usize) -> Input {
        Input {
            embed_input: Some(EmbedInput {
                embed: vec![0.0; values],
                n_tokens,
            }),
            ..Input::default()
        }
    }

    #[test]
    fn rows_of_embeddings_are_as_wide_as_the_model() {
        let refused = Some("embed_input.embed".to_owned());
        for (values, tokens) in [(8, 1), (80, 10)] {
            assert_eq!(what(SHAPE.check(&embed(values, tokens))), None);
        }
        for (values, tokens) in [
            (7, 1),
            (16, 1),
            (10, 10),
            (0, 1),
            (8, 0),
            (0, 0),
            (8, usize::MAX),
        ] {
            assert_eq!(
                what(SHAPE.check(&embed(values, tokens))),
                refused,
                "{values} {tokens}"
            );
        }
        assert_eq!(what(UNKNOWN.check(&embed(7, 1))), None);
        assert_eq!(what(UNKNOWN.check(&embed(7, 2))), refused);
    }

    #[test]
    fn every_part_of_a_multimodal_input_is_checked() {
        let with = |columns: usize| {
            let embed = |tokens: usize| vec![0.0; columns * tokens];
            let image = ImageInput {
                image_embed: embed(6),
                n_image: 2,
                n_image_tokens: 3,
                ..ImageInput::default()
            };
            let video = VideoInput {
                video_embed: embed(8),
                n_video: 2,
                n_frame_per_video: 2,
                n_frame_tokens: 2,
                ..VideoInput::default()
            };
            let audio = AudioInput {
                audio_embed: embed(3),
                n_audio: 1,
                n_audio_tokens: 3,
                ..AudioInput::default()
            };
            let of = |input| Input {
                multimodal_input: Some(input),
                ..Input::default()
            };
            [
                of(MultimodalInput {
                    image: Some(image),
                    ..MultimodalInput::default()
                }),
                of(MultimodalInput {
                    video: Some(video),
                    ..MultimodalInput::default()
                }),
                of(MultimodalInput {
                    audio: Some(audio),
                    ..MultimodalInput::default()
                }),
            ]
        };
        let names = [
            "image.image_embed",
            "video.video_embed",
            "audio.audio_embed",
        ];
        for (index, name) in names.into_iter().enumerate() {
            // Layers beside each other are read whole, or not at all.
            for columns in [8, 32] {
                assert_eq!(
                    what(SHAPE.check(&with(columns)[index])),
                    None,
                    "{name} {columns}"
                );
            }
            for columns in [1, 7, 12, 0] {
                let refused = what(SHAPE.check(&with(columns)[index]));
                assert_eq!(
                    refused,
                    Some(format!("multimodal_input.{name}")),
                    "{columns}"
                );
            }
        }
    }

    #[test]
    fn the_arrays_of_cross_attention_fit_each_other() {
        let given = |k: usize, v: usize, mask: usize, pos: Vec<i32>, num_tokens| CrossAttnParam {
            encoder_k_cache: vec![0.0; k],
            encoder_v_cache: vec![0.0; v],
            encoder_mask: vec![1.0; mask],
            encoder_pos: pos,
            num_tokens,
        };
        assert_eq!(what(given(12, 12, 2, vec![0, 1], 2).check()), None);
        for (given, blamed) in [
            (given(12, 12, 2, vec![0, 1], 0), "num_tokens"),
            (given(12, 12, 2, vec![0, 1], -2), "num_tokens"),
            (given(12, 12, 1, vec![0, 1], 2), "encoder_mask"),
            (given(12, 12, 2, vec![0], 2), "encoder_pos"),
            (given(12, 12, 2, vec![0, -1], 2), "encoder_pos[1]"),
            (given(13, 13, 2, vec![0, 1], 2), "encoder_k_cache"),
            (given(0, 0, 2, vec![0, 1], 2), "encoder_k_cache"),
            (given(12, 2, 2, vec![0, 1], 2), "encoder_v_cache"),
        ] {
            assert_eq!(what(given.check()).as_deref(), Some(blamed));
        }
    }
}
