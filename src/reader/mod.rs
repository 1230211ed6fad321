//! What a model's folder says is untrusted, so it is read in a process of its own: metadata, chat
//! templates and tokenizers, and the work that they do for a request.
//!
//! A reader opens the files of one location, gives up opening, connecting, starting and writing
//! (`sandbox`), and only then looks into them. Whatever they do to it costs what was asked of it and
//! nothing else. `pool` is the daemon's side: it keeps readers, bounds them and ends those that do not
//! answer in time. The daemon gets facts, texts and tokens from them, and runs nothing of theirs.

mod adapters;
mod answers;
mod error;
mod facts;
mod files;
mod functions;
mod gguf;
mod judge;
mod manifest;
mod model_files;
mod model_source;
mod open_model;
mod pinned;
mod pool;
mod process;
mod read_model;
mod rkllm_file;
mod sandbox;
mod self_test;
mod template_source;
mod tokenizer;
mod tokenizer_files;
mod told_replies;

use std::fs::File;
use std::io::{self, Read};

pub use adapters::{ADAPTERS, AdapterFacts};
pub use error::ReaderError;
pub use facts::{EmbeddingDefaults, ModelFacts, ModelKind, ModelReport};
pub use functions::{find_format, written};
pub use judge::Judge;
pub(crate) use manifest::check_name;
pub(crate) use model_files::{ModelFile, kind_of};
pub use model_source::ModelSource;
pub(crate) use open_model::TOKENIZER;
pub(crate) use pool::{CONSTRAINING, LocationAnswer, OpenedModel, Patience};
pub use pool::{Encoded, Encoding, ReaderFigures, Readers, on_behalf_of};
pub use process::run;
pub use rkllm_file::{RkllmFile, toolkit_of};
pub use self_test::run as self_test;
pub use template_source::TemplateSource;
pub use told_replies::ToldReplies;

use crate::children::ChildKind;
use crate::ipc::{ReaderCommand, ReaderEvent};

/// The children that read models' files.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReaderKind {}

impl ChildKind for ReaderKind {
    const COMMAND: &'static str = "reader";
    const NAME: &'static str = "reader";
    type Command = ReaderCommand;
    type Event = ReaderEvent;
    // A reader runs what strangers wrote. A prompt made of the largest body, with its tokens, is half
    // of this.
    const EVENT_LIMIT_BYTES: usize = 32 * 1024 * 1024;

    fn protocol(event: &ReaderEvent) -> Option<u32> {
        match event {
            ReaderEvent::Hello { protocol } => Some(*protocol),
            _ => None,
        }
    }
}

/// Names for a sentence: the first ones, and how many more there are.
pub(crate) fn some_of(names: &[String]) -> String {
    const MOST: usize = 8;
    match names.len().checked_sub(MOST) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..MOST].join(", ")),
    }
}

/// Reads a text file of at most `limit` bytes.
fn read_text(mut file: &File, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = Read::by_ref(&mut file)
        .take(limit + 1)
        .read_to_string(&mut text)?;
    if read as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    Ok(text)
}
