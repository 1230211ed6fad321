//! llama.cpp's server: started, asked for its version, ended.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::daemon_support::{demo_model, eventually};
use crate::report::Report;
use crate::served::CONTEXT_TOKENS;

/// Names the program.
const VARIABLE: &str = "LLAMA_SERVER";

pub struct LlamaServer {
    child: Child,
    pub address: SocketAddr,
}

/// Named by who starts the benchmark.
pub fn program() -> PathBuf {
    let path = std::env::var_os(VARIABLE).map(PathBuf::from);
    let path = path.unwrap_or_else(|| panic!("{VARIABLE} is not set: run `make bench-peers`"));
    assert!(path.is_file(), "{} is no file", path.display());
    path
}

impl LlamaServer {
    /// With a whole context for each slot, and the rest as its makers have it.
    pub fn start(slots: usize) -> LlamaServer {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // Free a moment ago; should another program take it meanwhile, the server ends and says so.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = free.local_addr().expect("a bound address");
        drop(free);
        let child = Command::new(program())
            .arg("--model")
            .arg(demo_model())
            .args(["--parallel", &slots.to_string()])
            .args(["--ctx-size", &(slots * CONTEXT_TOKENS).to_string()])
            .args(["--threads", &threads.to_string()])
            .args(["--host", "127.0.0.1", "--port", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("llama-server starts");
        let mut server = LlamaServer { child, address };
        eventually("llama-server is ready", || {
            let ended = server.child.try_wait().expect("its state");
            assert!(ended.is_none(), "llama-server ended: {ended:?}");
            server.is_ready().then_some(())
        });
        server
    }

    fn is_ready(&self) -> bool {
        let asked = std::net::TcpStream::connect(self.address).and_then(|stream| {
            crate::daemon_support::begin(stream, "GET", "/health", None)?.into_answer()
        });
        asked.is_ok_and(|answer| answer.status == 200)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for LlamaServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both configurations and versions of llama.cpp.
pub fn describe(report: &mut Report) {
    let output = Command::new(program())
        .arg("--version")
        .output()
        .expect("llama-server says its version");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let theirs = said.lines().find(|line| line.starts_with("version"));
    let theirs = theirs.unwrap_or("version unknown");
    let lock = include_str!("../../Cargo.lock");
    let ours = lock
        .split("name = \"llama-cpp-sys-2\"\nversion = \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("the lock file names llama-cpp-sys-2");
    report.section("configuration", "what is compared");
    report.note(format!(
        "rkllmd: the CPU runtime over llama-cpp-sys-2 {ours}, parallel = the number of clients, \
         context-length = {CONTEXT_TOKENS}, the rest as it is by default"
    ));
    report.note(format!(
        "llama-server: {theirs}, --parallel likewise, --ctx-size {CONTEXT_TOKENS} for each, \
         --threads the number of CPUs, the rest as it is by default"
    ));
    report.detail("rkllmd", ours.into());
    report.detail("llama_server", theirs.into());
}
