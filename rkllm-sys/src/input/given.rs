//! Inputs of a run as a caller gives them. They borrow what they hold.

/// The input of a run, without its role.
#[derive(Debug, Clone, Copy)]
#[allow(
    clippy::large_enum_variant,
    reason = "it borrows everything and lives for one call"
)]
pub enum RunInput<'a> {
    /// Text, put between the prefix and postfix of the chat template. With three empty template
    /// strings it is tokenised as given, special tokens included.
    Prompt(&'a str),
    /// Token ids, to which no template applies (docs/vendor-library.md §4).
    Tokens(&'a [i32]),
    /// Rows of the model's embedding size; no template applies to them. The library knows that
    /// size and does not check it.
    Embeddings { values: &'a [f32], n_tokens: usize },
    /// A prompt with embeddings for its tags.
    Multimodal(Multimodal<'a>),
    /// Of one sequence among several: it idles while the others run
    /// ([`Library::takes_idle_sequences`](crate::Library::takes_idle_sequences)).
    Nothing,
}

/// A prompt with one tag (`<image>`, `<video>`) for each item given beside it.
#[derive(Debug, Clone, Copy)]
pub struct Multimodal<'a> {
    pub prompt: &'a str,
    pub image: Option<Images<'a>>,
    /// 1.3.0 and later.
    pub video: Option<Videos<'a>>,
    /// 1.3.1 and later.
    pub audio: Option<Sounds<'a>>,
}

/// The texts around and in place of an item's tokens. 1.3.0 and later.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tags<'a> {
    pub start: Option<&'a str>,
    pub end: Option<&'a str>,
    pub content: Option<&'a str>,
}

#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    pub embed: &'a [f32],
    pub n_image_tokens: usize,
    pub n_image: usize,
    pub tags: Tags<'a>,
    /// Input size of the encoder, in pixels.
    pub width: usize,
    pub height: usize,
}

#[derive(Debug, Clone, Copy)]
pub struct Videos<'a> {
    pub embed: &'a [f32],
    pub n_frame_tokens: usize,
    pub n_frame_per_video: usize,
    pub n_video: usize,
    pub tags: Tags<'a>,
    pub width: usize,
    pub height: usize,
}

#[derive(Debug, Clone, Copy)]
pub struct Sounds<'a> {
    pub embed: &'a [f32],
    pub n_audio_tokens: usize,
    pub n_audio: usize,
    pub tags: Tags<'a>,
}

/// One sequence's input.
#[derive(Debug, Clone, Copy)]
pub struct RunItem<'a> {
    /// `user` or `tool`.
    pub role: &'a str,
    /// Works only with the model's own template.
    pub enable_thinking: bool,
    pub input: RunInput<'a>,
}

impl<'a> RunItem<'a> {
    /// An input of the role "user".
    pub fn user(input: RunInput<'a>) -> Self {
        RunItem {
            role: "user",
            enable_thinking: false,
            input,
        }
    }
}
