//! A server with the demo model, ours or theirs: where it listens, and what memory its processes had at
//! most.

use std::net::SocketAddr;

use crate::crowd;
use crate::daemon_support::{Daemon, Setup, all_children, built_library};
use crate::llama_server::LlamaServer;
use crate::peak_memory::peak_bytes;

pub const MODEL: &str = "smollm2";
/// Of each slot.
pub const CONTEXT_TOKENS: usize = 4_096;

pub enum Served {
    Ours(Daemon),
    Theirs(LlamaServer),
}

impl Served {
    /// With as many slots, and warm. The draws do not repeat, so that the library may choose its
    /// threads.
    pub fn ours(slots: usize) -> Served {
        Served::ours_with(slots, "")
    }

    /// With further settings, as `table.key = value`.
    pub fn ours_with(slots: usize, settings: &str) -> Served {
        let library = built_library("rkllm_cpu").display().to_string();
        let daemon = Setup::new()
            .demo_model_again(MODEL)
            .settings(&format!("runtime.cpu-library = {library:?}\n{settings}"))
            .model_file(
                MODEL,
                "model.toml",
                &format!("parallel = {slots}\ncontext-length = {CONTEXT_TOKENS}\n"),
            )
            .start();
        Served::Ours(daemon).warmed()
    }

    pub fn theirs(slots: usize) -> Served {
        Served::Theirs(LlamaServer::start(slots)).warmed()
    }

    fn warmed(self) -> Served {
        crowd::ask(self.address(), "Before the invention of printing,", 8);
        self
    }

    pub fn address(&self) -> SocketAddr {
        match self {
            Served::Ours(daemon) => daemon.address,
            Served::Theirs(server) => server.address,
        }
    }

    /// Resident memory of all its processes, each at its most.
    pub fn peak_bytes(&self) -> u64 {
        match self {
            Served::Ours(daemon) => {
                let children = all_children(daemon.pid());
                let all = children.into_iter().chain([daemon.pid()]);
                all.map(peak_bytes).sum()
            }
            Served::Theirs(server) => peak_bytes(server.pid()),
        }
    }
}
