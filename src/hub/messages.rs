//! What a transfer tells of itself, and what the daemon and the process that does it say to each other. Any
//! change here needs a new `PROTOCOL_VERSION`.

use serde::{Deserialize, Serialize};

use super::{Job, PullError};

#[derive(Serialize, Deserialize)]
pub enum TransferCommand {
    Pull(Box<Job>),
}

#[derive(Serialize, Deserialize)]
pub enum TransferEvent {
    Hello { protocol: u32 },
    Told(Told),
    Ended(Result<Pulled, PullError>),
}

/// How it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// All files of the machine that it needs are found, and the hub is asked.
    Asking,
    /// Which file of the repository it is.
    Chosen {
        file: String,
    },
    File(FileProgress),
    /// All has come and is what it is to be.
    Installing,
}

/// How much of a file has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileProgress {
    pub file: String,
    pub digest: String,
    pub total: u64,
    pub completed: u64,
}

/// A model that is there now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// As the scan names it that finds it.
    pub id: String,
    pub folder: String,
    /// It was there before, the same.
    pub was_there: bool,
    /// What could not be brought beside it, in words.
    pub notes: Vec<String>,
}
