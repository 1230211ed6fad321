//! What the metrics are told whole: a run that ended, and the figures that are read when a client asks.

use std::sync::Arc;

use crate::board::BoardSample;
use crate::reader::{ReaderFigures, Readers};
use crate::telemetry::own_process::OwnProcess;

/// A run of the vendor's functions that ended.
#[derive(Clone, Debug)]
pub struct RpcRun {
    pub model: Arc<str>,
    /// The method's name.
    pub method: &'static str,
    /// `complete`, `cancelled` or the error's stable name.
    pub outcome: &'static str,
    /// Tokens that the library evaluated; 0 where it did not tell.
    pub prompt_tokens: u64,
    /// Tokens that the library handed over.
    pub completion_tokens: u64,
}

/// Slots of a worker.
#[derive(Clone, Copy, Debug)]
pub struct Slots {
    pub all: u8,
    /// Those of them that are in use: a bit each, the first slot's the lowest.
    pub busy: u16,
}

impl Slots {
    pub fn in_use(self) -> u32 {
        self.busy.count_ones()
    }

    pub fn is_busy(self, slot: u8) -> bool {
        u32::from(self.busy)
            .checked_shr(slot.into())
            .is_some_and(|bits| bits & 1 == 1)
    }
}

/// One model as it is when the metrics are asked for.
#[derive(Clone, Debug)]
pub struct ModelFigures {
    pub model: Arc<str>,
    /// The phase's name in the API.
    pub phase: &'static str,
    /// Slots of the worker that is loaded, and how many of them are in use.
    pub slots: Option<Slots>,
    /// Requests in the model's queue.
    pub queue_length: usize,
    /// Requests the queue holds at most.
    pub queue_capacity: usize,
    /// Bytes that the worker holds, by kind, as they were measured last.
    pub memory_bytes: Vec<(&'static str, u64)>,
}

/// What the daemon holds and had to drop, as it is when the metrics are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnFigures {
    /// Bytes charged to requests and answers.
    pub requests_memory_bytes: u64,
    /// How often there was no memory for a request.
    pub requests_memory_refusals: u64,
    /// Bytes of tensors in files that wait for their readers.
    pub tensors_memory_bytes: u64,
    /// How often there was no memory for a tensor.
    pub tensors_memory_refusals: u64,
    /// Responses that could not be kept on disk; `None`: none is kept there.
    pub response_write_failures: Option<u64>,
    /// Log entries that were dropped because they were not read.
    pub log_entries_dropped: u64,
    /// `None`: none are kept.
    pub prefixes: Option<PrefixFigures>,
}

/// Prefixes of conversations on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixFigures {
    pub files: usize,
    pub bytes: u64,
}

/// What the kernel, and the daemon itself, tell when the metrics are asked for.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    pub process: OwnProcess,
    pub readers: ReaderFigures,
    pub own: OwnFigures,
    /// `None`: the board was not looked at.
    pub board: Option<Arc<BoardSample>>,
}

impl Readings {
    /// Reads them.
    pub async fn now(readers: Option<&Readers>) -> Self {
        let held = async {
            match readers {
                Some(readers) => readers.figures().await,
                None => ReaderFigures::default(),
            }
        };
        let (process, readers) = tokio::join!(OwnProcess::now(), held);
        Self {
            process,
            readers,
            ..Self::default()
        }
    }
}
