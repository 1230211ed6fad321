//! What the daemon and a reader say to each other: first hellos, then one request at a time, each
//! with its answer. Any change here needs a new `PROTOCOL_VERSION`.
//!
//! Names and paths are bytes: files may be called anything. What is of many parts goes as JSON inside
//! a frame, because a frame's own format does not tell its parts' types.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::constraint::{Compiled, Limits, Unenforceable, Vocabulary, Wanted};
use crate::prompt::{ClientField, ControlTokenPolicy, RenderLimits, TemplateError};

/// A path or a name as the kernel knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RawPath(Vec<u8>);

impl RawPath {
    pub fn to_path(&self) -> PathBuf {
        OsString::from_vec(self.0.clone()).into()
    }

    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for RawPath {
    fn from(path: &P) -> Self {
        Self(path.as_ref().as_os_str().as_bytes().to_vec())
    }
}

/// What a reader may use in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReaderLimits {
    /// Of address space.
    pub memory_bytes: u64,
    /// Of CPU time.
    pub cpu: Duration,
    /// Of the texts of control tokens; a model with more is not read on.
    pub control_token_bytes: usize,
    /// Of one rendering.
    pub render: RenderLimits,
    /// Whether it gives up what it could harm with, as it must wherever a kernel can take it.
    pub confined: bool,
}

/// The files of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelLocation {
    /// The folder that is opened; nothing but the model's file is read outside it.
    pub folder: RawPath,
    /// `None`: the folder is the model's own, and holds one model.
    pub file: Option<FlatFile>,
    /// The file that `template-file` in the manifest names, once it is known.
    pub template_file: Option<String>,
}

/// A model's file among others in the models folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlatFile {
    pub name: String,
    /// The file, of a split one the first part, then the further parts.
    pub files: Vec<String>,
}

/// What a reader is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReaderWork {
    /// Also to render: it compiles the template, and lets it render a plain question.
    Prompts,
    /// Of a model without a template that can be used.
    Texts,
    /// To make grammars of what clients want, at a low priority.
    Grammars,
}

/// What is asked of a reader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ReaderCommand {
    /// Names what stands in a folder.
    List {
        folder: RawPath,
        limits: ReaderLimits,
    },
    /// Opens a model's files and tells what they say. Once, and before all that follows.
    Open {
        location: ModelLocation,
        limits: ReaderLimits,
        work: ReaderWork,
    },
    /// Makes a prompt of a conversation, a [`RenderRequest`](crate::prompt::RenderRequest) in JSON.
    Render {
        request: String,
        /// A longer prompt gets no tokens: it cannot fit, however few they were.
        counted_bytes: usize,
    },
    /// Makes prompts of plain texts.
    Plain {
        texts: Vec<String>,
        /// `None`: texts of control tokens become those tokens.
        policy: Option<ControlTokenPolicy>,
        /// As in `Render`.
        counted_bytes: usize,
    },
    Encode {
        text: String,
        /// Add the special tokens that belong around a text.
        add_special: bool,
        with_pieces: bool,
    },
    Decode {
        tokens: Vec<u32>,
    },
    /// Makes a grammar of what a client wants its answer to be.
    Constrain {
        wanted: Wanted,
        limits: Limits,
    },
    /// Tells the bytes of all tokens.
    Vocabulary,
}

/// The answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ReaderEvent {
    /// The first message; its layout never changes.
    Hello {
        protocol: u32,
    },
    Listed {
        entries: Vec<ListedEntry>,
        /// There are more than are looked at.
        more: bool,
    },
    NotListed {
        os_error: Option<i32>,
        reason: String,
    },
    /// What there is, without its template: [`ModelReport`](crate::reader::ModelReport) in JSON.
    Facts {
        json: String,
    },
    /// Follows `Facts` where a template can be used: how the model replies, a
    /// [`FoundFormat`](crate::reply::FoundFormat) in JSON.
    Replies {
        json: String,
    },
    /// Follows `Facts` and `Replies`.
    Template(TemplateState),
    /// Nothing of a model is in the folder, but these folders are.
    Folders(Vec<RawPath>),
    /// Nothing of a model is in the folder.
    Nothing,
    /// The manifest names this file, which is to be opened beforehand.
    NeedsFile {
        name: String,
    },
    /// What is there cannot be used; `file` is the name of the one to blame.
    Unusable {
        file: Option<RawPath>,
        problem: String,
    },
    Prompts(Vec<Prompt>),
    NotRendered(TemplateError),
    Encoded {
        tokens: Vec<u32>,
        /// The bytes of each token, if they were asked for.
        pieces: Option<TokenPieces>,
    },
    Decoded {
        text: String,
    },
    Constrained(Compiled),
    /// What is wanted cannot be kept.
    NotConstrained(Unenforceable),
    Vocabulary(Vocabulary),
    /// The model has no `tokenizer.json`.
    NoTokenizer,
    /// `tokens[index]` is no token of the model.
    NoSuchToken {
        index: usize,
    },
    /// The text of this index holds a control token, which the policy refuses.
    ControlToken {
        index: usize,
        token: String,
    },
    /// The answer would have so many bytes, more than the daemon takes from a reader.
    TooLarge {
        bytes: usize,
    },
    Failed {
        reason: String,
    },
}

/// The bytes of tokens, as one text and where its parts end: many small ones take no more memory here
/// than there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenPieces {
    bytes: Vec<u8>,
    lengths: Vec<u32>,
}

impl TokenPieces {
    pub fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        self.lengths.push(piece.len() as u32);
    }

    /// Whether they are those of so many tokens; a reader may have sent anything.
    pub fn are_of(&self, tokens: usize) -> bool {
        let lengths = self.lengths.iter().map(|length| u64::from(*length));
        self.lengths.len() == tokens && lengths.sum::<u64>() == self.bytes.len() as u64
    }

    /// What they take in memory.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.lengths)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        self.lengths.iter().map(move |length| {
            let (piece, behind) = rest.split_at((*length as usize).min(rest.len()));
            rest = behind;
            piece
        })
    }
}

impl<P: AsRef<[u8]>> FromIterator<P> for TokenPieces {
    fn from_iter<I: IntoIterator<Item = P>>(pieces: I) -> Self {
        let mut all = Self::default();
        for piece in pieces {
            all.push(piece.as_ref());
        }
        all
    }
}

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListedEntry {
    pub name: RawPath,
    pub kind: EntryKind,
}

/// What the folder itself says of an entry; nothing was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EntryKind {
    File,
    Folder,
    /// A symbolic link.
    Link,
    /// The file system does not tell.
    Unknown,
    /// A FIFO, a socket or a device.
    Other,
}

/// What `model.toml` names of what prompts may begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedPrefixes {
    /// As the template writes them.
    pub texts: Vec<String>,
    /// Those that are evaluated before a client asks for them.
    pub pinned: Vec<PinnedPrompt>,
    /// What is named and cannot be shared, in words.
    pub problems: Vec<String>,
}

/// What prompts begin with that `model.toml` names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedPrompt {
    pub name: String,
    /// As the template writes it.
    pub text: String,
}

/// Whether a model's template can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TemplateState {
    /// There is none.
    #[default]
    None,
    Usable {
        /// Why it could not render one plain question; it may still serve requests that set the
        /// variables it needs.
        failed_probe: Option<String>,
        shared: SharedPrefixes,
    },
    /// It does not compile, or kills who tries.
    Broken { reason: String },
}

/// The text that a runtime gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    pub text: String,
    /// Its tokens as the model's tokenizer makes them, special ones parsed and none added; `None`:
    /// there is no tokenizer, or they were not asked for.
    pub tokens: Option<Vec<i32>>,
    /// Where control tokens of the client's were made plain text.
    pub neutralised: Vec<ClientField>,
    /// Bytes at its end that are the beginning of the answer, which the client sent.
    pub begun_bytes: usize,
}

impl Prompt {
    /// A text as it is.
    pub fn of_text(text: String) -> Self {
        Self {
            text,
            ..Self::default()
        }
    }

    /// The prompt before the answer, and what of the answer itself it ends with.
    pub fn around_begun_answer(&self) -> (&str, &str) {
        let before = self.text.len().checked_sub(self.begun_bytes);
        // A reader may have sent anything.
        let parts = before.and_then(|before| self.text.split_at_checked(before));
        parts.unwrap_or((&self.text, ""))
    }
}
