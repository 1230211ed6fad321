//! All facts of a board, as one JSON (docs/board-facts.md).

use std::path::Path;

use serde::Serialize;

use super::fact::Fact;
use super::figures::{
    AbortLatency, Batch, Decoding, HandleMemory, LogitsMode, Prefill, PrefillAbort, PrefixReuse,
    SeveralHandles,
};
use super::measure::Bench;
use crate::apart::{self, Subject};
use crate::board::Sysroot;
use crate::board::sensors::{self, Clock, Identity, frequency};
use crate::library_calls::CallbackThread;

/// Changes with the meaning of a field.
const SCHEMA: &str = "rkllmd-board-facts-1";
/// What the kernel is waited for.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BoardFacts {
    pub schema: &'static str,
    pub rkllmd_version: &'static str,
    pub board: Fact<Identity>,
    /// CPU clusters, NPU, GPU and memory, before the first measurement.
    pub clocks: Fact<Vec<Clock>>,
    pub library: Fact<Library>,
    pub model_bytes: Fact<u64>,
    pub decoding: Fact<Decoding>,
    pub logits_mode: Fact<LogitsMode>,
    pub short_prefills: Fact<Vec<Prefill>>,
    pub prefix_reuse: Fact<PrefixReuse>,
    pub abort_latency: Fact<AbortLatency>,
    pub prefill_abort: Fact<PrefillAbort>,
    pub batches: Vec<Fact<Batch>>,
    pub callback_threads: Fact<CallbackThread>,
    pub memory_per_handle: Vec<Fact<HandleMemory>>,
    pub several_handles: Fact<SeveralHandles>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Library {
    pub version: String,
    pub abi_family: String,
}

impl BoardFacts {
    /// Whether the model made anything at all.
    pub fn is_measured(&self) -> bool {
        self.decoding.value.is_some()
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

pub(super) async fn measure(bench: &Bench, model: &Path, progress: &impl Fn(&str)) -> BoardFacts {
    progress("the board");
    let board = kernel(|sysroot| Identity {
        npu_driver: sensors::driver_version(sysroot),
        ..Identity::read(sysroot)
    });
    let (board, clocks) = (board.await, kernel(clocks).await);
    let model_bytes = Fact::of(std::fs::metadata(model).map(|metadata| metadata.len()));
    progress("the library");
    let library = bench.library().await;
    let library = Fact {
        value: library.value.map(|(version, abi_family)| Library {
            version,
            abi_family,
        }),
        reason: library.reason,
    };
    progress("decoding");
    let decoding = bench.decoding().await;
    progress("logits mode");
    let logits_mode = bench.logits_mode().await;
    progress("short prefills");
    let short_prefills = bench.short_prefills().await;
    progress("reuse of prefixes");
    let prefix_reuse = bench.prefix_reuse().await;
    progress("aborts");
    let abort_latency = bench.abort_latency().await;
    let prefill_abort = bench.prefill_abort().await;
    progress("batches");
    let batches = bench.batches().await;
    progress("threads of callbacks");
    let callback_threads = bench.callback_threads().await;
    progress("several handles");
    let (memory_per_handle, several_handles) = bench.handles().await;
    BoardFacts {
        schema: SCHEMA,
        rkllmd_version: env!("CARGO_PKG_VERSION"),
        board,
        clocks,
        library,
        model_bytes,
        decoding,
        logits_mode,
        short_prefills,
        prefix_reuse,
        abort_latency,
        prefill_abort,
        batches,
        callback_threads,
        memory_per_handle,
        several_handles,
    }
}

async fn kernel<T: Send + 'static>(read: impl FnOnce(&Sysroot) -> T + Send + 'static) -> Fact<T> {
    let subject = Subject::NpuDriver;
    let told = apart::ask(subject, LIMIT, move || read(&Sysroot::own())).await;
    Fact::of(told.ok_or("the kernel does not answer"))
}

fn clocks(sysroot: &Sysroot) -> Vec<Clock> {
    let clusters = sysroot.names(frequency::CLUSTERS).into_iter();
    let clusters = clusters
        .filter(|name| name.starts_with(frequency::CLUSTER))
        .filter_map(|name| Clock::cluster(sysroot, &name));
    let devices = sysroot.names(frequency::DEVICES).into_iter();
    let devices = devices.filter_map(|name| Clock::device(sysroot, &name));
    clusters.chain(devices).collect()
}
