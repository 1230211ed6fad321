//! What the daemon and a tokenizer process say to each other: `Open` once, then one request at a
//! time, each with one answer. Any change here needs a new `PROTOCOL_VERSION`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is asked of a tokenizer process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenizerCommand {
    Open {
        protocol: u32,
        tokenizer_json: PathBuf,
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
}

/// The answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenizerEvent {
    Opened,
    Encoded {
        tokens: Vec<u32>,
        /// The bytes of each token, if they were asked for.
        pieces: Option<Vec<Vec<u8>>>,
    },
    Decoded {
        text: String,
    },
    /// `tokens[index]` is no token of the model.
    NoSuchToken {
        index: usize,
    },
    Failed {
        reason: String,
    },
}
