//! The thread for the calls that are allowed while a run is in progress. It may hang in the
//! library without holding up generation.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rkllm_sys::{CallError, ControlHandle};

use super::slot::{SlotNote, SlotNotes};
use crate::ipc::Question;

/// A call to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlCall {
    Abort {
        run: u64,
    },
    KvCacheSize {
        run: u64,
        purpose: KvPurpose,
    },
    /// A client's question.
    Ask {
        id: u64,
        question: Question,
    },
}

/// What a KV cache size is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvPurpose {
    /// How much of the context is left, asked after the first token, and after others where that
    /// told nothing. At least this many tokens had been generated before the question.
    ContextLeft { tokens_before: u32 },
    /// The prompt's tokens, asked after the run.
    PromptCount,
}

impl ControlCall {
    /// The function's name, for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Abort { .. } => "rkllm_abort",
            Self::KvCacheSize { .. } => "rkllm_get_kv_cache_size",
            Self::Ask {
                question: Question::IsRunning,
                ..
            } => "rkllm_is_running",
        }
    }
}

/// The answer to a call.
#[derive(Debug)]
pub struct ControlReply {
    pub call: ControlCall,
    pub result: Result<ControlAnswer, CallError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlAnswer {
    Nothing,
    /// Tokens in the KV cache.
    Size(Option<u32>),
    IsRunning(bool),
}

/// Starts the thread for one handle, of which the slot has this sequence; it ends when the sender is dropped.
pub fn start(
    handle: ControlHandle,
    sequence: usize,
    notes: SlotNotes,
) -> std::io::Result<Sender<ControlCall>> {
    let (calls, queue) = channel();
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || answer(&handle, sequence, &queue, &notes))?;
    Ok(calls)
}

fn answer(
    handle: &ControlHandle,
    sequence: usize,
    queue: &Receiver<ControlCall>,
    notes: &SlotNotes,
) {
    for call in queue {
        let result = match call {
            ControlCall::Abort { .. } => handle.abort().map(|()| ControlAnswer::Nothing),
            ControlCall::KvCacheSize { .. } => handle.kv_cache_sizes().map(|sizes| {
                let size = sizes.get(sequence);
                ControlAnswer::Size(size.and_then(|size| u32::try_from(*size).ok()))
            }),
            ControlCall::Ask {
                question: Question::IsRunning,
                ..
            } => handle.is_running().map(ControlAnswer::IsRunning),
        };
        notes.send(SlotNote::Control(ControlReply { call, result }));
    }
}
